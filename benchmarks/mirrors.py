"""What a filter costs: a save, a dispatched change, and a walk that compares a list of many devices."""

import statistics
import time
from collections.abc import Iterator

from dcim.models import Device, Site
from django.db import connection
from django.test.utils import CaptureQueriesContext
from tenancy.models import Tenant

from benchmarks import copies
from benchmarks.processes import cpu, postmaster
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from webhooks.engine.walks.lists import WalkOfList
from webhooks.engine.walks.loop import Walks
from webhooks.models import ListMember, ListWalk

IDLE = '/idle'
TIMEOUT = 1800
# Changes of another webhook, one after the other.
CHANGES = 15
SITES, DEVICES = {'dcim.site': 'status=active'}, {'dcim.device': 'status=active&site=bench'}


def measure(bed: Bed) -> Iterator[Row]:
    saves, changes, devices = (20, 200, 1000) if bed.quick else (300, 1000, 100_000)
    yield from _saves(bed, saves)
    turns = range(1 if bed.quick else 3)
    pairs = [(_cpu(bed, changes), _cpu(bed, changes, filters=SITES)) for _ in turns]
    what = f'CPU of workers and PostgreSQL for {changes:,} changes'
    yield Row(f'{what}, with a filter, of without', '', [with_ / without for without, with_ in pairs])
    yield from _walk(bed, devices)


def _saves(bed: Bed, count: int) -> Iterator[Row]:
    queries, times = [], []
    for filters in ({}, SITES):
        with bed.subscribed(OURS, Site, filters=filters):
            bed.save(bed.new_sites(1))
            with CaptureQueriesContext(connection) as captured:
                bed.save(bed.new_sites(1))
            queries.append(len(captured))
            times.append(statistics.median(_save(bed) for _ in range(count)))
    yield Row('statements of a save, with a filter, more than without', '', [queries[1] - queries[0]])
    yield Row(f'median of {count} saves, with a filter, of without', '', [times[1] / times[0]])


def _save(bed: Bed) -> float:
    sites = bed.new_sites(1)
    began = time.process_time()
    bed.save(sites)
    return time.process_time() - began


def _cpu(bed: Bed, count: int, **fields: object) -> float:
    """Return CPU seconds from the first dispatch to the last arrival."""
    with bed.subscribed(OURS, Site, **fields), bed.worker() as worker:
        bed.save(bed.new_sites(1))
        bed.receiver.wait_for(1, timeout=TIMEOUT)
        began = cpu([worker.pid, postmaster()])
        bed.save(bed.new_sites(count))
        bed.receiver.wait_for(1 + count, timeout=TIMEOUT)
        return cpu([worker.pid, postmaster()]) - began


def _walk(bed: Bed, count: int) -> Iterator[Row]:
    Device.objects.bulk_create(bed.new_devices(1))
    copies.make(Device, count - Device.objects.count(), name="'copy ' || n")
    # A worker deletes the lists of deleted webhooks, in time. Their walks never end.
    ListWalk.objects.all().delete()
    began = time.perf_counter()
    with bed.subscribed(OURS, Device, filters=DEVICES), bed.subscribed(OURS, Tenant, path=IDLE):
        taken, members = time.perf_counter() - began, ListMember.objects.count()
        yield Row(f'a list of {members:,} devices is taken as known', 's', [taken])
        yield Row(f'CPU of the first walk over {count:,} devices', 's', [_cpu_of_walk()])
        yield Row('CPU of each later walk', 's', [_cpu_of_walk()])
        with bed.worker():
            _delay(bed)
            alone = [_delay(bed) for _ in range(CHANGES)]
            began = time.perf_counter()
            ListWalk.objects.update(asked=True)
            beside = []
            while not _is_over():
                beside.append(_delay(bed))
            taken = time.perf_counter() - began
    yield Row(f'a walk over {count:,} devices, beside a change at a time', 's', [taken])
    yield Row(f'a change of another webhook arrives, median of {CHANGES}', 'ms', [statistics.median(alone)])
    yield Row(f'the same beside the walk, median of {len(beside)}', 'ms', [statistics.median(beside)])
    yield Row('the same beside the walk, worst, more than alone, worst', 'ms', [max(beside) - max(alone)])


def _cpu_of_walk() -> float:
    """Walk in this process, without rests, and return CPU seconds of it and of PostgreSQL."""
    ListWalk.objects.update(asked=True)
    server = postmaster()
    began = time.process_time() + cpu([server])
    while not _is_over():
        Walks([WalkOfList]).next_slice()
    return time.process_time() + cpu([server]) - began


def _is_over() -> bool:
    return not ListWalk.objects.filter(asked=True).exists() and not ListWalk.objects.filter(walking=True).exists()


def _delay(bed: Bed) -> float:
    def is_idle(request) -> bool:
        return request.path == IDLE

    before = len(bed.receiver.matching(is_idle))
    bed.save(bed.new_tenants(1))
    saved = time.time()
    return (bed.receiver.wait_for(before + 1, is_idle, timeout=120)[before].arrived - saved) * 1000
