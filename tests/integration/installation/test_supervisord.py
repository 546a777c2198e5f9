import configparser
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.engine import deliveries

from devstack.folders import CHECKOUT
from devstack.netbox import NetBox
from devstack.ports import free_port
from devstack.process import Child, descendants, wait_until
from devstack.receiver import Answer, Manner
from webhooks.choices import StatusChoices

pytestmark = [
    pytest.mark.usefixtures('committed'),
    pytest.mark.skipif(not shutil.which('supervisord'), reason='supervisord is not installed'),
]

TEXT = (CHECKOUT / 'contrib/supervisord.conf').read_text()
WORKER = 'netbox:netbox-rq'
PATIENCE = 90
HEADER = """
[supervisord]
nodaemon=true
user=root
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid

[unix_http_server]
file={folder}/supervisor.sock

[supervisorctl]
serverurl=unix://{folder}/supervisor.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


def with_paths_of_this_test(text: str, netbox: NetBox, folder: Path) -> str:
    """Only paths change, and NetBox keeps the test's user."""
    binaries = Path(sys.executable).parent
    (folder / 'gunicorn.py').write_text(f"bind = '127.0.0.1:{free_port()}'\nworkers = 1\ntimeout = 120\n")
    environment = {**netbox.environment(), 'NETBOX_ROOT': str(netbox.root)}
    named = {name: environment[name] for name in ('NETBOX_ROOT', 'DJANGO_SETTINGS_MODULE', 'PYTHONPATH')}
    listed = ','.join(f'{name}="{value}"' for name, value in named.items())
    replaced = {
        'environment=NETBOX_ROOT="/opt/netbox"': f'environment={listed}',
        '/opt/netbox/gunicorn.py': str(folder / 'gunicorn.py'),
        '/opt/netbox/venv/bin': str(binaries),
        'directory=/opt/netbox': f'directory={netbox.root}',
        '/var/log/supervisor': str(folder),
        '/var/tmp': str(folder),
        'user=netbox\n': '',
    }
    for ours, theirs in replaced.items():
        assert ours in text, f'the file no longer has {ours}'
        text = text.replace(ours, theirs)
    return text


@dataclass
class Supervisor:
    configuration: Path
    child: Child

    def control(self, *arguments: str) -> str:
        command = ['supervisorctl', '-c', str(self.configuration), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout

    def pid(self, program: str) -> int:
        """Return 0 while the program is not running."""
        answer = self.control('pid', program).strip()
        return int(answer) if answer.isdigit() else 0

    def is_running(self, program: str) -> bool:
        return 'RUNNING' in self.control('status', program)


@pytest.fixture
def supervisor(stack, netbox, processes, tmp_path) -> Iterator[Supervisor]:
    folder = tmp_path
    configuration = folder / 'supervisord.conf'
    text = with_paths_of_this_test(TEXT, netbox, folder)
    configuration.write_text(HEADER.format(folder=folder) + text)
    command = [shutil.which('supervisord'), '-c', str(configuration)]
    child = processes.start('supervisord', command, folder=folder, client=True)
    supervisor = Supervisor(configuration, child)
    child.wait_until_ready((folder / 'supervisor.sock').exists)
    yield supervisor
    processes.stop(child, patience=40)


def test_the_text_is_what_supervisord_reads():
    parser = configparser.RawConfigParser()
    parser.read_string(TEXT)
    assert set(parser.sections()) == {'group:netbox', 'program:netbox', 'program:netbox-rq'}


def test_a_worker_under_it_delivers_and_is_restarted_and_delivers_what_it_had_in_hand(supervisor, receiver):
    subscribe(receiver.url('/hook'), Site, timeout=5)
    assert wait_until(lambda: supervisor.is_running(WORKER), timeout=PATIENCE, interval=0.5)

    site()
    receiver.wait_for(1, timeout=PATIENCE)
    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == 1, timeout=PATIENCE)

    receiver.answers('/hook', Answer(manner=Manner.HANG), 200)
    site()
    receiver.wait_for(2, timeout=PATIENCE)
    killed = supervisor.pid(WORKER)
    assert killed
    jobs = descendants(killed)
    os.kill(killed, signal.SIGKILL)
    for job in jobs:
        job.kill()
    assert wait_until(lambda: supervisor.pid(WORKER) not in (0, killed), timeout=PATIENCE, interval=0.5)

    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == 2, timeout=PATIENCE)
    _first, second, third = receiver.requests
    assert second.header('webhook-id') == third.header('webhook-id')
    assert supervisor.is_running('netbox:netbox')
