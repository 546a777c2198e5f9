"""The cost of options for a worker, and for a save of a device's parts."""

import time
from collections.abc import Iterator
from typing import Any

from dcim.models import Device, Interface

from benchmarks.report import Row
from benchmarks.sides import NEITHER, OURS, Bed
from webhooks.engine.dispatch.loop import Dispatcher
from webhooks.engine.process import inline
from webhooks.engine.registry import DISPATCH, Registration
from webhooks.models import Delivery
from webhooks.payload import http_request

FAR = ['device.site', 'device.device_type.manufacturer', 'device.role']
OPTIONS: dict[str, dict[str, Any]] = {
    'include_snapshots, with differences': {'include_snapshots': True},
    'expand device': {'expand': ['device']},
    f'expand {", ".join(FAR)}': {'expand': FAR},
}
COMPONENTS = {'include_components': True}


def measure(bed: Bed) -> Iterator[Row]:
    count = 20 if bed.quick else 200
    what = f'dispatch and body of {count} Interfaces of one Device'
    # A process looks up some facts only once: leave that out.
    for fields in ({}, *OPTIONS.values()):
        _dispatched(bed, count, fields)
    plain, added = [], {name: [] for name in OPTIONS}
    for _turn in range(bed.turns):
        plain.append(_dispatched(bed, count, {}))
        for name, fields in OPTIONS.items():
            added[name].append(_dispatched(bed, count, fields) - plain[-1])
    yield Row(f'{what}: plain', 'ms an event', plain)
    for name, figures in added.items():
        yield Row(f'{what}: added by {name}', 'ms an event', figures)
    yield from _components(bed, count)


def _dispatched(bed: Bed, count: int, fields: dict[str, Any]) -> float:
    """Return milliseconds per event, without sending."""
    (device,) = bed.new_devices(1)
    bed.save([device])
    with bed.subscribed(OURS, Interface, **fields):
        bed.save(_interfaces(device, count))
        start = time.perf_counter()
        registration = Registration(inline.name('benchmark'), DISPATCH)
        registration.begin()
        dispatcher = Dispatcher(registration)
        while dispatcher.batch():
            pass
        registration.end()
        for delivery in Delivery.objects.select_related('event', 'webhook'):
            http_request.Builder(delivery.webhook).build(delivery, time.time())
        return (time.perf_counter() - start) * 1000 / count


def _components(bed: Bed, count: int) -> Iterator[Row]:
    """A webhook of devices records interfaces only if it includes components."""
    sides = {'off': (OURS, {}), 'on': (OURS, COMPONENTS), 'none': (NEITHER, {})}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _turn in range(bed.turns):
        for name, (side, fields) in sides.items():
            (device,) = bed.new_devices(1)
            bed.save([device])
            with bed.subscribed(side, Device, **fields):
                start = time.perf_counter()
                bed.save(_interfaces(device, count))
                times[name].append((time.perf_counter() - start) * 1000 / count)
    what = f'save of {count} Interfaces: added by a webhook of Devices'
    for name, label in (('off', 'without'), ('on', 'with')):
        added = [one - none for one, none in zip(times[name], times['none'], strict=True)]
        yield Row(f'{what} {label} include_components', 'ms an object', added)


def _interfaces(device: Device, count: int) -> list[Interface]:
    return [Interface(device=device, name=f'eth{number}', type='virtual') for number in range(count)]
