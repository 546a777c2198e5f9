"""What is looked up is found in an index, whatever PostgreSQL's figures say of what waits."""

import json
import uuid
from datetime import timedelta

import pytest
from dcim.models import Site
from django.db import connection, transaction
from support.builders import site, subscribe
from support.engine import dispatch_all

from webhooks.engine import claims, event_claims, lanes, ordering
from webhooks.models import Delivery, Event, Webhook

pytestmark = pytest.mark.usefixtures('committed')

# The webhook is not asked: nothing is sent in these tests.
NOWHERE = 'http://127.0.0.1:9/'
LEASE = uuid.uuid4()
# As many as a batch holds, and many more.
FEW, MANY = 50, 1000


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
    """Return the pages that are read to claim FEW of the oldest and of the newest events that wait."""
    waiting = list(Event.objects.filter(dispatched_at=None).order_by('sequence').values_list('pk', flat=True))
    ids = [*waiting[:FEW], *waiting[-FEW:]]
    parameters = {'lease': LEASE, 'seconds': 10, 'count': 1, 'limit': FEW, 'ids': ids}
    return {name: pages_read(getattr(event_claims, name), parameters) for name in ('ANY', 'OLDEST', 'CLAIM')}


def of_deliveries(webhook: Webhook) -> dict[str, int]:
    """Return the pages that are read to claim FEW deliveries, and to look for what waits behind as many."""
    now = lanes.now()
    parameters = {
        **claims._of_time(now, claims.ANY_TIME),
        'ids': [webhook.pk],
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
    }
    waiting = Delivery.objects.filter(status='pending', webhook=webhook).order_by('pk')
    oldest = list(waiting.values_list('pk', flat=True)[:FEW])
    read = {name: pages_read(getattr(claims, name), parameters) for name in ('CHOOSE', 'CLAIM', 'CLAIMABLE')}
    return read | {'UNPARK': pages_read(ordering.UNPARK, {'ids': oldest, 'now': now})}


def test_a_claim_of_events_reads_no_more_where_more_wait(webhook):
    sites(2 * FEW)
    few = of_events()
    sites(MANY)
    many = of_events()
    assert {name: (few[name], many[name]) for name in few if many[name] > 2 * few[name] + FEW} == {}


def test_a_claim_of_deliveries_reads_no_more_where_more_wait(webhook):
    sites(2 * FEW)
    dispatch_all()
    few = of_deliveries(webhook)
    sites(MANY)
    dispatch_all()
    many = of_deliveries(webhook)
    assert {name: (few[name], many[name]) for name in few if many[name] > 2 * few[name] + FEW} == {}
