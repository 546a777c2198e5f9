"""What a package index gets: the wheel and the source archive, as scripts/package builds them."""

import email
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from devstack.folders import CHECKOUT
from webhooks import WebhooksConfig, conf

PLUGIN = yaml.safe_load((CHECKOUT / 'netbox-plugin.yaml').read_text())
PROJECT = tomllib.loads((CHECKOUT / 'pyproject.toml').read_text())['project']


@pytest.fixture(scope='module')
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('dist')
    answer = subprocess.run(
        [CHECKOUT / 'scripts/package', folder], capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count('PASSED') == 2
    return folder


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


def tracked(folder: str) -> set[str]:
    """Return the files of the checkout below the folder, as git knows them."""
    listed = subprocess.run(['git', 'ls-files', folder], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_the_wheel_has_the_whole_plugin_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if '.dist-info/' not in name}
    assert tracked('webhooks') - files == set()
    assert {name.partition('/')[0] for name in files} == {'webhooks'}


def test_the_archive_has_the_docs_too(archive):
    assert (tracked('webhooks') | tracked('docs') | tracked('contrib')) - archive == set()
    assert {'netbox-plugin.yaml', 'README.md', 'CHANGELOG.md', 'COMPATIBILITY.md', 'LICENSE', 'setup.py'} <= archive
    assert [name for name in archive if name.startswith(('tests/', 'scripts/'))] == []


def test_the_package_takes_nothing_along_that_pip_could_replace(metadata):
    assert metadata.get_all('Requires-Dist') is None
    assert metadata['Version'] == WebhooksConfig.version
    assert metadata['License-Expression'] == 'Apache-2.0'


def test_its_page_has_no_link_that_leads_to_a_file_of_the_checkout(metadata):
    text = metadata.get_payload()
    assert metadata['Description-Content-Type'] == 'text/markdown'
    links = re.findall(r'(?:\]\(|src="|href=")([^)"\s]+)', text)
    assert len(links) > 20
    assert [link for link in links if not link.startswith(('https://', '#'))] == []


def test_it_can_be_found(metadata):
    assert {'netbox', 'netbox-plugin'} <= set(metadata['Keywords'].split(','))
    labels = {line.partition(',')[0] for line in metadata.get_all('Project-URL')}
    assert labels == {'Source', 'Documentation', 'Changelog'}
    assert 'Framework :: Django' in metadata.get_all('Classifier')


class TestDescription:
    """netbox-plugin.yaml, by which catalogues of plugins tell what fits."""

    def test_it_says_what_the_plugin_says(self):
        found = [PLUGIN[key] for key in ('schema_version', 'package_name', 'plugin_name')]
        assert found == [1, PROJECT['name'], WebhooksConfig.name]
        assert (PLUGIN['netbox_min'], PLUGIN['netbox_max']) == (WebhooksConfig.min_version, WebhooksConfig.max_version)
        assert PLUGIN['config']['required_settings'] == WebhooksConfig.required_settings

    def test_its_defaults_are_those_of_the_settings(self):
        defaults = conf.Settings()
        named = PLUGIN['config']['default_settings']
        assert named == {name: getattr(defaults, name) for name in named}
        simple = {name for name in vars(defaults) if isinstance(getattr(defaults, name), bool | int | str)}
        assert simple == named.keys()


class TestRelease:
    def test_it_says_what_is_missing(self):
        """Here at least the address of the repository is."""
        answer = subprocess.run([CHECKOUT / 'scripts/release'], capture_output=True, text=True, timeout=60, check=False)
        assert answer.returncode == 1
        assert 'Not yet: write the address of the repository into pyproject.toml.' in answer.stderr
