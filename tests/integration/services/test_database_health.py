"""What an operator has to know of PostgreSQL: how large the log is and will be, and why dead rows stay."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from dcim.models import Site
from django.db import connection, transaction
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.settings import change_settings

from webhooks.models import Hour
from webhooks.services import database_health
from webhooks.services.database_health import Table, _growth, _unvacuumed, measure

pytestmark = pytest.mark.usefixtures('committed')

MEGABYTE = 1_000_000


@pytest.fixture
def session() -> Iterator[psycopg.Connection]:
    """Of somebody else, with an open transaction that has written nothing yet."""
    settings = connection.get_connection_params()
    names = ('host', 'port', 'user', 'password', 'dbname')
    with psycopg.connect(**{name: settings[name] for name in names if name in settings}) as made:
        yield made


def table(name: str, live: int, dead: int = 0, size: int = 0) -> Table:
    return Table(name, size, 0, live, dead, None)


def test_each_table_is_measured_with_its_indexes():
    subscribe(NOWHERE, Site)
    site()
    found = {one.name: one for one in measure().tables}
    assert {'webhooks_event', 'webhooks_delivery', 'webhooks_attempt', 'webhooks_worker'} <= found.keys()
    assert found['webhooks_event'].table_bytes > 0
    assert found['webhooks_event'].index_bytes > 0
    assert not [name for name in found if not name.startswith('webhooks_')]


def test_the_schema_may_have_capital_letters():
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "NetBox" CREATE TABLE webhooks_test ()')
        cursor.execute('SET LOCAL search_path = "NetBox", public')
        assert [one.name for one in measure().tables] == ['webhooks_test']
        transaction.set_rollback(True)


def test_an_old_transaction_is_named_with_its_process(session, monkeypatch):
    monkeypatch.setattr(database_health, 'MAX_TRANSACTION_SECONDS', 0)
    assert (measure().oldest_transaction, measure().problems) == (None, [])
    session.execute('SELECT pg_current_xact_id()')
    found = measure()
    assert found.oldest_transaction
    (problem,) = found.problems
    assert f'pg_terminate_backend({session.info.backend_pid})' in problem
    monkeypatch.setattr(database_health, 'MAX_TRANSACTION_SECONDS', 3600)
    assert measure().problems == []
    session.rollback()
    assert measure().oldest_transaction is None


def test_a_replication_slot_without_a_reader_is_named(session):
    session.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    session.commit()
    try:
        (problem,) = measure().problems
        assert "pg_drop_replication_slot('forgotten')" in problem
    finally:
        session.execute("SELECT pg_drop_replication_slot('forgotten')")
        session.commit()
    assert measure().problems == []


@pytest.mark.parametrize(
    ('live', 'dead', 'is_named'), [(0, 100_001, True), (0, 100_000, False), (10 * MEGABYTE, MEGABYTE, False)]
)
def test_a_table_with_many_dead_rows_for_its_size_is_named(live, dead, is_named):
    assert bool(list(_unvacuumed([table('webhooks_event', live, dead)]))) == is_named


@pytest.mark.parametrize(
    ('settings', 'expected'), [({'retention_days': 30}, 30), ({'retention_days': 30, 'retention_size': 500}, 5)]
)
def test_the_log_is_expected_to_grow_as_in_the_last_day_until_retention_prunes_it(monkeypatch, settings, expected):
    change_settings(monkeypatch, **settings)
    webhook = subscribe(NOWHERE, Site)
    Hour.objects.count_all({webhook.pk: {'delivered': 60, 'failed': 40}}, timezone.now())
    Hour.objects.count_all({webhook.pk: {'delivered': 1000}}, timezone.now() - timedelta(days=2))
    tables = [table('webhooks_event', 1000, size=6 * MEGABYTE), table('webhooks_delivery', 1000, size=4 * MEGABYTE)]
    assert _growth({one.name: one for one in tables}) == (MEGABYTE, expected * MEGABYTE)


def test_the_growth_of_an_empty_log_is_none():
    assert _growth({'webhooks_delivery': table('webhooks_delivery', 0, size=8192)}) == (0, 0)
