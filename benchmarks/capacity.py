"""What a change and a delivery cost, a log of a million, and a thousand webhooks: sizes.py computes needs from it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from dcim.models import Site
from django.db import connection, connections, transaction

from benchmarks import copies
from benchmarks.processes import cpu, postmaster, wait_until_idle
from benchmarks.report import Row, percentile
from benchmarks.sides import OURS, Bed
from webhooks.engine.process import inline
from webhooks.engine.tidy import retention
from webhooks.models import Attempt, Delivery, Event, Webhook

TIMEOUT = 300
# With so many webhooks, what is paid for each change is told from what is paid for each delivery.
MANY = 10
TABLES = {'event': 'webhooks_event', 'delivery': 'webhooks_delivery', 'attempt': 'webhooks_attempt'}

# Totals so far: rows inserted, rows updated, and bytes of WAL.
WRITTEN = """
    SELECT sum(n_tup_ins), sum(n_tup_upd), (SELECT pg_current_wal_lsn() - '0/0')
    FROM pg_stat_user_tables WHERE relname LIKE 'webhooks%'"""
SIZE = 'SELECT pg_table_size(%(table)s::regclass), pg_indexes_size(%(table)s::regclass), count(*) FROM {}'

WRITES = (
    ('statements', ''),
    ('rows inserted', 'rows'),
    ('rows updated', 'rows'),
    ('WAL', 'bytes'),
    ('stored', 'bytes'),
)
TIMES = (('CPU of the worker', 'ms'), ('CPU of PostgreSQL', 'ms'))


def measure(bed: Bed) -> Iterator[Row]:
    changes, webhooks = (100, 20) if bed.quick else (1000, 1000)
    yield from _costs(bed, changes)
    yield from _one_change(bed, webhooks)


def measure_log(bed: Bed) -> Iterator[Row]:
    log, busy = (2000, 500) if bed.quick else (1_000_000, 3000)
    with bed.subscribed(OURS, Site):
        alone = _rate(bed, busy)
        _fill(bed, log)
        yield from _stored(log)
        yield Row(f'{log:,} in the log: sent, of without', '', [_rate(bed, busy) / alone])
        yield from _pruned(bed, log, busy, alone)


def _costs(bed: Bed, changes: int) -> Iterator[Row]:
    """Tell what each change costs from what each delivery costs: with one webhook, and with ten."""
    for pay, costs in ((_write, WRITES), (_work, TIMES)):
        with bed.subscribed(OURS, Site):
            pay(bed, 50)  # loads code
            one = pay(bed, changes)
        with bed.subscribed(OURS, Site, MANY):
            many = pay(bed, changes)
        for (what, unit), first, all_of_them in zip(costs, one, many, strict=True):
            delivery = (all_of_them - first) / (MANY - 1)
            yield Row(f'each change: {what}', unit, [first - delivery])
            yield Row(f'each delivery: {what}', unit, [delivery])
    saved = _wal(lambda: bed.save(bed.new_sites(changes // 5)))
    with bed.subscribed(OURS, Site):
        recorded = _wal(lambda: bed.save(bed.new_sites(changes // 5)))
    yield Row('each change: WAL of the save', 'bytes', [(recorded - saved) / (changes // 5)])


def _write(bed: Bed, changes: int) -> list[float]:
    """Return WRITES for each change."""
    bed.reset()
    _record(bed, changes)
    before, count = _written(), [0]

    def counted(execute: Callable, *arguments: Any) -> Any:
        count[0] += 1
        return execute(*arguments)

    with connection.execute_wrapper(counted):
        _drain()
    written = [after - earlier for earlier, after in zip(before, _written(), strict=True)]
    stored = sum(sum(_size(table)[:2]) for table in TABLES.values())
    return [figure / changes for figure in (count[0], *written, stored)]


def _work(bed: Bed, changes: int) -> list[float]:
    """Return TIMES for each change, of one rqworker."""
    with bed.worker() as worker:
        wait_until_idle()
        bed.receiver.clear()
        before = [cpu([worker.pid]), cpu([postmaster()])]
        _record(bed, changes)
        bed.receiver.wait_for(changes * Webhook.objects.count(), timeout=TIMEOUT)
        wait_until_idle()
        after = [cpu([worker.pid]), cpu([postmaster()])]
    return [(used - earlier) * 1000 / changes for earlier, used in zip(before, after, strict=True)]


def _drain() -> None:
    while inline.run():
        pass


def _written() -> list[float]:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_stat_force_next_flush()')
        cursor.execute(WRITTEN)
        (totals,) = cursor.fetchall()
    return [float(figure) for figure in totals]


def _wal(act: Callable[[], object]) -> float:
    before = _written()[-1]
    act()
    return _written()[-1] - before


def _one_change(bed: Bed, webhooks: int) -> Iterator[Row]:
    """One save, and each webhook has an endpoint of its own on the same host."""
    with bed.subscribed(OURS, Site, webhooks), bed.worker():
        wait_until_idle()
        for what in ('the first', 'the next'):
            bed.receiver.clear()
            start = time.time()
            bed.save(bed.new_sites(1))
            saved = time.time()
            got = [request.arrived - saved for request in bed.receiver.wait_for(webhooks, timeout=TIMEOUT)]
            told = f'{webhooks:,} webhooks on one change, {what}'
            yield Row(f'{told}: the save', 'ms', [(saved - start) * 1000])
            for name, share in (('first', 0), ('middle', 0.5), ('last', 1)):
                yield Row(f'{told}: {name} arrival', 'ms', [percentile(got, share) * 1000])


def _rate(bed: Bed, count: int) -> float:
    """Return deliveries a second of one rqworker."""
    bed.receiver.clear()
    _record(bed, count)
    with bed.worker():
        got = bed.receiver.wait_for(count, timeout=TIMEOUT)
    return count / (got[count - 1].arrived - got[0].arrived)


def _record(bed: Bed, count: int) -> None:
    """Record changes of other sites, in one transaction, by copies of one: a save takes a hundred times as long."""
    sites = Site.objects.bulk_create(bed.new_sites(count - 1))
    copied = {
        'uuid': 'gen_random_uuid()',
        'sequence': "nextval('webhooks_event_sequence')",
        'object_id': f'({sites[0].pk - 1} + n)',
        'snapshot': f"jsonb_set(snapshot, '{{id}}', to_jsonb({sites[0].pk - 1} + n))",
    }
    with transaction.atomic():
        bed.save(bed.new_sites(1))
        copies.make(Event, count - 1, 'sequence = (SELECT max(sequence) FROM webhooks_event)', **copied)


def _fill(bed: Bed, count: int) -> None:
    """Copy a delivered change. The copies are of a month that begins 40 days ago."""
    bed.reset()
    bed.save(bed.new_sites(1))
    _drain()
    moment = f"now() - interval '40 days' + n * interval '30 days' / {count}"
    fresh = {'uuid': 'gen_random_uuid()', 'sequence': 'sequence - n', 'object_id': 'object_id + n'}
    copies.make(Event, count, **fresh, timestamp=moment, dispatched_at=moment)
    copies.make(Delivery, count, **fresh, event_id='event_id + n', created=moment, finished_at=moment)
    copies.make(Attempt, count, delivery_id='delivery_id + n', started_at=moment)


def _stored(log: int) -> Iterator[Row]:
    for what, table in TABLES.items():
        rows, indexes, count = _size(table)
        yield Row(f'{log:,} in the log: table, for each {what}', 'bytes', [rows / count])
        yield Row(f'{log:,} in the log: indexes, for each {what}', 'bytes', [indexes / count])


def _size(table: str) -> tuple[int, int, int]:
    """Return the bytes of the rows and of the indexes, and how many rows there are."""
    with connection.cursor() as cursor:
        cursor.execute(SIZE.format(table), {'table': table})
        (size,) = cursor.fetchall()
    return size


def _pruned(bed: Bed, log: int, busy: int, alone: float) -> Iterator[Row]:
    """Prune what is older than 30 days, alone and beside a worker that sends."""
    slices = retention.slices(30)
    start, gone = time.monotonic(), 0
    while gone < log // 20:
        gone += next(slices)
    yield Row(f'{log:,} in the log: events pruned', 'a second', [gone / (time.monotonic() - start)])
    stopped, beside = threading.Event(), [0, 0.0]

    def prune() -> None:
        begun = time.monotonic()
        for number in retention.slices(30):
            beside[0] += number
            beside[1] = time.monotonic() - begun
            if stopped.is_set():
                break
        connections.close_all()

    thread = threading.Thread(target=prune)
    thread.start()
    rate = _rate(bed, busy)
    stopped.set()
    thread.join()
    yield Row(f'{log:,} in the log: events pruned beside a worker that sends', 'a second', [beside[0] / beside[1]])
    yield Row(f'{log:,} in the log: sent beside pruning, of without', '', [rate / alone])
