"""During the upgrade, NetBox and workers of 1.0.0 run on."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dcim.models import Site
from django.core import checks
from django.db import connections
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.test import Client
from django.urls import reverse
from psycopg.errors import UndefinedColumn
from support import former
from support.builders import subscribe
from support.elsewhere import run, using
from support.fixtures.servers import StackDescription
from support.former import Former
from support.old_netbox import Api, OldNetBox, Saver, old, unpack
from users.models import User

from devstack.database import copy_database, drop_database
from devstack.netbox import NetBox
from devstack.postgres import DatabaseAddress
from devstack.process import Processes, wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.delivery_states import OPEN, TIMED, WAITING
from webhooks.migrations._gently import Once
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import backfill, redelivery, trial

PATIENCE = 600

# Dispatched events wait, and undispatched ones follow.
FURNISH = """
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from webhooks.engine.dispatch.loop import Dispatcher
from webhooks.engine.registry import DISPATCH, Registration
from webhooks.models import Webhook
sites = [Site.objects.create(name=name, slug=name.lower()) for name in ('Bern', 'Basel', 'Genf', 'Chur')]
for name in ('Hook', 'Batch', 'Leaving'):
    options = {'type_update': True, 'only_real_changes': False}
    webhook = Webhook.objects.create(name=name, payload_url='http://127.0.0.1:9/', **options)
    webhook.object_types.set([ContentType.objects.get_for_model(Site)])
for _ in range(3):
    with transaction.atomic():
        for site in sites:
            site.save()
registration = Registration('furnish', DISPATCH)
registration.begin()
dispatcher = Dispatcher(registration)
while dispatcher.batch():
    pass
registration.end()
for site in sites:
    site.save()
leaving = Webhook.objects.get(name='Leaving')
leaving.type_create, leaving.type_update = True, False
leaving.save()
"""

# 1.0.0 has these states in webhook 'Hook'.
# Bern: each waits for the previous, and the first lost its worker.
# Basel: the first retries in an hour, the second may overtake it then, the third waits for the second.
# Genf: the first has failed.
# Batches wait for each other, and the first failed once.
SHAPE = """
    UPDATE webhooks_webhook SET batch = true WHERE name = 'Batch';
    CREATE TEMPORARY TABLE batch ON COMMIT DROP AS
        SELECT d.id, max(d.id) OVER together AS kept, count(*) OVER together AS number
        FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id AND w.name = 'Batch'
        JOIN webhooks_event e ON e.id = d.event_id
        WINDOW together AS (PARTITION BY e.transaction_id);
    INSERT INTO webhooks_batchitem (delivery_id, event_id, webhook_id, object_type_id, object_id, sequence, open)
        SELECT kept, event_id, webhook_id, object_type_id, object_id, sequence, true
        FROM batch JOIN webhooks_delivery USING (id);
    UPDATE webhooks_delivery d SET event_count = number FROM batch WHERE batch.id = d.id AND batch.id = kept;
    DELETE FROM webhooks_delivery d USING batch WHERE batch.id = d.id AND batch.id <> kept;
    UPDATE webhooks_delivery d SET attempt_count = 1, error = 'HTTP 500' FROM batch
    WHERE batch.id = d.id AND d.id = (SELECT min(kept) FROM batch);
    CREATE TEMPORARY TABLE line ON COMMIT DROP AS
        SELECT d.id, w.name, s.name AS site, row_number() OVER line AS number, lag(d.id) OVER line AS blocker_id
        FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN dcim_site s ON s.id = d.object_id
        WHERE w.name <> 'Leaving'
        WINDOW line AS (PARTITION BY d.webhook_id, d.object_id ORDER BY d.sequence);
    INSERT INTO webhooks_wait (delivery_id, blocker_id) SELECT id, blocker_id FROM line WHERE blocker_id IS NOT NULL;
    UPDATE webhooks_delivery d SET due_at = NULL FROM line WHERE line.id = d.id AND blocker_id IS NOT NULL;
    UPDATE webhooks_delivery d SET status = 'sending', due_at = NULL, lease = gen_random_uuid(), lease_until = now()
    FROM line WHERE line.id = d.id AND name = 'Hook' AND site = 'Bern' AND number = 1;
    UPDATE webhooks_delivery d SET error = 'HTTP 500', attempt_count = 1, due_at = now() + interval '1 hour'
    FROM line WHERE line.id = d.id AND name = 'Hook' AND site = 'Basel' AND number = 1;
    UPDATE webhooks_delivery d SET due_at = now() + interval '1 hour'
    FROM line WHERE line.id = d.id AND name = 'Hook' AND site = 'Basel' AND number = 2;
    DELETE FROM webhooks_wait w USING line
    WHERE line.blocker_id = w.blocker_id AND name = 'Hook' AND site = 'Genf' AND number = 2;
    UPDATE webhooks_delivery d SET status = 'failed', error = 'HTTP 500', due_at = NULL, finished_at = now()
    FROM line WHERE line.id = d.id AND name = 'Hook' AND site = 'Genf' AND number = 1;
    UPDATE webhooks_delivery d SET due_at = now()
    FROM line WHERE line.id = d.id AND name = 'Hook' AND site = 'Genf' AND number = 2;
    DELETE FROM webhooks_health"""

WORK = """
from webhooks.engine.process import inline
from webhooks.models import Delivery
print('put off', Delivery.objects.filter(status='pending', due_at__gt='{now}').count())
Delivery.objects.exclude(error='').filter(status='pending').update(due_at='2000-01-01T00:00Z')
while inline.run():
    pass
print('open', Delivery.objects.filter(status__in=('pending', 'sending')).count())
"""

BURST = """
from webhooks.engine.process import inline
print(inline.run().total())
"""
RETRY = f"UPDATE webhooks_delivery SET due_at = now() WHERE status {TIMED} AND error <> ''"
IS_DONE = f"""
    SELECT NOT EXISTS (SELECT 1 FROM webhooks_delivery WHERE status {WAITING})
       AND NOT EXISTS (SELECT 1 FROM webhooks_event WHERE dispatched_at IS NULL)"""

IS_WAITED_FOR = 'SELECT EXISTS (SELECT 1 FROM pg_locks WHERE relation = %s::regclass AND NOT granted)'
# After a second PostgreSQL has checked for deadlocks, and spares this session.
HAS_LOOKED = """
    SELECT NOT EXISTS (
        SELECT 1 FROM pg_locks WHERE relation = %s::regclass AND NOT granted
          AND coalesce(waitstart, clock_timestamp()) > clock_timestamp() - interval '1.5 seconds'
    )"""
# An index waits for the end of each transaction that began before it.
LONG = 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1'
IS_BUILDING = """
    SELECT EXISTS (
        SELECT 1 FROM pg_stat_progress_create_index
        WHERE datname = current_database() AND phase = 'waiting for old snapshots'
    )"""
# PostgreSQL gives a rewritten table another file.
FILES = """
    SELECT pg_relation_filenode('webhooks_event'), pg_relation_filenode('webhooks_delivery'),
           pg_relation_filenode('webhooks_webhook')"""
COLUMN = 'SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s)'
# Batches of 1.0.0 carry further events.
BATCHES = 'SELECT uuid::text FROM webhooks_delivery WHERE event_count > 1 ORDER BY id'
OTHERS = 'SELECT sum(event_count - 1) FROM webhooks_delivery'
# (deliveries, attempts, status) of the first batch.
FIRST_BATCH = """
    SELECT count(*), min(attempt_count), min(status), min(change_count)
    FROM webhooks_delivery GROUP BY lead ORDER BY lead LIMIT 1"""
HAND_OVER = import_module('webhooks.migrations.0004_engine').hand_over
SEAL_URLS = import_module('webhooks.migrations.0004_engine').seal_urls
SET_URL = 'UPDATE webhooks_webhook SET payload_url = %s WHERE name = %s'
URLS = 'SELECT name, payload_url FROM webhooks_webhook'
UNDER_WAY = "UPDATE webhooks_delivery SET lease_until = now() + interval '1 hour' WHERE status = 'sending'"
# A batch too.
BATCH_UNDER_WAY = """
    UPDATE webhooks_delivery SET status = 'sending', due_at = NULL, lease_until = now() + interval '1 hour'
    WHERE id = (SELECT min(id) FROM webhooks_delivery WHERE event_count > 1)"""
# Each batch becomes two of the same transaction.
DIVIDE = """
    CREATE TEMPORARY TABLE half AS
        SELECT i.id, i.delivery_id, i.event_id, row_number() OVER (PARTITION BY i.delivery_id ORDER BY i.sequence) AS n
        FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id WHERE d.event_count = 4;
    CREATE TEMPORARY TABLE new AS
        SELECT delivery_id, nextval('webhooks_delivery_id_seq') AS id, max(event_id) FILTER (WHERE n = 2) AS event_id
        FROM half GROUP BY delivery_id;
    INSERT INTO webhooks_delivery (id, uuid, webhook_id, event_id, object_type_id, object_id, sequence, event_count,
        status, error, created, due_at, expires_at, attempt_count, listed)
    SELECT new.id, gen_random_uuid(), d.webhook_id, new.event_id, e.object_type_id, e.object_id, e.sequence, 2,
        'pending', '', d.created, d.due_at, d.expires_at, 0, false
    FROM new JOIN webhooks_delivery d ON d.id = new.delivery_id JOIN webhooks_event e ON e.id = new.event_id;
    UPDATE webhooks_batchitem i SET delivery_id = new.id FROM half JOIN new USING (delivery_id)
    WHERE half.id = i.id AND half.n <= 2;
    UPDATE webhooks_delivery d SET event_count = 2 FROM new WHERE d.id = new.delivery_id;
    UPDATE webhooks_delivery d SET attempt_count = 0, error = '' FROM new WHERE d.id = new.delivery_id"""
TRY_ONE = """
    UPDATE webhooks_delivery SET attempt_count = 1, error = 'HTTP 500'
    WHERE id = (SELECT min(id) FROM webhooks_delivery WHERE event_count > 1)"""
DELIVER_BATCHES = """
    UPDATE webhooks_delivery SET status = 'delivered', due_at = NULL, finished_at = now(), attempt_count = 1
    WHERE event_count > 1;
    INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
        response_status, response_headers, response_body, error)
    SELECT id, 1, now(), 0.1, 'POST', '', '{{}}', 200, '{{}}', '', '' FROM webhooks_delivery WHERE event_count > 1;
    DELETE FROM webhooks_event WHERE id = (SELECT min(event_id) FROM webhooks_batchitem)"""
# (deliveries, part, parts, changes, status, whether it has the id of one of them)
SETS = """
    SELECT count(*), min(part), max(parts), min(change_count), min(status), bool_or(lead = id)
    FROM webhooks_delivery WHERE change_set IS NOT NULL GROUP BY change_set, lead ORDER BY lead"""
# For each attempt, whether its members are the deliveries of its set, and 0 for one that was pruned.
MEMBERS = """
    SELECT array_remove(a.members, 0) <@ s.pks AND s.pks <@ a.members, 0 = ANY(a.members)
    FROM webhooks_attempt a JOIN (
        SELECT lead, array_agg(id) AS pks FROM webhooks_delivery WHERE lead IS NOT NULL GROUP BY lead
    ) s ON s.lead = a.delivery_id
    ORDER BY a.delivery_id"""
STOPPED = "SELECT count(*) FROM webhooks_delivery WHERE status = 'doubtful' AND due_at > now()"
PUT_OFF = f"SELECT count(*) FROM webhooks_delivery WHERE status {TIMED} AND error = '' AND due_at > now()"
INVALID = """
    CREATE INDEX webhooks_event_chain ON webhooks_event (id);
    UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'webhooks_event_chain'::regclass"""
CHAIN = "SELECT indexdef FROM pg_indexes WHERE indexname = 'webhooks_event_chain'"


Step = tuple[Operation, ProjectState, ProjectState]


def newest(loader: MigrationLoader) -> tuple[str, str]:
    (found,) = loader.graph.leaf_nodes('webhooks')
    return found


@pytest.fixture(scope='module')
def steps() -> list[Step]:
    """The models before and after take long to compute."""
    loader, found = MigrationLoader(None), []
    state = loader.project_state(('webhooks', '0002_sequence'))
    for app, name in loader.graph.forwards_plan(newest(loader)):
        if app == 'webhooks' and name > '0002_sequence':
            for operation in loader.graph.nodes[app, name].operations:
                before = state.clone()
                operation.state_forwards('webhooks', state)
                parts = operation.operations if type(operation) is Once else [operation]
                found += [(part, before, state.clone()) for part in parts]
    return found


def forwards(editor: BaseDatabaseSchemaEditor, steps: list[Step]) -> None:
    for operation, before, after in steps:
        operation.database_forwards('webhooks', editor, before, after)


def backwards(editor: BaseDatabaseSchemaEditor, steps: list[Step]) -> None:
    for operation, before, after in reversed(steps):
        operation.database_backwards('webhooks', editor, after, before)


class Migrating(threading.Thread):
    """A new process would take ten seconds to start, and Django's executor computes the states of all models."""

    def __init__(self, database: DatabaseAddress, steps: list[Step] | None, way: Callable = forwards) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._steps = steps
        self._way = way
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        mine = connections['default']
        mine.settings_dict = {**mine.settings_dict, 'NAME': self._database.name}
        try:
            if self._steps:
                with mine.schema_editor(atomic=False) as editor:
                    self._way(editor, self._steps)
            else:
                executor = MigrationExecutor(mine)
                executor.migrate([newest(executor.loader)])
        except Exception as error:
            self._error = error
        finally:
            connections.close_all()

    def finish(self) -> None:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._error:
            raise self._error


@pytest.fixture(autouse=True, scope='module')
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope='module')
def log(stack: StackDescription, steps: list[Step]) -> Iterator[str]:
    """Yield the name of a 1.0.0 database with a log."""
    database = copy_database(stack.server, stack.template, 'former')
    run(database, FURNISH)
    Migrating(database, steps, backwards).finish()
    with database.connect() as connection, connection.transaction():
        connection.execute("DELETE FROM django_migrations WHERE app = 'webhooks' AND name > '0002_sequence'")
        connection.execute(SHAPE)
    database.execute(former.SNAPSHOTS)
    yield database.name
    drop_database(stack.server, database.name)


@pytest.fixture
def make_former(
    log: str, stack: StackDescription, processes: Processes, receiver: Receiver
) -> Iterator[Callable[[], NetBox]]:
    """The log is copied for each NetBox."""
    made: list[NetBox] = []

    def make() -> NetBox:
        name = f'former_{len(made)}'
        database = copy_database(stack.server, log, name)
        made.append(
            NetBox(stack.folder / name, database, stack.caching, stack.tasks, processes, 'WEBHOOKS_ENABLED = True')
        )
        made[-1].write_configuration()
        with database.connect() as connection:
            connection.execute("UPDATE webhooks_webhook SET payload_url = %s || '/' || name", [receiver.url('')])
        return made[-1]

    yield make
    for netbox in made:
        drop_database(stack.server, netbox.database.name)


def one(connection: psycopg.Connection, statement: str, *parameters: object) -> object:
    ((value,),) = connection.execute(statement, parameters).fetchall()
    return value


def one_row(netbox: NetBox, statement: str) -> tuple:
    with netbox.database.connect() as connection:
        (row,) = connection.execute(statement).fetchall()
    return row


def count(connection: psycopg.Connection) -> dict[str, object]:
    tables = ('webhooks_event', 'webhooks_delivery', 'webhooks_webhook', 'webhooks_subscription')
    found = {table: one(connection, f'SELECT count(*) FROM {table}') for table in tables}
    failed = one(connection, f'SELECT count(*) FROM webhooks_delivery WHERE NOT status {OPEN}')
    return {'events': found.pop('webhooks_event'), **found, 'closed': failed}


def work(netbox: NetBox) -> dict[str, str]:
    with netbox.database.connect() as connection:
        code = WORK.format(now=one(connection, 'SELECT now()'))
    return dict(line.rsplit(' ', 1) for line in run(netbox.database, code)[-2:])


def of_path(receiver: Receiver, name: str) -> list[dict]:
    return [request.json() for request in receiver.matching(lambda request: request.path.endswith(f'/{name}'))]


def test_deliveries_that_wait_in_a_log_of_1_0_0_are_sent_in_order_after_the_upgrade(make_former, receiver, steps):
    netbox = make_former()
    with netbox.database.connect() as connection:
        ids = connection.execute(BATCHES).fetchall()
    Migrating(netbox.database, steps).finish()
    with netbox.database.connect() as connection:
        connection.execute(former.RECORD, [one(connection, "SELECT id FROM dcim_site WHERE name = 'Bern'")])
        with pytest.raises(UndefinedColumn, match='lease'):
            connection.execute(former.CLAIM)

    said = work(netbox)

    # A retry keeps its time, and only its followers wait for it.
    assert (said['put off'], said['open']) == ('1', '0')
    got = of_path(receiver, 'Hook')
    assert Counter(event['data']['name'] for event in got) == {'Bern': 5, 'Basel': 4, 'Genf': 3, 'Chur': 4}
    for name in ('Bern', 'Basel', 'Genf', 'Chur'):
        numbers = [event['sequence'] for event in got if event['data']['name'] == name]
        assert numbers == sorted(numbers)
    sets = of_path(receiver, 'Batch')
    assert [len(one['changes']) for one in sets] == [4, 4, 4, 1, 1, 1, 1, 1]
    assert {(one['part'], one['parts']) for one in sets} == {(1, 1)}
    assert [one['transaction']['count'] for one in sets] == [len(one['changes']) for one in sets]
    requests = receiver.matching(lambda request: request.path.endswith('/Batch'))
    assert [request.header('webhook-id') for request in requests[:3]] == [one for (one,) in ids]
    assert one_row(netbox, FIRST_BATCH) == (4, 2, 'delivered', 4)
    assert len(of_path(receiver, 'Leaving')) == 16


def test_deliveries_in_hand_of_a_worker_of_1_0_0_wait_for_the_end_of_its_request(make_former, steps):
    netbox = make_former()
    netbox.database.execute(UNDER_WAY)
    netbox.database.execute(BATCH_UNDER_WAY)
    # It was broken off right after it, and is run again.
    twice = [step for step in steps for _ in range(1 + (getattr(step[0], 'code', None) is HAND_OVER))]
    assert len(twice) == len(steps) + 1
    Migrating(netbox.database, twice).finish()
    with netbox.database.connect() as connection:
        assert one(connection, PUT_OFF) == 1
        # So no save of its webhook sends it earlier. One delivery stands for its batch.
        assert one(connection, STOPPED) == 1 + 1


def test_a_batch_of_1_0_0_that_was_never_sent_goes_with_the_rest_of_its_transaction(make_former, receiver, steps):
    netbox = make_former()
    netbox.database.execute(DIVIDE)
    Migrating(netbox.database, steps).finish()
    work(netbox)
    assert sorted(len(one['changes']) for one in of_path(receiver, 'Batch'))[-3:] == [4, 4, 4]


def test_what_of_a_transaction_was_never_sent_joins_no_retry_of_the_rest(make_former, receiver, steps):
    """A receiver that knows the id of the retry would ignore it."""
    netbox = make_former()
    netbox.database.execute(DIVIDE)
    netbox.database.execute(TRY_ONE)
    Migrating(netbox.database, steps).finish()
    work(netbox)
    sets = of_path(receiver, 'Batch')
    first = [one for one in sets if one['transaction']['id'] == sets[0]['transaction']['id']]
    assert [(len(one['changes']), one['transaction']['count']) for one in first] == [(2, 2), (2, 2)]


def test_what_was_sent_as_a_batch_is_shown_as_a_change_set(make_former, steps):
    netbox = make_former()
    netbox.database.execute(DELIVER_BATCHES)
    Migrating(netbox.database, steps).finish()
    with netbox.database.connect() as connection:
        rows = connection.execute(SETS).fetchall()
        members = connection.execute(MEMBERS).fetchall()
    assert rows == [(3, 1, 1, 4, 'delivered', True), *[(4, 1, 1, 4, 'delivered', True)] * 2]
    assert members == [(True, True), (True, False), (True, False)]


def test_checks_before_it_name_webhooks_that_sent_batches_which_send_change_sets_after_it(make_former, steps):
    """`migrate` makes them first, unless it is told not to: with the tables of 1.0.0."""
    netbox = make_former()
    netbox.database.execute("UPDATE webhooks_webhook SET payload_url = 'nats://bus/netbox' WHERE name = 'Hook'")
    answer = netbox.run('check', '--database', 'default')
    assert answer.returncode == 0, answer.stderr
    assert 'The webhook Hook cannot publish' in answer.stderr
    warning = 'The webhook Batch sends batches.'
    assert warning in answer.stderr
    Migrating(netbox.database, steps).finish()
    with using(netbox.database):
        found = [one.msg for one in checks.run_checks(databases=['default'], tags=['webhooks'])]
    assert [one for one in found if 'The webhook Hook cannot publish' in one]
    assert [one for one in found if warning in one] == []
    with netbox.database.connect() as connection:
        names = connection.execute('SELECT name FROM webhooks_webhook WHERE change_set').fetchall()
        # A web process of 1.0.0 still reads and writes it.
        assert one(connection, COLUMN, 'webhooks_webhook', 'batch')
    assert names == [('Batch',)]


def test_a_sequence_goes_on_where_a_clock_is_after_the_upgrade(make_former, steps):
    netbox = make_former()
    netbox.database.execute("SELECT setval('webhooks_event_sequence', 4711)")
    Migrating(netbox.database, steps).finish()
    with netbox.database.connect() as connection:
        drawn = one(connection, "SELECT nextval('webhooks_event_sequence')")
        microseconds = one(connection, "SELECT extract(epoch FROM now() - '2020-01-01 00:00Z') * 1000000")
    assert 4711 < drawn < microseconds < 2**53
    assert microseconds - drawn < 3_600_000_000


def test_urls_with_a_secret_part_are_sealed_and_are_whole_again_after_a_step_back(make_former, steps):
    netbox = make_former()
    hook, batch = 'https://u:p4ssw0rd@example.com/', f'https://example.com/?key={"k" * 400}'
    with netbox.database.connect() as connection:
        connection.execute(SET_URL, [hook, 'Hook'])
        connection.execute(SET_URL, [batch, 'Batch'])
        # It was broken off right after it, and is run again.
        twice = [step for step in steps for _ in range(1 + (getattr(step[0], 'code', None) is SEAL_URLS))]
        assert len(twice) == len(steps) + 1
        Migrating(netbox.database, twice).finish()
        stored = dict(connection.execute(URLS).fetchall())
        assert stored['Hook'].startswith('https://********@example.com/#') and 'p4ssw0rd' not in stored['Hook']
        assert stored['Batch'].startswith('https://example.com/?key=********#') and 'kkk' not in stored['Batch']
        assert stored['Leaving'].endswith('/Leaving')
        with using(netbox.database):
            assert Webhook.objects.get(name='Hook').payload_url.reveal() == hook
        Migrating(netbox.database, steps, backwards).finish()
        assert dict(connection.execute(URLS).fetchall()) == stored | {'Hook': hook, 'Batch': batch}


def test_no_table_is_rewritten(make_former, steps):
    netbox = make_former()
    with netbox.database.connect() as connection:
        before = connection.execute(FILES).fetchall()
        Migrating(netbox.database, steps).finish()
        assert connection.execute(FILES).fetchall() == before


def test_saves_go_on_while_it_waits_for_a_long_transaction(make_former, steps):
    netbox = make_former()
    with netbox.database.connect() as long, netbox.database.connect() as other:
        ((first,), (second,)) = other.execute('SELECT object_id FROM snapshots LIMIT 2').fetchall()
        with long.transaction():
            former.save(first)(long)
            migrating = Migrating(netbox.database, steps)
            for _ in range(3):
                assert wait_until(lambda: one(other, IS_WAITED_FOR, 'webhooks_event'), timeout=PATIENCE)
                with other.transaction():
                    # Behind the long transaction, a save would otherwise wait for ever.
                    other.execute("SET LOCAL lock_timeout = '20s'")
                    former.save(second)(other)
            assert migrating.is_alive()
        migrating.finish()


def test_a_user_who_would_be_in_a_deadlock_with_the_migration_goes_on(make_former, steps):
    """The migration wants locks on webhooks and deliveries, and a reader holds webhooks."""
    netbox = make_former()
    connect = netbox.database.connect
    with connect() as person, connect() as other, connect() as long:
        with long.transaction():
            long.execute('SELECT 1 FROM webhooks_delivery LIMIT 1')
            migrating = Migrating(netbox.database, steps)
            assert wait_until(lambda: one(other, IS_WAITED_FOR, 'webhooks_delivery'), timeout=PATIENCE)
            # An index that is begun during this statement would wait for the reader's end.
            person.execute('BEGIN')
            person.execute(former.LOOK)
        assert wait_until(lambda: one(other, IS_WAITED_FOR, 'webhooks_webhook'), timeout=PATIENCE)
        assert wait_until(lambda: one(other, HAS_LOOKED, 'webhooks_webhook'), timeout=PATIENCE)
        assert person.execute(former.REOPEN).rowcount == 1
        person.execute('COMMIT')
        migrating.finish()


def test_it_can_be_killed_and_run_again(make_former):
    netbox = make_former()
    netbox.database.execute(INVALID)
    with netbox.database.connect() as long, netbox.database.connect() as other:
        with long.transaction():
            long.execute('SELECT 1 FROM webhooks_delivery LIMIT 1')
            migrate = netbox.start_command('migrate', 'migrate', 'webhooks', '--skip-checks')
            assert wait_until(lambda: one(other, IS_WAITED_FOR, 'webhooks_delivery'), timeout=PATIENCE)
            migrate.popen.kill()
            migrate.popen.wait()
        assert one(other, COLUMN, 'webhooks_hour', 'superseded')
        assert not one(other, COLUMN, 'webhooks_delivery', 'span')

        Migrating(netbox.database, steps=None).finish()

        assert one(other, COLUMN, 'webhooks_delivery', 'span')
        assert '(object_type_id, object_id, sequence)' in one(other, CHAIN)


@pytest.mark.parametrize('turn', [0, *(pytest.param(turn, marks=pytest.mark.long) for turn in range(1, 20))])
def test_nobody_fails_and_nothing_is_lost_beside_saves_and_workers_of_1_0_0(make_former, receiver, steps, turn):
    netbox = make_former()
    with netbox.database.connect() as connection:
        sites = [pk for (pk,) in connection.execute('SELECT object_id FROM snapshots ORDER BY object_id').fetchall()]
        before = count(connection)
        before['webhooks_delivery'] += one(connection, OTHERS)
    savers = [Former(netbox.database, former.save(pk, sites[0])) for pk in sites[1:]]
    others = [Former(netbox.database, work) for work in (former.turn, former.redeliver)]
    assert wait_until(lambda: all(one_of_them.done for one_of_them in (*savers, *others)), timeout=PATIENCE)

    Migrating(netbox.database, steps).finish()

    for one_of_them in (*savers, *others):
        one_of_them.stop()
    assert not [error for one_of_them in (*savers, *others) for error in one_of_them.errors]
    saved = sum(saver.done for saver in savers)
    with netbox.database.connect() as connection:
        assert count(connection) == {**before, 'events': before['events'] + saved}
        undispatched = connection.execute('SELECT sequence FROM webhooks_event WHERE dispatched_at IS NULL').fetchall()
    if turn:
        return
    assert work(netbox)['open'] == '0'
    got = of_path(receiver, 'Hook')
    assert {sequence for (sequence,) in undispatched} <= {event['sequence'] for event in got}
    for pk in sites:
        numbers = [event['sequence'] for event in got if event['data']['id'] == pk]
        assert numbers == sorted(numbers)


# What an old worker does first.
DISPATCH = 'from webhooks import dispatch; dispatch.batch()'


@pytest.fixture
def old_netbox(make_former: Callable[[], NetBox], tmp_path: Path) -> OldNetBox:
    unpack(tmp_path)
    return old(make_former(), tmp_path)


def send_by_a_rule(api: Api, url: str) -> None:
    """Let an event rule send updates of sites."""
    definition = {'payload_url': url, 'object_types': [], 'type_update': True}
    hook = api.request('POST', 'plugins/webhooks/webhooks/', name='Rule', **definition)
    rule = {'object_types': ['dcim.site'], 'event_types': ['object_updated'], 'action_type': 'webhooks.send'}
    action = {'action_object_type': 'webhooks.webhook', 'action_object_id': hook['id']}
    api.request('POST', 'extras/event-rules/', name='Rule', enabled=True, **rule, **action)


def more(savers: list[Saver]) -> Callable[[], bool]:
    before = [saver.done for saver in savers]
    return lambda: all(saver.error or saver.done > count + 3 for saver, count in zip(savers, before, strict=True))


def test_all_that_processes_of_1_0_0_save_during_and_after_it_is_sent_in_order(old_netbox, receiver, steps):
    server = old_netbox.start_server()
    try:
        server.wait_until_ready()
        api = Api(server)
        send_by_a_rule(api, receiver.url('/Rule'))
        savers = [Saver(api, number) for number in range(2)]
        assert wait_until(more(savers), timeout=PATIENCE)
        Migrating(old_netbox.database, steps).finish()
        assert wait_until(more(savers), timeout=PATIENCE)
        answer = old_netbox.run('shell', '--no-imports', '-c', DISPATCH)
        assert answer.returncode
        assert 'restart this process of 1.0.0' in answer.stderr
        run(old_netbox.database, GO_ON)
        assert wait_until(more(savers), timeout=PATIENCE)
        for saver in savers:
            saver.stop()
    finally:
        server.stop()
    run(old_netbox.database, GO_ON)
    for name in ('Hook', 'Rule'):
        shown = [event['data'] for event in of_path(receiver, name)]
        for saver in savers:
            got = [data['description'] for data in shown if data['id'] == saver.site]
            assert got == [str(number) for number in range(1, saver.done + 1)]


@contextmanager
def building(netbox: NetBox, steps: list[Step]) -> Iterator[psycopg.Connection]:
    """The migration builds its first index. With a big log, it goes on like that for long."""
    with netbox.database.connect() as long, netbox.database.connect() as other:
        with long.transaction():
            long.execute(LONG)
            migrating = Migrating(netbox.database, steps)
            assert wait_until(lambda: one(other, IS_BUILDING), timeout=PATIENCE)
            yield other
            assert migrating.is_alive()
        migrating.finish()


def pages() -> list[str]:
    names = ('webhook_list', 'webhook_add', 'credential_list', 'delivery_list', 'event_list', 'status')
    shown = [Webhook.objects.get(name='Hook'), Delivery.objects.latest('pk'), Event.objects.latest('pk')]
    api = [reverse(f'plugins-api:webhooks-api:{name}-list') for name in ('webhook', 'delivery', 'event')]
    return [
        *(reverse(f'plugins:webhooks:{name}') for name in names),
        *(instance.get_absolute_url() for instance in shown),
        *api,
        reverse('core:objectchange_list'),
    ]


def test_processes_of_this_version_save_delete_and_show_while_it_builds_indexes(make_former, receiver, steps):
    netbox, browser = make_former(), Client()
    with building(netbox, steps), using(netbox.database):
        Site.objects.get(name='Basel').save()
        subscribe(receiver.url('/New'), Site)
        Site.objects.get(name='Bern').save()
        Site.objects.get(name='Chur').delete()
        Webhook.objects.get(name='Leaving').delete()
        assert redelivery.redeliver(Delivery.objects.filter(status='failed')) == 1
        hook = Webhook.objects.get(name='Hook')
        assert trial.send_test(hook).status == 'delivered'
        backfill.start(hook, backfill.choose(hook))
        browser.force_login(User.objects.create(username='admin', is_superuser=True))
        assert {path: browser.get(path).status_code for path in pages()} == dict.fromkeys(pages(), 200)
    assert work(netbox)['open'] == '0'
    assert [event['event'] for event in of_path(receiver, 'New')] == ['updated', 'deleted']


def test_workers_of_this_version_wait_for_its_end(make_former, receiver, steps):
    netbox = make_former()
    worker = netbox.start_worker('low')
    try:
        with building(netbox, steps) as connection:
            worker.wait_until_ready()
            assert run(netbox.database, BURST) == ['0']
            assert one(connection, 'SELECT count(*) FROM webhooks_worker') == 0
            assert wait_until(lambda: 'migrate has not ended' in worker.child.log_tail(100), timeout=PATIENCE)
        with netbox.database.connect() as connection:
            connection.execute(RETRY)
            assert wait_until(lambda: one(connection, IS_DONE), timeout=PATIENCE)
    finally:
        worker.stop()
    assert [len(one_set['changes']) for one_set in of_path(receiver, 'Batch')[:3]] == [4, 4, 4]


# One untried batch. Of one of its objects an earlier change was tried alone, and goes again in an hour.
RESHAPE = """
    CREATE TEMPORARY TABLE batch AS SELECT id, row_number() OVER (ORDER BY id) AS n
        FROM webhooks_delivery WHERE event_count > 1;
    UPDATE webhooks_delivery d SET event_count = 1, event_id = i.event_id, object_id = i.object_id,
        sequence = i.sequence, status = 'pending', error = 'HTTP 500', attempt_count = 1,
        due_at = now() + interval '1 hour'
    FROM batch, webhooks_batchitem i, dcim_site s
    WHERE batch.id = d.id AND n = 1 AND i.delivery_id = d.id AND s.id = i.object_id AND s.name = 'Bern';
    DELETE FROM webhooks_batchitem WHERE delivery_id = (SELECT id FROM batch WHERE n = 1);
    DELETE FROM webhooks_delivery WHERE id = (SELECT id FROM batch WHERE n = 3);
    DELETE FROM webhooks_delivery d USING webhooks_webhook w WHERE w.id = d.webhook_id AND w.name <> 'Batch';
    DELETE FROM webhooks_event WHERE dispatched_at IS NULL"""
FIRST_IS_DUE = f"UPDATE webhooks_delivery SET due_at = now() WHERE status {TIMED} AND error = 'HTTP 500'"
# The endpoint was away, and the next request probes it.
PROBE = 'UPDATE webhooks_health SET suspended_since = now(), probe_at = now(), unreachable = 5, probes = 1'
GO_ON = """
from webhooks.engine.process import inline
while inline.run():
    pass
"""


def test_a_batch_that_goes_without_a_blocked_change_does_not_take_it_along_under_its_id(make_former, receiver, steps):
    """The endpoint may have taken the first request, though its answer was lost."""
    netbox = make_former()
    with netbox.database.connect() as connection:
        for statement in RESHAPE.split(';\n'):
            connection.execute(statement)
    Migrating(netbox.database, steps).finish()
    receiver.answers('/Batch', Answer(manner=Manner.CUT, body=b'x' * 100), 200)
    run(netbox.database, GO_ON)
    netbox.database.execute(FIRST_IS_DUE)
    netbox.database.execute(PROBE)
    for _ in range(4):
        run(netbox.database, GO_ON)
        netbox.database.execute(RETRY)
    told: dict[str, set[tuple[str, ...]]] = {}
    for request in receiver.matching():
        names = tuple(sorted(one['data']['name'] for one in request.json()['changes']))
        told.setdefault(request.header('webhook-id'), set()).add(names)
    assert len(told) > 1
    assert all(len(bodies) == 1 for bodies in told.values()), told
