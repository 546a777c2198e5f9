import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import django
import pytest
import yaml
from core.exceptions import IncompatiblePluginError
from packaging.version import Version
from support.cases import first

from devstack.folders import CHECKOUT
from devstack.netbox import configuration
from devstack.ports import LOOPBACK
from devstack.postgres import DatabaseAddress
from devstack.redis import RedisAddress
from webhooks import WebhooksConfig, conf

PLUGIN = yaml.safe_load((CHECKOUT / 'netbox-plugin.yaml').read_text())
CHANGELOG = (CHECKOUT / 'CHANGELOG.md').read_text()
SETTINGS = (CHECKOUT / 'docs/configuration.md').read_text()
# Beside the docs and .github/.
ADDRESSED = ('pyproject.toml', 'webhooks/version.py')
EXAMPLE, REAL = 'git.example.com', 'forge.example.org'
MATRIX = '| Release | NetBox from | NetBox to | Python |\n|---|---|---|---|\n'
PROJECT = tomllib.loads((CHECKOUT / 'pyproject.toml').read_text())['project']


def tracked(folder: str) -> set[str]:
    listed = subprocess.run(['git', 'ls-files', folder], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


class Release:
    """The script may build and clean up in this copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in tracked('.'):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
            if name.endswith('.md') or name in ADDRESSED or name.startswith('.github/'):
                self.replace(name, EXAMPLE, REAL)
        self.replace('CHANGELOG.md', 'Unreleased', '2026-01-31')
        self.translate()
        self.git('init', '--quiet')
        self.commit()
        self.git('branch', 'complete')

    def translate(self) -> None:
        """Translations are finished when a release is made, not before these tests."""
        (self.folder / 'scripts/messages').write_text('#!/bin/sh\n')

    def restore(self) -> None:
        self.git('reset', '--quiet', '--hard', 'complete')
        self.git('clean', '--quiet', '-xfd')
        for tag in (self.folder / '.git/refs/tags').iterdir():
            self.git('tag', '--delete', tag.name)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        (self.folder / name).write_text(text.replace(old, new))

    def git(self, *arguments: str) -> None:
        person = ('-c', 'user.name=Somebody', '-c', 'user.email=somebody@example.com')
        subprocess.run(['git', *person, *arguments], cwd=self.folder, check=True)

    def commit(self) -> None:
        self.git('add', '--all')
        self.git('commit', '--quiet', '--message', 'Release')

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / 'scripts/release'], capture_output=True, text=True, timeout=300, check=False
        )


@pytest.fixture(scope='module')
def complete(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release(tmp_path_factory.mktemp('release'))


@pytest.fixture(scope='module')
def dist(complete: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release builds what is complete."""
    answer = complete.run()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count('PASSED') == 2
    assert f'Ready. Publish it with: git tag v{WebhooksConfig.version}' in answer.stdout
    assert not list(complete.folder.glob('*.egg-info'))  # the next archive would hold its files
    # Tests clean the copy up.
    return shutil.copytree(complete.folder / 'dist', tmp_path_factory.mktemp('dist') / 'dist')


@pytest.fixture(scope='module')
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob('*.whl')
    return zipfile.ZipFile(path)


@pytest.fixture(scope='module')
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = [name for name in wheel.namelist() if name.endswith('.dist-info/METADATA')]
    return email.message_from_bytes(wheel.read(name))


@pytest.fixture(scope='module')
def archive(dist: Path) -> set[str]:
    (path,) = dist.glob('*.tar.gz')
    with tarfile.open(path) as found:
        return {name.partition('/')[2] for name in found.getnames()}


def test_the_wheel_has_the_whole_plugin_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if '.dist-info/' not in name}
    assert tracked('webhooks') - files == set()
    assert {name.partition('/')[0] for name in files} == {'webhooks'}


def test_the_archive_has_the_docs_too(archive):
    assert (tracked('webhooks') | tracked('docs') | tracked('contrib')) - archive == set()
    assert {'netbox-plugin.yaml', 'README.md', 'CHANGELOG.md', 'COMPATIBILITY.md', 'LICENSE', 'setup.py'} <= archive
    assert {'CONTRIBUTING.md', 'SECURITY.md'} <= archive
    assert [name for name in archive if name.startswith(('tests/', 'scripts/'))] == []


def test_the_package_takes_nothing_along_that_pip_could_replace(metadata):
    # Only extras, the clients of brokers.
    assert [one for one in metadata.get_all('Requires-Dist') if '; extra == ' not in one] == []
    assert metadata['Version'] == WebhooksConfig.version
    assert metadata['License-Expression'] == 'Apache-2.0'


def test_its_page_has_no_link_that_leads_to_a_file_of_the_checkout(metadata):
    text = metadata.get_payload()
    assert metadata['Description-Content-Type'] == 'text/markdown'
    links = re.findall(r'(?:\]\(|src="|href=")([^)"\s]+)', text)
    assert len(links) > 20
    assert [link for link in links if not link.startswith(('https://', '#'))] == []


def test_the_links_of_its_page_lead_to_the_files_of_its_version(metadata):
    source, version = PROJECT['urls']['Source'].replace(EXAMPLE, REAL), f'v{WebhooksConfig.version}'
    text = metadata.get_payload()
    for name in ('docs/receivers.md', 'LICENSE'):
        assert f']({source}/blob/{version}/{name})' in text
    for picture in ('](docs/images/icon.svg', 'src="docs/images/webhook.png'):
        assert picture.replace('docs/', f'{source}/raw/{version}/docs/') in text


def test_it_can_be_found(metadata):
    assert {'netbox', 'netbox-plugin'} <= set(metadata['Keywords'].split(','))
    labels = {line.partition(',')[0] for line in metadata.get_all('Project-URL')}
    assert labels == {'Source', 'Documentation', 'Issues', 'Changelog'}
    major, minor, *_ = django.VERSION
    assert {'Framework :: Django', f'Framework :: Django :: {major}.{minor}'} <= set(metadata.get_all('Classifier'))


class Installation:
    """The checkout must not be on its path."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.root = folder / 'root'
        (self.root / 'conf').mkdir(parents=True)
        # Nobody listens there.
        database, redis = DatabaseAddress(LOOPBACK, 1, 'netbox', 'netbox'), RedisAddress(LOOPBACK, 1)
        text = configuration(database, redis, redis, plugin=True)
        (self.root / 'conf/configuration.py').write_text(text)
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
        self.python = folder / 'venv/bin/python'
        self.packages = Path(self.run('-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
        (self.packages / 'netbox.pth').write_text(f'{sysconfig.get_path("purelib")}\n')
        self._call(sys.executable, '-m', 'pip', '--python', self.python, 'install', '--quiet', '--no-deps', package)

    def run(self, *command: str) -> str:
        return self._call(self.python, *command)

    def _call(self, *command: str | Path) -> str:
        # On this path, pip would find the checkout's own build.
        ours = ('PYTHONPATH', 'NETBOX_CONFIGURATION')
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        answer = subprocess.run(
            command,
            cwd=self.root,
            env=environment | {'NETBOX_ROOT': str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert answer.returncode == 0, answer.stdout
        return answer.stdout


# pip makes a wheel of the archive, whose files another test names. `--long`: that too.
@pytest.mark.parametrize('form', first(1, ['*.whl', '*.tar.gz']), ids=['wheel', 'archive'])
def test_all_files_are_installed(dist, tmp_path, form):
    (package,) = dist.glob(form)
    installation = Installation(tmp_path, package)
    assert [name for name in tracked('webhooks') if not (installation.packages / name).exists()] == []
    if form == '*.tar.gz':
        return  # a wheel was made from it
    # The checks import all modules of pages, API and workers.
    code = """
from django.core.management import call_command
import webhooks
call_command('check')
call_command('collectstatic', interactive=False)
print(webhooks.__file__)"""
    said = installation.run('-m', 'netbox', 'shell', '--no-imports', '-c', code)
    assert 'webhooks.W001' in said
    assert said.splitlines()[-1] == str(installation.packages / 'webhooks/__init__.py')
    static = {Path(name).relative_to('webhooks/static') for name in tracked('webhooks/static')}
    assert static
    assert [name for name in static if not (installation.root / 'static' / name).exists()] == []


class TestDescription:
    """NetBox's catalogue of plugins reads netbox-plugin.yaml."""

    def test_it_has_the_form_of_the_plugins_in_the_catalogue(self):
        assert PLUGIN.keys() == {'version', 'package_name', 'compatibility'}
        assert (PLUGIN['version'], PLUGIN['package_name']) == (0.1, PROJECT['name'])
        assert {tuple(row) for row in PLUGIN['compatibility']} == {('release', 'netbox_min', 'netbox_max')}

    def test_its_first_release_is_this_one(self):
        found = tuple(PLUGIN['compatibility'][0].values())
        assert found == (WebhooksConfig.version, WebhooksConfig.min_version, WebhooksConfig.max_version)

    @pytest.mark.parametrize('name', ['README.md', 'COMPATIBILITY.md'])
    def test_the_matrix_has_the_same_releases(self, name):
        table = (CHECKOUT / name).read_text().partition(MATRIX)[2].partition('\n\n')[0]
        found = [tuple(cell.strip() for cell in line.split('|')[1:-1]) for line in table.splitlines()]
        named = re.findall(r'Programming Language :: Python :: (3\.\d+)', '\n'.join(PROJECT['classifiers']))
        expected = [(*row.values(), ', '.join(named)) for row in PLUGIN['compatibility']]
        assert found == [(*row[:2], row[2].replace('.99', '.x'), row[3]) for row in expected]

    def test_no_release_before_names_a_netbox_on_which_it_delivered_nothing(self):
        (last,) = re.findall(r'Nothing was delivered on NetBox [\d.]+ to ([\d.]+)', CHANGELOG)
        assert [row for row in PLUGIN['compatibility'][1:] if Version(row['netbox_min']) <= Version(last)] == []
        assert f'For NetBox {PLUGIN["compatibility"][1]["netbox_min"]}:' in CHANGELOG


def test_a_newer_netbox_says_what_to_do():
    page = re.escape(f'{PROJECT["urls"]["Source"]}/blob/main/COMPATIBILITY.md')
    with pytest.raises(IncompatiblePluginError, match=rf'maximum version 4\.7\.99 .*not recorded.*{page}'):
        WebhooksConfig.validate({}, '4.8.0')


class TestSettings:
    def test_it_has_every_setting_with_its_default(self):
        rows = re.findall(r'^\| `(\w+)`, `\w+` \| [^|]+ \| ([^|]+) \|', SETTINGS, re.MULTILINE)
        defaults = vars(conf.Settings())
        assert [name for name, _ in rows if name not in defaults] == []
        assert {name for name, _ in rows} == defaults.keys()
        plain = [(name, cell) for name, cell in rows if name not in ('allowed_models', 'blocked_networks')]
        assert [name for name, cell in plain if not self.says(cell, defaults[name])] == []

    @staticmethod
    def says(cell: str, value: object) -> bool:
        return cell.startswith(('not set', 'none') if value in (None, ()) else f'`{value}`')

    def test_it_has_the_models_and_networks_of_the_defaults(self):
        models = SETTINGS.partition('### Models\n')[2].partition('\n#')[0]
        assert tuple(re.findall(r'`(\w+\.\w+)`', models)) == conf.Settings().allowed_models
        networks = SETTINGS.partition('### Blocked networks\n')[2].split('```')[1]
        assert networks.split() == [str(network) for network in conf.Settings().blocked_networks]


@pytest.fixture
def release(complete: Release) -> Iterator[Release]:
    yield complete
    complete.restore()


class TestRelease:
    def test_it_refuses_texts_without_a_translation(self, release):
        release.replace('scripts/messages', '#!/bin/sh\n', '#!/bin/sh\nexit 1\n')
        release.commit()
        answer = release.run()
        assert answer.returncode == 1
        assert answer.stderr == 'Not yet: translate all texts: scripts/messages --check names them.\n'

    def test_it_refuses_addresses_that_are_examples(self, release):
        names = ['.github/CODEOWNERS', 'README.md', *ADDRESSED]
        for name in names:
            release.replace(name, REAL, EXAMPLE)
        release.commit()
        answer = release.run()
        assert answer.returncode == 1
        expected = [f'Not yet: write the real address in place of {EXAMPLE} into {name}.' for name in names]
        assert answer.stderr.splitlines() == expected

    def test_it_refuses_a_changelog_without_a_date(self, release):
        release.replace('CHANGELOG.md', '2026-01-31', 'Unreleased')
        release.commit()
        answer = release.run()
        assert answer.returncode == 1
        assert answer.stderr == "Not yet: write the date in place of 'Unreleased' into CHANGELOG.md.\n"

    def test_it_refuses_a_changelog_without_the_version(self, release):
        release.replace('CHANGELOG.md', f'## [{WebhooksConfig.version}]', '## [0.0.1]')
        release.commit()
        answer = release.run()
        assert answer.returncode == 1
        assert answer.stderr == f'Not yet: write what {WebhooksConfig.version} changes into CHANGELOG.md.\n'

    def test_it_refuses_what_is_not_committed(self, release):
        (release.folder / 'webhooks/new.py').touch()
        answer = release.run()
        assert answer.returncode == 1
        assert answer.stderr == 'Not yet: commit what is changed.\n'

    def test_it_refuses_a_tag_of_another_version(self, release):
        release.git('tag', 'v0.0.1')
        answer = release.run()
        assert answer.returncode == 1
        expected = f'the tag is v0.0.1, webhooks/version.py says {WebhooksConfig.version}'
        assert answer.stderr == f'Not yet: {expected}.\n'
