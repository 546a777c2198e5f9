"""A config context that concerns all devices: what its save costs, and what the walk costs others."""

import statistics
import time
from collections.abc import Iterator

from dcim.models import Device
from extras.models import ConfigContext
from tenancy.models import Tenant

from benchmarks.report import Row
from benchmarks.sides import HOOK, OURS, Bed
from devstack.process import wait_until
from webhooks.models import ContextDigest, ContextWalk

IDLE = '/idle'
TIMEOUT = 420
# Changes of another webhook, one after the other.
CHANGES = 15


def measure(bed: Bed) -> Iterator[Row]:
    count = 500 if bed.quick else 10_000
    _fill(bed, count)
    context = ConfigContext.objects.create(name='bench', data={'ntp': 0})
    without, delays_alone, _none = _beside(bed, context, count, include=False)
    with_, delays, last = _beside(bed, context, count, include=True)
    what = f'a config context on {count:,} devices'
    yield Row(f'save of {what}, off', 'ms, median', [without])
    yield Row(f'save of {what}, on', 'ms, median', [with_])
    yield Row('save, on, of off', '', [with_ / without])
    yield Row(f'save of {what} to the last arrival', 's', [last])
    yield Row('a change of another webhook arrives, off', 'ms, median', [statistics.median(delays_alone)])
    yield Row('a change of another webhook arrives, beside the walk', 'ms, median', [statistics.median(delays)])
    yield Row('a change of another webhook arrives, beside the walk', 'ms, worst', [max(delays)])


def _fill(bed: Bed, count: int) -> None:
    missing = max(count - Device.objects.count(), 0)
    Device.objects.bulk_create(bed.new_devices(missing), batch_size=1000)


def _beside(bed: Bed, context: ConfigContext, count: int, *, include: bool) -> tuple[float, list[float], float]:
    """Return the milliseconds of a save, those of each other change until it arrives, and seconds to the last arrival.

    The last save has the walk and the other changes beside it.
    """
    with (
        bed.subscribed(OURS, Device, include_config_contexts=include),
        bed.subscribed(OURS, Tenant, path=IDLE),
        bed.worker(),
    ):
        _delay(bed)
        if include:
            assert wait_until(lambda: ContextDigest.objects.count() >= count, timeout=TIMEOUT)
            assert wait_until(lambda: not ContextWalk.objects.exists(), timeout=TIMEOUT)
        saves = [_save(bed, context) for _ in range(2)]
        began = time.time()
        saves.append(_save(bed, context))
        delays = [_delay(bed) for _ in range(CHANGES)]
        if not include:
            return statistics.median(saves), delays, 0.0
        newest = f'"ntp": {context.data["ntp"]}'.encode()
        got = bed.receiver.wait_for(
            count, lambda request: request.path == HOOK and newest in request.body, timeout=TIMEOUT
        )
        return statistics.median(saves), delays, max(request.arrived for request in got) - began


def _save(bed: Bed, context: ConfigContext) -> float:
    context.data = {'ntp': context.data['ntp'] + 1}
    began = time.perf_counter()
    bed.save([context])
    return (time.perf_counter() - began) * 1000


def _delay(bed: Bed) -> float:
    def arrived() -> list:
        return bed.receiver.matching(lambda request: request.path == IDLE)

    before = len(arrived())
    bed.save(bed.new_tenants(1))
    saved = time.time()
    got = bed.receiver.wait_for(before + 1, lambda request: request.path == IDLE, timeout=120)
    return (got[before].arrived - saved) * 1000
