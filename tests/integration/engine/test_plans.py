"""What is looked up is found in an index, whatever PostgreSQL's figures say of what waits."""

import json
import uuid
from datetime import datetime, timedelta

import pytest
from dcim.models import Site
from django.db import connection, transaction
from support.builders import site, subscribe
from support.engine import dispatch_all

from webhooks.engine import backfill, claims, event_claims, expiry, lanes, ordering, quarantine, rescue, timer
from webhooks.models import Backfill, Delivery, Event, Webhook

pytestmark = pytest.mark.usefixtures('committed', 'emptied')

# The webhook is not asked: nothing is sent in these tests.
NOWHERE = 'http://127.0.0.1:9/'
LEASE = uuid.uuid4()
# As many as a batch holds, and many more.
FEW, MANY = 50, 1000
# As an import of so many objects in one transaction leaves behind: copies of the last event.
LARGE = 20_000
IMPORT = """
    INSERT INTO webhooks_event (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, data, error,
        skipped, transaction_id, transaction_time, visible, snapshot)
    SELECT gen_random_uuid(), nextval('webhooks_event_sequence'), kind, object_type_id, object_id + 1000000 + n, '',
        now(), '', '', 0, pg_current_xact_id()::text::bigint, now(), visible, snapshot
    FROM (SELECT * FROM webhooks_event ORDER BY id DESC LIMIT 1) e, generate_series(1, %s) n"""

# Copies of one that waits. They expire in the order in which they lie, as always.
BACKLOG = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, status, error,
        created, due_at, expires_at, attempt_count, listed)
    SELECT gen_random_uuid(), webhook_id, event_id, object_type_id, object_id + n, sequence + n, status, '',
        created, due_at, expires_at, 0, false
    FROM webhooks_delivery, generate_series(1, 50000) n WHERE id = %s"""


@pytest.fixture
def emptied() -> None:
    """Take away what other tests have deleted: no VACUUM does while anyone, such as an autovacuum, has a snapshot."""
    with connection.cursor() as cursor:
        cursor.execute('TRUNCATE webhooks_event CASCADE')


@pytest.fixture
def webhook() -> Webhook:
    """Whose log says that nothing ever waits."""
    subscribe(NOWHERE, Site, paused=True)
    webhook = subscribe(NOWHERE, Site)
    sites(MANY)
    dispatch_all()
    Delivery.objects.update(status='delivered', due_at=None)
    with connection.cursor() as cursor:
        cursor.execute('ANALYZE webhooks_event, webhooks_delivery')
    return webhook


def look_at_tables() -> None:
    """Give PostgreSQL the figures of now."""
    with connection.cursor() as cursor:
        cursor.execute('ANALYZE webhooks_event, webhooks_delivery, webhooks_batchitem')


def sites(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            site()


def pages_read(statement: str, parameters: dict[str, object]) -> int:
    """Return how many pages of tables and indexes the statement reads, each as often as it does."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}', parameters)
        ((shown,),) = cursor.fetchall()
        transaction.set_rollback(True)
    plan = (shown if isinstance(shown, list) else json.loads(shown))[0]['Plan']
    return plan['Shared Hit Blocks'] + plan['Shared Read Blocks']


def of_events() -> dict[str, int]:
    """Return the pages that are read to claim and keep FEW of the oldest and of the newest events that wait."""
    waiting = list(Event.objects.filter(dispatched_at=None).order_by('sequence').values_list('pk', flat=True))
    ids = [*waiting[:FEW], *waiting[-FEW:]]
    parameters = {'lease': LEASE, 'seconds': 10, 'count': 1, 'limit': FEW, 'ids': ids, 'near': FEW}
    Event.objects.filter(pk__in=ids).update(lease=LEASE)  # what is dispatched was claimed before
    names = 'ANY', 'OLDEST', 'CLAIM', 'IN_TURN'
    return {name: pages_read(getattr(event_claims, name), parameters) for name in names}


def of_claim(webhook: Webhook, now: datetime) -> dict[str, object]:
    """Return the parameters of a claim of FEW deliveries."""
    return {
        **claims._of_time(now, claims.ANY_TIME),
        'ids': [webhook.pk],
        'held': [],
        'lanes': claims.LANES,
        'lease': LEASE,
        'limit': FEW,
        'margin': 30,
        'newest': claims.NEWEST,
        'one_each': [],
        'answered_of': [],
        'answered': [],
        'backfill': None,
        'looked_at': [],
        'overtake_at': now + timedelta(hours=1),
        'suspect': False,
        'window': claims.WINDOW,
        'yields': False,
    }


def of_deliveries(webhook: Webhook) -> dict[str, int]:
    """Return the pages that are read to claim FEW deliveries, and to look for what waits behind as many."""
    now = lanes.now()
    parameters = of_claim(webhook, now)
    waiting = Delivery.objects.filter(status='pending', webhook=webhook).order_by('pk')
    oldest = list(waiting.values_list('pk', flat=True)[:FEW])
    read = {name: pages_read(getattr(claims, name), parameters) for name in ('CHOOSE', 'CLAIM', 'CLAIMABLE')}
    return read | {
        'UNPARK': pages_read(ordering.UNPARK, {'ids': oldest, 'now': now}),
        'rescue': pages_read(rescue.TAKE, {'now': now, 'part': FEW}),
        'expiry': pages_read(expiry.TAKE, {'now': now, 'part': FEW}),
    }


def test_a_claim_of_events_reads_no_more_where_more_wait(webhook):
    sites(2 * FEW)
    few = of_events()
    sites(MANY)
    many = of_events()
    assert {name: (few[name], many[name]) for name in few if many[name] > 2 * few[name] + FEW} == {}


@pytest.fixture
def backlog(webhook: Webhook) -> None:
    """A large transaction, and small ones after it."""
    site()
    with connection.cursor() as cursor:
        cursor.execute(IMPORT, [LARGE])
    for _ in range(event_claims.TRANSACTIONS):
        site()
    look_at_tables()


def test_small_transactions_are_found_beside_a_large_one_without_reading_it(backlog):
    steps = {'transactions': event_claims.TRANSACTIONS, 'of_each': event_claims.OF_EACH}
    assert pages_read(event_claims.DEAL, {'lease': LEASE, **steps}) < MANY


def test_suspects_are_looked_for_among_the_oldest_and_the_newest_alone(backlog):
    few, all_of_them = (pages_read(quarantine.FIND, {'lease': LEASE, 'near': near}) for near in (FEW, LARGE))
    assert few < MANY < all_of_them


def test_backfills_are_looked_for_without_reading_what_others_wait_with(backlog):
    running = {'state': 'running', 'started_at': lanes.now(), 'object_types': [1], 'total': 1}
    Backfill.objects.create(webhook=Webhook.objects.latest('pk'), **running)
    assert pages_read(backfill.FIND, {}) < FEW


def test_a_claim_of_deliveries_reads_no_more_where_more_wait(webhook):
    sites(2 * FEW)
    dispatch_all()
    few = of_deliveries(webhook)
    sites(MANY)
    dispatch_all()
    many = of_deliveries(webhook)
    assert {name: (few[name], many[name]) for name in few if many[name] > 2 * few[name] + FEW} == {}


def test_a_claim_reads_no_more_of_a_long_backlog_that_postgresql_has_looked_at(webhook):
    """By its figures all that waits lies together, and would be read in a moment."""
    sites(2 * FEW)
    dispatch_all()
    few = of_deliveries(webhook) | {'timer': pages_read(timer.SOMETHING_TO_DO, {})}
    with connection.cursor() as cursor:
        cursor.execute(BACKLOG, [Delivery.objects.filter(webhook=webhook).order_by('-pk')[0].pk])
        cursor.execute('ANALYZE webhooks_delivery')
    many = of_deliveries(webhook) | {'timer': pages_read(timer.SOMETHING_TO_DO, {})}
    assert {name: (few[name], many[name]) for name in few if many[name] > 2 * few[name] + FEW} == {}


def test_what_has_expired_of_one_webhook_is_found_beside_all_that_has_of_another(webhook):
    """Somebody holds the other's lane."""
    few = subscribe(NOWHERE, Site)
    sites(FEW)
    dispatch_all()
    with connection.cursor() as cursor:
        cursor.execute(BACKLOG, [Delivery.objects.filter(webhook=webhook).order_by('-pk')[0].pk])
    look_at_tables()
    parameters = {'now': lanes.now() + timedelta(days=365), 'part': FEW, 'each': FEW}
    expire_few, expire_many = (pages_read(expiry.EXPIRE, {**parameters, 'lanes': [one.pk]}) for one in (few, webhook))
    assert expire_few < 2 * expire_many
    assert pages_read(expiry.TAKE, parameters) < MANY


def test_what_is_parked_beside_others_is_looked_up_without_the_objects_of_batches():
    webhook = subscribe(NOWHERE, Site, batch=True)
    for _ in range(4):
        sites(FEW)
    dispatch_all()
    look_at_tables()
    parameters = of_claim(webhook, lanes.now())
    assert Delivery.objects.filter(event_count=FEW).count() == 4
    with_batches = claims.PARK_MORE.replace('AND d.event_count = 1', '')
    assert pages_read(claims.PARK_MORE, parameters) < FEW < pages_read(with_batches, parameters)
