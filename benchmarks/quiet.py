"""A storm of changes of some objects, each sent, and sent when the objects are quiet."""

from collections.abc import Iterator
from typing import NamedTuple

from dcim.models import Site
from django.db import transaction

from benchmarks.processes import cpu, postmaster, wait_until_idle
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from devstack.process import wait_until
from webhooks.choices import OPEN_STATUSES
from webhooks.models import Delivery, Event

QUIET_SECONDS = 5
TIMEOUT = 600


class Cost(NamedTuple):
    """`worker` and `database` are CPU seconds, from the first save until all is sent."""

    requests: int
    worker: float
    database: float


def measure(bed: Bed) -> Iterator[Row]:
    objects, times = (20, 20) if bed.quick else (100, 100)
    storm = f'{objects * times:,} updates of {objects} Sites'
    each, together = _storm(bed, objects, times), _storm(bed, objects, times, quiet=QUIET_SECONDS)
    with_quiet = f'sent when quiet for {QUIET_SECONDS} s'
    yield Row(f'{storm}: requests', '', [each.requests])
    yield Row(f'{storm}, {with_quiet}: requests', '', [together.requests])
    yield Row(f'{storm}: CPU of the worker', 's', [each.worker])
    yield Row(f'{storm}, {with_quiet}: CPU of the worker', 's', [together.worker])
    yield Row('CPU of the worker with quiet time, of that without', '', [together.worker / each.worker])
    yield Row('CPU of PostgreSQL with quiet time, of that without', '', [together.database / each.database])


def _storm(bed: Bed, objects: int, times: int, **fields: int) -> Cost:
    """Save all objects in one transaction after the other, beside a worker. Without requests NetBox has less to do."""
    sites = bed.new_sites(objects)
    bed.save(sites)
    with bed.subscribed(OURS, Site, **fields), bed.worker() as worker:
        wait_until_idle()
        before = cpu([worker.pid]), cpu([postmaster()])
        for _turn in range(times):
            with transaction.atomic():
                for one in sites:
                    one.save()
        if not wait_until(_is_all_sent, timeout=TIMEOUT):
            raise TimeoutError('not everything was sent')
        used, database = cpu([worker.pid]) - before[0], cpu([postmaster()]) - before[1]
        return Cost(len(bed.receiver.requests), used, database)


def _is_all_sent() -> bool:
    waiting = Delivery.objects.filter(status__in=OPEN_STATUSES)
    return not Event.objects.filter(dispatched_at=None).exists() and not waiting.exists()
