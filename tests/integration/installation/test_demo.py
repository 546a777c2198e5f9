import os
import pty
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devstack.api import Api
from devstack.folders import CHECKOUT
from devstack.ports import LOOPBACK, free_port
from devstack.process import wait_until

PATIENCE = 300
COMMAND = str(CHECKOUT / 'scripts' / 'demo')


class Terminal:
    """A mark in the environment finds all its processes."""

    def __init__(self, port: int) -> None:
        self.mark = uuid.uuid4().hex
        self.shown = b''
        self._screen, keyboard = pty.openpty()
        self.process = subprocess.Popen(
            [COMMAND, '--port', str(port)],
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            env=os.environ | {'DEMO_MARK': self.mark},
            start_new_session=True,
        )
        os.close(keyboard)

    def wait_for(self, text: str) -> None:
        while text.encode() not in self.shown:
            try:
                self.shown += os.read(self._screen, 65_536)
            except OSError:
                pytest.fail(f'The demo ended without {text!r}:\n{self.shown.decode()}')

    def interrupt(self) -> int:
        """Send Ctrl-C to the first process group, and return the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE)

    def left_behind(self) -> list[str]:
        return [path.parent.name for path in Path('/proc').glob('[0-9]*/environ') if self._is_mine(path)]

    def _is_mine(self, environment: Path) -> bool:
        try:
            return self.mark.encode() in environment.read_bytes()
        except OSError:
            return False

    def close(self) -> None:
        for pid in self.left_behind():
            os.kill(int(pid), signal.SIGKILL)
        self.process.wait(PATIENCE)
        os.close(self._screen)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def terminal(port: int) -> Iterator[Terminal]:
    terminal = Terminal(port)
    yield terminal
    terminal.close()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *options], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
    )


SHOWN = ('created', 'updated', 'deleted', 'webhook-id', 'webhook-signature', 'Bern', 'redeliver/')


def test_once_it_shows_what_arrived_and_ends_well(port):
    answer = run('--once', '--port', str(port))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert [word for word in SHOWN if word not in answer.stdout] == []


@pytest.mark.long
def test_with_a_broker_it_shows_the_stream(port):
    answer = run('--once', '--broker', 'nats', '--port', str(port))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    shown = answer.stdout.partition('stream NETBOX of NATS')[2]
    for word in ('netbox.dcim.site.created', 'netbox.dcim.site.updated', 'netbox.dcim.site.deleted', 'Nats-Msg-Id'):
        assert word in shown


def test_on_a_terminal_it_shows_what_arrived_and_stays_up_with_a_day_to_look_at(terminal, port):
    terminal.wait_for('Ctrl-C ends it all')
    assert [word for word in SHOWN if word.encode() not in terminal.shown] == []
    api = Api(f'http://{LOOPBACK}:{port}/')
    api.log_in('admin', 'admin')
    webhooks = api.get('plugins/webhooks/webhooks/')['results']
    assert [webhook['name'] for webhook in webhooks if webhook['paused']] == ['Data warehouse']
    assert [webhook['name'] for webhook in webhooks if webhook['health']['suspended_since']] == ['Switches']
    healthy, failing = ([one for one in webhooks if one['name'] == name] for name in ('Address management', 'Billing'))
    assert healthy[0]['health']['failed'] == 0 < failing[0]['health']['failed']

    deliveries = api.get('plugins/webhooks/deliveries/', status='delivered', limit=0)['results']
    hours = {delivery['finished_at'][:13] for delivery in deliveries}
    assert len(hours) > 12
    assert min(hours) < (datetime.now(UTC) - timedelta(hours=20)).isoformat()

    assert terminal.left_behind() != []
    assert terminal.interrupt() == 130
    assert wait_until(lambda: terminal.left_behind() == [], timeout=30)


def test_interrupted_while_it_starts_it_leaves_nothing_behind(terminal):
    terminal.wait_for('Starting NetBox')
    assert terminal.left_behind() != []
    assert terminal.interrupt() == 130
    assert wait_until(lambda: terminal.left_behind() == [], timeout=30)


def test_a_second_demo_on_the_port_of_one_that_starts_is_refused(terminal, port):
    terminal.wait_for('Starting')
    answer = run('--once', '--port', str(port))
    assert (answer.returncode, f'Port {port} is in use' in answer.stderr) == (1, True)
    assert 'Traceback' not in answer.stdout + answer.stderr


def test_a_port_in_use_is_named(port):
    with socket.create_server((LOOPBACK, port)):
        answer = run('--once', '--port', str(port))
    assert answer.returncode == 1
    assert f'Port {port} is in use' in answer.stderr
    assert 'Traceback' not in answer.stderr
