"""contrib/receiver_copy.py runs as in the docs."""

import json
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcim.models import Site
from support.builders import forget_events, site, subscribe
from support.engine import work

from devstack.folders import CHECKOUT
from devstack.ports import LOOPBACK, accepts, free_port
from devstack.process import wait_until
from webhooks.services import backfill

pytestmark = pytest.mark.usefixtures('committed')

RECEIVER = CHECKOUT / 'contrib' / 'receiver_copy.py'


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    environment = {'PORT': str(port), 'DATABASE': str(tmp_path / 'copy.sqlite')}
    with subprocess.Popen([sys.executable, str(RECEIVER)], env=environment, stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: accepts(port), timeout=60)
        yield f'http://{LOOPBACK}:{port}/'
        process.kill()


def copied(folder: Path) -> dict[int, str | None]:
    """Return {id: name}, with None for deleted objects."""
    with sqlite3.connect(folder / 'copy.sqlite') as copy:
        rows = copy.execute("SELECT id, data FROM objects WHERE type = 'dcim.site'").fetchall()
    return {pk: data and json.loads(data)['name'] for pk, data in rows}


@pytest.mark.parametrize('length', [-1, 2**40])
def test_it_reads_no_more_than_it_should(address, length):
    request = urllib.request.Request(address, b'', {'Content-Length': str(length)})
    with pytest.raises(urllib.error.HTTPError, match='413'):
        urllib.request.urlopen(request, timeout=30)


def test_it_ends_with_what_netbox_has(address, tmp_path):
    stays, changes, goes = (site(name=name) for name in ('Bern', 'Basel', 'Genf'))
    gone = goes.pk
    forget_events()
    webhook = subscribe(address, Site)
    backfill.start(webhook, backfill.choose(webhook))
    changes.name = 'Biel'
    changes.save()
    work()
    assert copied(tmp_path) == {stays.pk: 'Bern', changes.pk: 'Biel', gone: 'Genf'}
    goes.delete()
    work()
    assert copied(tmp_path) == {stays.pk: 'Bern', changes.pk: 'Biel', gone: None}


def test_a_copy_of_a_list_is_compared_and_asks_for_what_it_lacks(address, tmp_path, netbox_server, api_token):
    webhook = subscribe(address, Site, filters={'dcim.site': 'status=active'}, send_list=True)
    stays, lost = site(name='Bern'), site(name='Basel')
    work()
    with sqlite3.connect(tmp_path / 'copy.sqlite') as copy:
        copy.execute('DELETE FROM objects WHERE id = ?', [lost.pk])
        copy.execute('INSERT INTO objects VALUES (\'dcim.site\', 999, 1, \'{"name": "Zug"}\')')
    environment = {
        'WEBHOOK': f'{netbox_server.url.rstrip("/")}/api/plugins/webhooks/webhooks/{webhook.pk}/',
        'TOKEN': api_token.removeprefix('Bearer '),
        'DATABASE': str(tmp_path / 'copy.sqlite'),
    }
    command = [sys.executable, str(CHECKOUT / 'contrib' / 'compare_copy.py'), '--send']

    def compare() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    compared = compare()
    assert compared.stdout.splitlines() == [f'missing: dcim.site {lost.pk}', 'extra: dcim.site 999'], compared.stderr
    work()
    assert copied(tmp_path) == {stays.pk: 'Bern', lost.pk: 'Basel', 999: 'Zug'}
    Site.objects.all().delete()
    work()
    assert compare().stdout.splitlines() == ['extra: dcim.site 999']
