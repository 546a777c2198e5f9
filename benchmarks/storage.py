"""A delivery's traces in the database, and a look at a long queue."""

import time
from collections.abc import Iterator
from datetime import timedelta
from statistics import median

from dcim.models import Site
from django.db import connection, transaction
from django.utils import timezone

from benchmarks import copies
from benchmarks.processes import cpu, postmaster
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from webhooks.engine.deliver import queue
from webhooks.engine.deliver.lane import BEGINNING, Lane
from webhooks.engine.process import inline
from webhooks.models import Attempt, Delivery, Event, Health, Webhook

TABLES = ('webhooks_event', 'webhooks_delivery', 'webhooks_attempt')

# Totals so far: rows, and bytes of WAL.
WRITTEN = """
    SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_upd - n_tup_hot_upd), sum(n_tup_upd + n_tup_del),
        (SELECT pg_current_wal_lsn() - '0/0')
    FROM pg_stat_user_tables WHERE relname = ANY(%s)"""
WRITES = (
    ('rows inserted', 'rows'),
    ('rows updated', 'rows'),
    ('of them with a look at all indexes', 'rows'),
    ('rows left dead', 'rows'),
    ('WAL', 'bytes'),
)

SUSPENDED = 'due, of a suspended webhook'
# Copies of a finished delivery.
KINDS = {
    'due, of many objects': {'object_id': 'n', 'due_at': 'now()'},
    'waiting for one object': {'object_id': '1', 'due_at': 'NULL'},
    'waiting for a retry': {'object_id': 'n', 'due_at': "now() + interval '1 hour'"},
    SUSPENDED: {'object_id': 'n', 'due_at': 'now()'},
}


def measure(bed: Bed) -> Iterator[Row]:
    few, many, sent = (100, 1000, 100) if bed.quick else (1000, 1_000_000, 2000)
    with bed.subscribed(OURS, Site):
        yield from _written(bed, sent)
        yield from _beside_a_log(bed, many, sent)
        for what in KINDS:
            short, long = _claim(bed, few, what), _claim(bed, many, what)
            yield Row(f'claim among {many:,} {what}, of that among {few:,}', '', [long / short])


def _written(bed: Bed, count: int) -> Iterator[Row]:
    """The save's own writes do not count."""
    bed.save(bed.new_sites(count))
    before = _written_so_far()
    inline.run()
    written = [(after - earlier) / count for earlier, after in zip(before, _written_so_far(), strict=True)]
    for (what, unit), figure in zip(WRITES, written, strict=True):
        yield Row(f'written for a delivery: {what}', unit, [figure])
    with connection.cursor() as cursor:
        cursor.execute('SELECT sum(pg_total_relation_size(t::regclass)) FROM unnest(%s::text[]) AS t', [list(TABLES)])
        size = cursor.fetchone()[0]
    yield Row('stored for a delivered Site: one event, one delivery, one attempt', 'bytes', [float(size) / count])


def _written_so_far() -> list[float]:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_stat_force_next_flush()')
        cursor.execute(WRITTEN, [list(TABLES)])
        return [float(figure) for figure in cursor.fetchone()]


def _beside_a_log(bed: Bed, length: int, count: int) -> Iterator[Row]:
    bed.reset()
    empty = _cpu_of_postgres(bed, count)
    bed.reset()
    bed.save(bed.new_sites(1))
    inline.run()
    fresh = {'uuid': 'gen_random_uuid()', 'sequence': 'sequence - n', 'object_id': 'object_id + n'}
    copies.make(Event, length, **fresh)
    copies.make(Delivery, length, **fresh, event_id='event_id + n')
    copies.make(Attempt, length, delivery_id='delivery_id + n')
    long = _cpu_of_postgres(bed, count)
    yield Row("PostgreSQL's CPU for a delivery", 'ms', [empty])
    yield Row(f'{length:,} in the log, of that with none', '', [long / empty])


def _cpu_of_postgres(bed: Bed, count: int) -> float:
    """PostgreSQL cleans up in some turns."""
    return median(_cpu_of_turn(bed, count) for _ in range(bed.turns))


def _cpu_of_turn(bed: Bed, count: int) -> float:
    bed.save(bed.new_sites(count))
    before = cpu([postmaster()])
    inline.run()
    return (cpu([postmaster()]) - before) * 1000 / count


def _claim(bed: Bed, count: int, what: str) -> float:
    """Return milliseconds: the median of several claims, each undone."""
    bed.reset()
    bed.save(bed.new_sites(1))
    inline.run()
    waiting = {'status': "'pending'", 'attempt_count': '0', 'finished_at': 'NULL', 'sequence': 'n'}
    copies.make(Delivery, count, uuid='gen_random_uuid()', **waiting, **KINDS[what])
    suspended = {'suspended_since': timezone.now(), 'probe_at': timezone.now() + timedelta(days=1)}
    Health.objects.update(**suspended if what == SUSPENDED else dict.fromkeys(suspended))
    times = sorted(_time_of_look() for _ in range(9))
    return times[4]


def _time_of_look() -> float:
    """Return milliseconds."""
    now = timezone.now()
    with transaction.atomic():
        webhooks = list(Webhook.objects.values_list('pk', flat=True))
        start = time.perf_counter()
        queue.take(0, BEGINNING, 1, now)
        lanes = [Lane(pk, used_at=0.0, state=state) for pk, state in queue.states(webhooks, now).items()]
        if wishes := [wish for lane in lanes for wish in lane.wishes(everything=True)]:
            queue.read(wishes, (), now)
        taken = time.perf_counter() - start
        transaction.set_rollback(True)
    return taken * 1000
