"""A restored backup sends its open deliveries again, and copied rows lose no change."""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dcim.models import Site
from django.core.management import call_command
from django.db import connection
from support.builders import site, subscribe
from support.docs import block
from support.elsewhere import run
from support.engine import pass_retry_waits, work
from support.fixtures.servers import StackDescription

from devstack.database import drop_database
from devstack.netbox import NetBox
from devstack.postgres import DatabaseAddress, binaries
from devstack.process import Processes
from devstack.receiver import Received, Receiver
from webhooks.models import sequence

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
PATIENCE = 600
ON = 'WEBHOOKS_ENABLED = True'
WITHOUT_SEQUENCE = '--exclude-table-data=webhooks_event_sequence'

CHANGE = """
from dcim.models import Site
Site.objects.create(name='Restored', slug='restored')
"""
WORK = f"""
from webhooks.engine.process import inline
from webhooks.models import sequence
sequence.advance()  # as a worker that starts
{CHANGE}
inline.run()
"""
LOAD = """
from django.core.management import call_command
from django.db import connection
call_command('loaddata', {file!r})
"""


@pytest.fixture
def past(receiver: Receiver) -> tuple[Site, Site, Site]:
    """The creations are delivered, pending and undispatched."""
    subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, 200, 500, 200)
    delivered = site()
    assert work() == '1 delivered'
    pending = site()
    assert work() == '1 to retry'
    return delivered, pending, site()


@pytest.fixture
def restore(stack: StackDescription, processes: Processes, netbox: NetBox, tmp_path: Path) -> Iterator[Callable]:
    """Dumps this database; the result restores it for a new NetBox."""
    database = stack.server.named(f'{netbox.database.name}_restored')

    def dump(*options: str) -> Callable[[], NetBox]:
        file = str(tmp_path / 'dump')
        _postgres('pg_dump', netbox.database, '-Fc', '-f', file, *options)

        def restore() -> NetBox:
            stack.server.execute('CREATE DATABASE {}', database.name)
            _postgres('pg_restore', database, '--no-owner', '-d', database.name, file)
            restored = NetBox(stack.folder / database.name, database, stack.caching, stack.tasks, processes, ON)
            restored.write_configuration()
            return restored

        return restore

    yield dump
    drop_database(stack.server, database.name)


def _postgres(command: str, database: DatabaseAddress, *arguments: str) -> None:
    address = {'PGHOST': database.host, 'PGPORT': str(database.port), 'PGUSER': database.user}
    environment = os.environ | address | {'PGPASSWORD': database.password, 'PGDATABASE': database.name}
    answer = subprocess.run(
        [binaries() / command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def by_name(requests: list[Received]) -> dict[str, Received]:
    """Return {name of the site: its last request}."""
    return {request.json()['data']['name']: request for request in requests}


def test_a_backup_sends_again_what_was_open_in_it_and_nothing_else(past, receiver, restore, rqworker):
    _delivered, pending, undispatched = past
    pass_retry_waits()
    restored = restore()
    work()
    later = site()
    work()
    before = by_name(receiver.requests)
    count = len(receiver.requests)

    netbox = restored()
    rqworker('low', netbox=netbox)
    again = by_name(receiver.wait_for(count + 2, timeout=PATIENCE)[count:])
    assert again.keys() == {pending.name, undispatched.name}
    assert all(request.json()['id'] == before[name].json()['id'] for name, request in again.items())
    same = {name: request.header('webhook-id') == before[name].header('webhook-id') for name, request in again.items()}
    assert same == {pending.name: True, undispatched.name: False}

    run(netbox.database, CHANGE)
    receiver.wait_for(count + 3, timeout=PATIENCE)
    # Receivers that keep the highest number take it as new.
    last = receiver.requests[-1].json()
    assert last['data']['name'] == 'Restored'
    assert last['sequence'] > before[later.name].json()['sequence']


def test_a_copy_without_its_sequence_loses_no_change_once_a_worker_has_started(past, receiver, restore):
    _delivered, pending, undispatched = past
    pass_retry_waits()
    count = len(receiver.requests)
    highest = receiver.requests[-1].json()['sequence']
    netbox = restore(WITHOUT_SEQUENCE)()

    run(netbox.database, WORK)

    sent = by_name(receiver.requests[count:])
    numbers = {name: request.json()['sequence'] for name, request in sent.items()}
    assert numbers.keys() == {pending.name, undispatched.name, 'Restored'}
    assert highest <= numbers[pending.name] < numbers[undispatched.name] < numbers['Restored']


def test_a_dump_of_rows_that_is_loaded_loses_no_change(past, receiver, make_netbox, tmp_path):
    _delivered, pending, undispatched = past
    pass_retry_waits()
    count = len(receiver.requests)
    file = str(tmp_path / 'webhooks.json')
    call_command('dumpdata', 'webhooks', output=file)

    run(make_netbox(fresh=True).database, LOAD.format(file=file) + WORK)

    assert by_name(receiver.requests[count:]).keys() == {pending.name, undispatched.name, 'Restored'}


def test_the_documented_way_back_to_1_0_0_goes_on_above_what_this_version_has_sent():
    """A worker of 1.0.0 leaves the sequence as the backup has it."""
    (command,) = [line for line in block('installation.md', 'sh', 'dropdb').split('sudo ') if ' psql ' in line]
    sequence.advance()
    highest = sequence.draw()
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('webhooks_event_sequence', 1000)")
        assert sequence.draw() < highest
        cursor.execute(shlex.split(command)[-1])
    assert sequence.draw() > highest
