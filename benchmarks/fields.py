"""What chosen fields save: CPU of a worker, and bytes."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from dcim.models import Device
from tenancy.models import Tenant

from benchmarks.processes import cpu, wait_until_idle
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed

WEBHOOKS = 10
TIMEOUT = 300
KEYS = ['id', 'name', 'status']
# The last asks whether fields of other types cost anything.
SIDES: dict[str, Mapping[str, Sequence[str]]] = {
    'whole Devices': {},
    'Devices with three `fields`': {'dcim.device': KEYS},
    'whole Devices, `fields` for Tenants': {'tenancy.tenant': ['id', 'name']},
}


def measure(bed: Bed) -> Iterator[Row]:
    costs: dict[str, list[float]] = {side: [] for side in SIDES}
    sizes: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(1 + bed.turns):
        for side, fields in SIDES.items():
            cost, size = _sent(bed, fields)
            # The first turn warms up.
            if turn:
                costs[side].append(cost)
                sizes[side].append(size)
    whole, *others = SIDES
    yield Row(f'CPU of the worker for a delivery, {whole}', 'ms', costs[whole])
    yield Row(f'bytes of a body, {whole}', 'bytes', sizes[whole])
    for side in others:
        yield Row(f'CPU of the worker, {side}, of {whole}', '', [median(costs[side]) / median(costs[whole])])
        yield Row(f'bytes of a body, {side}, of {whole}', '', [median(sizes[side]) / median(sizes[whole])])


def _sent(bed: Bed, fields: Mapping[str, Sequence[str]]) -> tuple[float, float]:
    """Return milliseconds of CPU of an idle worker for each delivery of new Devices, and bytes of a body."""
    count = 50 if bed.quick else 500
    with bed.subscribed(OURS, (Device, Tenant), WEBHOOKS, fields=dict(fields)), bed.worker() as worker:
        wait_until_idle()
        before = cpu([worker.pid])
        bed.save(bed.new_devices(count))
        got = bed.receiver.wait_for(count * WEBHOOKS, timeout=TIMEOUT)
        return (cpu([worker.pid]) - before) * 1000 / len(got), median(len(request.body) for request in got)
