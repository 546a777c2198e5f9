"""A backfill beside changes: its speed, memory and cost to others."""

from collections.abc import Iterator

from dcim.models import Site
from tenancy.models import Tenant

from benchmarks.processes import growth
from benchmarks.report import Row
from benchmarks.sides import HOOK, OURS, Bed, dispatch_began
from devstack.process import wait_until
from webhooks.engine.process import inline
from webhooks.models import Backfill, Webhook
from webhooks.services import backfill

OTHER = '/other'
TIMEOUT = 600


def measure(bed: Bed) -> Iterator[Row]:
    count, many = (200, 1000) if bed.quick else (2000, 100_000)
    turns = range(1 if bed.quick else 3)
    pairs = [(_changes(bed, count), _backfill(bed)) for _ in turns]
    yield Row('sent by one rqworker, changes of Sites', 'a second', [changes for changes, _rate in pairs])
    yield Row('sent by one rqworker, a backfill of Sites', 'a second', [rate for _changes, rate in pairs])
    yield Row('rate of a backfill, of that of changes', '', [rate / changes for changes, rate in pairs])
    yield Row('share of a backfill in what is sent while others wait', '', [_share(bed, count)])
    _fill(bed, many)
    yield Row(f'growth of a worker that backfills {many:,} Sites', 'MB', [_growth(bed)])


def _changes(bed: Bed, count: int) -> float:
    with bed.subscribed(OURS, Site):
        bed.save(bed.new_sites(count))
        with bed.worker():
            got = bed.receiver.wait_for(count, timeout=TIMEOUT)
        return count / (got[count - 1].arrived - dispatch_began())


def _backfill(bed: Bed) -> float:
    with bed.subscribed(OURS, Site):
        count = _start().total
        with bed.worker():
            got = bed.receiver.wait_for(count, timeout=TIMEOUT)
        return count / (got[count - 1].arrived - dispatch_began())


def _share(bed: Bed, count: int) -> float:
    """Measure until the last other delivery has arrived."""
    with bed.subscribed(OURS, Site), bed.subscribed(OURS, Tenant, path=OTHER):
        bed.save(bed.new_tenants(count))
        _start()
        with bed.worker():
            others = bed.receiver.wait_for(count, lambda request: request.path == OTHER, timeout=TIMEOUT)
        last = max(request.arrived for request in others)
        beside = bed.receiver.matching(lambda request: request.path == HOOK and request.arrived < last)
    Tenant.objects.all().delete()
    return len(beside) / (len(beside) + count)


def _fill(bed: Bed, count: int) -> None:
    missing = count - Site.objects.count()
    Site.objects.bulk_create(bed.new_sites(missing), batch_size=1000)


def _growth(bed: Bed) -> float:
    """Return MB, without its first job."""
    with bed.subscribed(OURS, Site):
        _start()
        inline.run()
        return growth(lambda: wait_until(_is_over, timeout=TIMEOUT, interval=0))


def _is_over() -> bool:
    inline.run()
    return not Backfill.objects.get().is_open


def _start() -> Backfill:
    webhook = Webhook.objects.get(object_types__model='site')
    return backfill.start(webhook, backfill.choose(webhook))
