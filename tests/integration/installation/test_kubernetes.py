import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.docs import block, blocks

from devstack.folders import CHECKOUT
from devstack.ports import LOOPBACK
from webhooks import conf

PAGE = 'installation.md'
DOCKER, SECOND, _SECRETS, VALUES, SECRET, EXTRA, SIDECAR = (yaml.safe_load(block) for block in blocks(PAGE, 'yaml'))
PROBE = yaml.safe_load((CHECKOUT / 'contrib/worker_probe.yaml').read_text())
COMMANDS = '\n'.join(blocks(PAGE))
# Notes its arguments, and copies an empty file.
KUBECTL = """#!/bin/bash
echo "$*" >> asked
if [ "$1" = cp ]; then touch "${@: -1}"; fi
"""
# The chart's configuration.py merges YAML files into the module's names.
CONFIGURATION = """
import pathlib, yaml

def _merge(source, target):
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(value, target[key])
        else:
            target[key] = value

for _file in sorted(pathlib.Path({folder!r}).glob('*.yaml')):
    _merge(yaml.safe_load(_file.read_text()), globals())
"""


def test_the_values_and_the_secret_are_read_as_settings(tmp_path):
    (tmp_path / '1-values.yaml').write_text(
        yaml.safe_dump({'PLUGINS': VALUES['plugins'], 'PLUGINS_CONFIG': VALUES['pluginsConfig']})
    )
    ((name, text),) = SECRET['stringData'].items()
    (tmp_path / f'2-{name}').write_text(text)
    assert EXTRA['extraConfig'][0]['secret']['secretName'] == SECRET['metadata']['name']
    configured: dict = {}
    exec(CONFIGURATION.format(folder=str(tmp_path)), configured)
    assert configured['PLUGINS'] == ['webhooks']
    found = conf.resolve(configured['PLUGINS_CONFIG']['webhooks'], SimpleNamespace())
    assert found.enabled
    assert found.encryption_keys == ('a-key-of-32-characters-or-more-in-your-place',)


def test_the_workers_have_the_time_and_the_heartbeat_that_they_have_under_docker():
    docker = DOCKER['services']['netbox-worker']
    assert VALUES['worker']['command'] == docker['command']
    assert f'{VALUES["worker"]["terminationGracePeriodSeconds"]}s' == docker['stop_grace_period']
    (container,) = PROBE['spec']['template']['spec']['containers']
    assert container['livenessProbe']['exec']['command'] == docker['healthcheck']['test'][1:]


def test_the_worker_of_a_redis_of_its_own_is_the_same_under_docker():
    (sidecar,) = SIDECAR['worker']['sidecars']
    second = SECOND['services']['netbox-webhooks-worker']
    assert sidecar['command'] == second['command']
    assert [word for word in sidecar['command'] if word != 'webhooks'] == VALUES['worker']['command']


def test_pods_of_several_nodes_can_use_the_media_volume():
    """All pods mount one claim, which by default belongs to a single node."""
    assert VALUES['replicaCount'] > 1
    assert VALUES['worker']['replicaCount'] > 1
    assert VALUES.get('persistence', {}).get('accessMode') == 'ReadWriteMany'


def test_the_probe_finds_redis_by_the_files_of_the_chart(tmp_path, stack):
    script = (CHECKOUT / 'contrib/worker_alive.py').read_text()
    for path in ('/run/config/netbox/netbox.yaml', '/run/secrets/netbox/tasks_password'):
        assert path in script
        script = script.replace(path, str(tmp_path / Path(path).name))
    check = tmp_path / 'worker_alive.py'
    check.write_text(script)

    def ask(port: int) -> subprocess.CompletedProcess[str]:
        tasks = {'HOST': LOOPBACK, 'PORT': port, 'DATABASE': stack.tasks.db, 'SSL': False, 'USERNAME': ''}
        (tmp_path / 'netbox.yaml').write_text(yaml.safe_dump({'REDIS': {'tasks': tasks}}))
        return subprocess.run([sys.executable, check], capture_output=True, text=True, timeout=30, check=False)

    # Without an answer from Redis, nobody can tell that no worker runs.
    assert (ask(stack.tasks.port).returncode, ask(1).returncode) == (1, 0)


@pytest.fixture(scope='module')
def python(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('venv')
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    return folder / 'bin/python3'


def run_in(folder: Path, python: Path, text: str) -> subprocess.CompletedProcess[str]:
    text = text.replace('/opt/netbox/venv/bin/python3', str(python))
    text = text.replace('/opt/netbox-webhooks', str(CHECKOUT))
    text = text.replace('python3 -m pip wheel', f'{sys.executable} -m pip wheel')
    environment = os.environ | {'PATH': f'{folder}/bin:{os.environ["PATH"]}'}
    command = ['bash', '-euc', text]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


BUILD, INSTALL = (block for block in blocks(PAGE) if 'SHA256SUMS' in block)


@pytest.fixture(scope='module')
def built(tmp_path_factory, python: Path) -> Path:
    folder = tmp_path_factory.mktemp('built')
    answer = run_in(folder, python, BUILD)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder


class TestOffline:
    @pytest.fixture
    def run(self, tmp_path, python):
        return lambda text: run_in(tmp_path, python, text)

    @pytest.fixture
    def carried(self, built, tmp_path) -> Path:
        shutil.copytree(built, tmp_path, dirs_exist_ok=True)
        return tmp_path / 'wheelhouse'

    def test_the_wheel_is_carried_over_and_installed(self, run, carried, python):
        answer = run(INSTALL)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert {path.suffix for path in carried.iterdir()} == {'.whl', '.txt', ''}
        listed = subprocess.run([python, '-m', 'pip', 'list'], capture_output=True, text=True, check=True)
        assert 'netbox-webhooks' in listed.stdout

    def test_a_file_that_was_changed_on_the_way_is_noticed(self, run, carried):
        (wheel,) = carried.glob('*.whl')
        wheel.write_bytes(wheel.read_bytes() + b' ')
        answer = run(INSTALL)
        assert answer.returncode != 0
        assert 'FAILED' in answer.stdout

    def test_netbox_enterprise_gets_the_wheel_its_requirements_and_the_constraints(self, run, tmp_path):
        kubectl = tmp_path / 'bin/kubectl'
        kubectl.parent.mkdir()
        kubectl.write_text(KUBECTL)
        kubectl.chmod(0o755)
        (build,) = (text for text in blocks(PAGE) if 'pip wheel' in text)
        for text in (build, block(PAGE, 'sh', 'kubectl cp')):
            answer = run(text)
            assert answer.returncode == 0, answer.stdout + answer.stderr
        listed, copied = [line.split() for line in (tmp_path / 'asked').read_text().splitlines()]
        assert 'com.netboxlabs.netbox-enterprise/custom-plugins-upload=true' in listed
        namespace, source = copied[copied.index('--namespace') + 1 :][:2]
        assert namespace
        assert source.endswith(':/opt/netbox/constraints.txt')
        assert not source.startswith((':', '$'))
        with tarfile.open(tmp_path / 'wheelhouse.tar.gz') as archive:
            names = archive.getnames()
        assert {'wheelhouse/requirements.txt', 'wheelhouse/constraints.txt'} < set(names)
        assert [name for name in names if name.endswith('.whl')]

    def test_the_versions_that_are_named_are_this_one(self):
        from webhooks.version import VERSION

        assert f'netbox-webhooks=={VERSION}' in COMMANDS
        assert f'netbox-webhooks=={VERSION}\n' in blocks(PAGE, '')
