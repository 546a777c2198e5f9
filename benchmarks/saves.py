"""What a subscribed webhook adds to a save or a deletion, in the process that does it. No worker runs meanwhile."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dcim.models import Device, Interface, Site
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from benchmarks.report import Row
from benchmarks.sides import BUILTIN, NEITHER, OURS, Bed, Models
from webhooks import signals

INTERFACES = 48
VARIANTS = ((NEITHER, 0), (OURS, 1), (BUILTIN, 1), (OURS, 10), (BUILTIN, 10))


def measure(bed: Bed) -> Iterator[Row]:
    devices, sites = (20, 5) if bed.quick else (200, 40)
    yield from _added(
        bed, f'{devices} Devices in one transaction', Device, lambda: bed.save(bed.new_devices(devices)), devices
    )
    yield from _added(bed, 'single saves of a Site', Site, lambda: _singly(bed, sites), sites)
    yield from _added_to_deletion(bed)
    yield Row('added to a save with nothing subscribed', 'ms an object', _with_none_subscribed(bed, devices))


def _singly(bed: Bed, count: int) -> None:
    for site in bed.new_sites(count):
        bed.save([site])


def _added(bed: Bed, what: str, model: type, save: Callable[[], None], count: int) -> Iterator[Row]:
    """Yield what one and ten webhooks add, each turn compared with a save without any in the same turn."""
    added: dict[tuple[str, int], list[float]] = {variant: [] for variant in VARIANTS}
    bare = []
    # What is loaded and compiled at the first save is not what a webhook costs.
    for side, webhooks in VARIANTS[:3]:
        _time(bed, side, webhooks, model, save)
    for turn in range(bed.turns):
        # In another order each time: a run of the built-in leaves the servers busier than one of ours.
        order = VARIANTS[turn % len(VARIANTS) :] + VARIANTS[: turn % len(VARIANTS)]
        times = {variant: _time(bed, *variant, model, save) / count for variant in order}
        bare.append(times[NEITHER, 0])
        for variant in VARIANTS[1:]:
            added[variant].append(times[variant] - times[NEITHER, 0])
    yield Row(f'{what}: without webhooks', 'ms an object', bare)
    yield Row(f'{what}: added by 1 webhook', 'ms an object', added[OURS, 1], added[BUILTIN, 1])
    yield Row(f'{what}: added by 10 webhooks', 'ms an object', added[OURS, 10], added[BUILTIN, 10])


def _added_to_deletion(bed: Bed) -> Iterator[Row]:
    """Yield what one webhook for both models adds to the deletion of a device with its interfaces."""
    what = f'deletion of a Device with {INTERFACES} interfaces'
    sides = (NEITHER, OURS, BUILTIN)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:
        _time_deletion(bed, side)
    for turn in range(bed.turns):
        for side in sides[turn % 3 :] + sides[: turn % 3]:
            times[side].append(_time_deletion(bed, side))
    added = {side: [took - bare for took, bare in zip(times[side], times[NEITHER], strict=True)] for side in sides}
    yield Row(f'{what}: without webhooks', 'ms', times[NEITHER])
    yield Row(f'{what}: added by 1 webhook', 'ms', added[OURS], added[BUILTIN])


def _time_deletion(bed: Bed, side: str) -> float:
    (device,) = bed.new_devices(1)
    bed.save([device])
    bed.save([Interface(device=device, name=f'eth{number}', type='virtual') for number in range(INTERFACES)])
    return _time(bed, side, 1, (Device, Interface), lambda: bed.delete(Device.objects.get(pk=device.pk)))


def _time(bed: Bed, side: str, webhooks: int, model: Models, save: Callable[[], None]) -> float:
    """Return the milliseconds that a save, or a deletion, takes."""
    with bed.subscribed(side, model, webhooks):
        start = time.perf_counter()
        save()
        return (time.perf_counter() - start) * 1000


def _with_none_subscribed(bed: Bed, count: int) -> list[float]:
    def save() -> None:
        bed.save(bed.new_devices(count))

    figures = []
    for _ in range(bed.turns):
        connected = _time(bed, NEITHER, 0, Device, save)
        with _disconnected():
            figures.append((connected - _time(bed, NEITHER, 0, Device, save)) / count)
    return figures


@contextmanager
def _disconnected() -> Iterator[None]:
    """Have no handler of ours on Device, as where webhooks are not enabled."""
    for signal in (pre_save, post_save, pre_delete, post_delete):
        signal.disconnect(sender=Device, dispatch_uid=f'webhooks.{Device._meta.label_lower}')
    try:
        yield
    finally:
        signals.connect()
