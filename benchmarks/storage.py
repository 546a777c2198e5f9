"""What a delivery leaves in the database, and what a claim costs when the queue is long."""

import time
import uuid
from collections.abc import Iterator
from datetime import timedelta

from dcim.models import Site
from django.db import connection, transaction
from django.utils import timezone

from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from webhooks.engine import claims, runner
from webhooks.models import Delivery, Health

TABLES = ('webhooks_event', 'webhooks_delivery', 'webhooks_attempt')

# Deliveries that are due, or wait for a retry or in a line: copies of one that is there.
FILL = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, status, error,
        created, due_at, expires_at, attempt_count, listed, event_count)
    SELECT gen_random_uuid(), webhook_id, event_id, object_type_id, {object_id}, n, 'pending', '',
        now(), {due_at}, now() + interval '3 days', 0, false, 1
    FROM webhooks_delivery, generate_series(1, %s) n WHERE id = %s"""

SUSPENDED = 'due, of a suspended webhook'
KINDS = {
    'due, of many objects': {'object_id': 'n', 'due_at': 'now()'},
    'waiting for one object': {'object_id': '1', 'due_at': 'NULL'},
    'waiting for a retry': {'object_id': 'n', 'due_at': "now() + interval '1 hour'"},
    SUSPENDED: {'object_id': 'n', 'due_at': 'now()'},
}


def measure(bed: Bed) -> Iterator[Row]:
    with bed.subscribed(OURS, Site):
        yield from _size(bed, 100 if bed.quick else 2000)
        few, many = (100, 1000) if bed.quick else (1000, 1_000_000)
        for what in KINDS:
            short, long = _claim(bed, few, what), _claim(bed, many, what)
            yield Row(f'claim among {many:,} {what}, of that among {few:,}', '', [long / short])


def _size(bed: Bed, count: int) -> Iterator[Row]:
    bed.save(bed.new_sites(count))
    runner.run()
    with connection.cursor() as cursor:
        cursor.execute('SELECT sum(pg_total_relation_size(t::regclass)) FROM unnest(%s::text[]) AS t', [list(TABLES)])
        size = cursor.fetchone()[0]
    yield Row('stored for a delivered Site: one event, one delivery, one attempt', 'bytes', [float(size) / count])


def _claim(bed: Bed, count: int, what: str) -> float:
    """Return the milliseconds of a claim, the median of some, each of which is undone."""
    bed.reset()
    bed.save(bed.new_sites(1))
    runner.run()
    with connection.cursor() as cursor:
        cursor.execute(FILL.format(**KINDS[what]), [count, Delivery.objects.get().pk])
        cursor.execute('ANALYZE webhooks_delivery')
    suspended = {'suspended_since': timezone.now(), 'probe_at': timezone.now() + timedelta(days=1)}
    Health.objects.update(**suspended if what == SUSPENDED else dict.fromkeys(suspended))
    times = sorted(_time_of_claim() for _ in range(9))
    return times[4]


def _time_of_claim() -> float:
    with transaction.atomic():
        start = time.perf_counter()
        claims.claim(uuid.uuid4(), (), 16, timezone.now())
        taken = time.perf_counter() - start
        transaction.set_rollback(True)
    return taken * 1000
