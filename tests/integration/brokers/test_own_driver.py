"""The driver that docs/extending.md shows, in a package of its own."""

import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.docs import blocks
from support.engine import deliveries, health, pass_retry_waits, work
from support.settings import change_settings

from webhooks import conf
from webhooks.brokers import registry
from webhooks.choices import StatusChoices
from webhooks.models import Attempt

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install it, as pip would."""
    (code,) = [text for text in blocks('extending.md', 'python') if 'class Spool' in text]
    (project,) = blocks('extending.md', 'toml')
    points = tomllib.loads(project)['project']['entry-points']
    (tmp_path / 'netbox_spool.py').write_text(code)
    described = tmp_path / 'netbox_spool-1.0.dist-info'
    described.mkdir()
    (described / 'METADATA').write_text('Metadata-Version: 2.1\nName: netbox-spool\nVersion: 1.0\n')
    ((group, ours),) = points.items()
    lines = ''.join(f'{name} = {value}\n' for name, value in ours.items())
    (described / 'entry_points.txt').write_text(f'[{group}]\n{lines}')
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    _forget()
    yield
    _forget()


def _forget() -> None:
    registry._added.cache_clear()
    registry.driver_class.cache_clear()


@pytest.fixture
def spool(package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (text,) = [text for text in blocks('extending.md', 'python') if "'spool'" in text]
    found: dict[str, dict] = {}
    exec(text.replace('/var/spool/netbox', str(tmp_path)), found)
    change_settings(monkeypatch, brokers=conf.resolve(found['PLUGINS_CONFIG']['webhooks'], None).brokers)
    return tmp_path


def test_a_driver_of_another_package_publishes(spool: Path):
    (spool / 'sites').mkdir()
    webhook = subscribe('spool://mail/sites', Site)
    site()
    work()
    (delivery,) = deliveries(StatusChoices.DELIVERED, webhook=webhook)
    (file,) = (spool / 'sites').iterdir()
    assert file.name == f'{delivery.uuid}.json'
    assert Attempt.objects.get(delivery=delivery).response_headers['file'] == file.name


def test_a_message_that_a_driver_refuses_fails_with_its_words(spool: Path):
    webhook = subscribe('spool://mail/sites', Site)
    site()
    work()
    (delivery,) = deliveries(webhook=webhook)
    assert delivery.error == 'RuntimeError: there is no folder sites'
    assert health(webhook).unreachable == 0
    (spool / 'sites').mkdir()
    pass_retry_waits()
    work()
    assert [one.status for one in deliveries(webhook=webhook)] == [StatusChoices.DELIVERED]


def test_without_it_the_setting_is_wrong(package: None):
    with pytest.raises(conf.ImproperlyConfigured, match=r"the 'driver' of 'mail' must be one of .*, spool"):
        conf.resolve({'brokers': {'mail': {'driver': 'sqs'}}}, None)
