"""The documented commands install the new version.

pip gets setuptools from the registry.
"""

import os
import re
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from webhooks.version import VERSION

ROOT = Path(__file__).parents[3]
SHIPPED = ('webhooks', 'docs', *(path.name for path in ROOT.glob('*.*') if path.is_file()), 'LICENSE')
# 1.0.0's README said this.
FORMER_LINE = 'netbox-webhooks @ file:///opt/netbox-webhooks\n'
WITHDRAWN = ('withdrawn.py', 'migrations/0999_withdrawn.py', 'templates/withdrawn.html', 'static/withdrawn.css')


def commands(page: str, heading: str) -> str:
    section = (ROOT / page).read_text().split(f'\n## {heading}\n')[1].split('\n## ')[0]
    blocks = re.findall(r'^```sh\n(.*?)^```$', section, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if ' pip install ' in block)


@dataclass
class Host:
    """A folder that stands for `/`."""

    root: Path
    cache: Path

    @property
    def checkout(self) -> Path:
        return self.root / 'opt/netbox-webhooks'

    @property
    def requirements(self) -> Path:
        return self.root / 'opt/netbox/local_requirements.txt'

    @property
    def package(self) -> Path:
        (folder,) = self.root.glob('opt/netbox/venv/lib/python3*/site-packages/webhooks')
        return folder

    @property
    def installed(self) -> str:
        (folder,) = self.package.parent.glob('netbox_webhooks-*.dist-info')
        return folder.name.removeprefix('netbox_webhooks-').removesuffix('.dist-info')

    def withdrawn(self) -> list[str]:
        return [name for name in WITHDRAWN if (self.package / name).exists()]

    def local(self, text: str) -> str:
        return text.replace('/opt/', f'{self.root}/opt/')

    def run(self, script: str) -> None:
        without = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        environment = without | {'PIP_CACHE_DIR': str(self.cache), 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
        script = self.local(script.replace('sudo ', ''))
        answer = subprocess.run(
            ['sh', '-ec', script], env=environment, cwd=self.root, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr

    def check_out_1_0_0(self) -> None:
        for name in SHIPPED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.checkout / name)
        (self.checkout / 'webhooks/version.py').write_text("VERSION = '1.0.0'\n")
        for name in WITHDRAWN:
            (self.checkout / 'webhooks' / name).touch()

    def check_out_this_version(self) -> None:
        shutil.copy(ROOT / 'webhooks/version.py', self.checkout / 'webhooks/version.py')
        for name in WITHDRAWN:
            (self.checkout / 'webhooks' / name).unlink()


@pytest.fixture(scope='module')
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both take long to make."""
    folder = tmp_path_factory.mktemp('shared')
    venv.create(folder / 'venv', with_pip=True, symlinks=True)
    return folder


@pytest.fixture
def host(tmp_path: Path, shared: Path) -> Host:
    host = Host(tmp_path, shared / 'cache')
    host.checkout.mkdir(parents=True)
    host.requirements.parent.mkdir()
    (host.requirements.parent / 'venv').symlink_to(shared / 'venv')
    host.check_out_1_0_0()
    return host


def leave_a_build(host: Host) -> None:
    """1.0.0's setup.py left this at each installation."""
    shutil.copytree(host.checkout / 'webhooks', host.checkout / 'build/lib/webhooks', dirs_exist_ok=True)


@pytest.mark.parametrize('written', ['as the README says now', 'as it was up to 1.0.0'])
def test_upgrading_leaves_the_new_version_and_nothing_of_the_old_one(host, written):
    if written == 'as it was up to 1.0.0':
        host.requirements.write_text(host.local(FORMER_LINE))
        host.run('/opt/netbox/venv/bin/python3 -m pip install -r /opt/netbox/local_requirements.txt')
    else:
        host.run(commands('README.md', 'Install'))
    assert (host.installed, host.withdrawn()) == ('1.0.0', list(WITHDRAWN))
    leave_a_build(host)
    host.check_out_this_version()

    host.run(commands('docs/installation.md', 'Upgrading'))

    assert (host.installed, host.withdrawn()) == (VERSION, [])
    assert host.requirements.read_text() == host.local('/opt/netbox-webhooks\n')
    shipped = {path.relative_to(ROOT / 'webhooks') for path in (ROOT / 'webhooks').rglob('*.*')}
    assert not [path for path in shipped if '__pycache__' not in path.parts and not (host.package / path).exists()], (
        'not everything is in the package'
    )


def test_a_wheel_takes_nothing_from_an_earlier_build(host):
    """Building also leaves nothing in the checkout for a later build."""
    leave_a_build(host)
    host.check_out_this_version()
    host.run('/opt/netbox/venv/bin/python3 -m pip wheel --no-deps --wheel-dir dist /opt/netbox-webhooks')
    host.run('/opt/netbox/venv/bin/python3 -m pip install --no-index dist/*.whl')
    assert (host.installed, host.withdrawn()) == (VERSION, [])
    shutil.rmtree(host.checkout / 'build')
    host.run('/opt/netbox/venv/bin/python3 -m pip wheel --no-deps --wheel-dir dist /opt/netbox-webhooks')
    assert not (host.checkout / 'build').exists()
