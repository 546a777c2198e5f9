"""What a subscribed webhook adds to a save, in the process that saves. No worker runs meanwhile."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dcim.models import Device, Site
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from benchmarks.report import Row
from benchmarks.sides import BUILTIN, NEITHER, OURS, Bed
from webhooks import signals

VARIANTS = ((NEITHER, 0), (OURS, 1), (BUILTIN, 1), (OURS, 10), (BUILTIN, 10))


def measure(bed: Bed) -> Iterator[Row]:
    devices, sites = (20, 5) if bed.quick else (200, 40)
    yield from _added(
        bed, f'{devices} Devices in one transaction', Device, lambda: bed.save(bed.new_devices(devices)), devices
    )
    yield from _added(bed, 'single saves of a Site', Site, lambda: _singly(bed, sites), sites)
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


def _time(bed: Bed, side: str, webhooks: int, model: type, save: Callable[[], None]) -> float:
    """Return the milliseconds that a save takes."""
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
