"""The time that a webhook adds to a save or a deletion, without a worker."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest.mock import patch

from dcim.models import Device, Interface, Site
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from extras.models import EventRule

from benchmarks.processes import growth
from benchmarks.report import Row
from benchmarks.sides import BUILTIN, NEITHER, OURS, Bed, Models
from webhooks import signals

INTERFACES = 48
VARIANTS = ((NEITHER, 0), (OURS, 1), (BUILTIN, 1), (OURS, 10), (BUILTIN, 10))


def measure(bed: Bed) -> Iterator[Row]:
    devices, pairs = (20, 10) if bed.quick else (200, 2000)
    yield from _added(
        bed, f'{devices} Devices in one transaction', Device, lambda: bed.save(bed.new_devices(devices)), devices
    )
    yield from _added_to_single_saves(bed, pairs)
    yield from _compared(bed, devices)
    yield from _added_to_deletion(bed)
    yield from _imported(bed, 100 if bed.quick else 10_000)


def _added_to_single_saves(bed: Bed, pairs: int) -> Iterator[Row]:
    """Each save is compared with a neighbouring one without that cost."""
    with bed.subscribed(OURS, Site):
        ours = _differences(bed, pairs, _disconnected)
    with bed.subscribed(BUILTIN, Site):
        builtin = _differences(bed, pairs // 10, _without_rules)
    with bed.subscribed(NEITHER, Site, 0):
        nothing = _differences(bed, pairs, _disconnected)
    what = f'single save of a Site, {pairs:,} pairs: added'
    yield Row(f'{what} by 1 webhook{_interval(ours)}', 'ms', ours, builtin)
    yield Row(f'{what} with nothing subscribed{_interval(nothing)}', 'ms', nothing)


def _differences(bed: Bed, pairs: int, without: Callable[[], AbstractContextManager]) -> list[float]:
    """Return milliseconds. The comparison comes before or after, by turns."""
    found = []
    for number in range(pairs + 10):
        times = {}
        for is_bare in (number % 2, not number % 2):
            with without() if is_bare else nullcontext():
                (site,) = bed.new_sites(1)
                start = time.perf_counter()
                bed.save([site])
                times[bool(is_bare)] = time.perf_counter() - start
        found.append((times[False] - times[True]) * 1000)
    # The first saves load and compile code.
    return found[10:]


def _interval(values: Sequence[float]) -> str:
    """It holds the true median with a probability of 95 % (binomial ranks)."""
    ordered, middle, half = sorted(values), len(values) / 2, 0.98 * math.sqrt(len(values))
    low, high = ordered[max(int(middle - half), 0)], ordered[min(int(middle + half), len(values) - 1)]
    return f' (95 %: {low:.2f} to {high:.2f})'


def _added(bed: Bed, what: str, model: type, save: Callable[[], None], count: int) -> Iterator[Row]:
    """Compare with a save without webhooks in the same turn."""
    added: dict[tuple[str, int], list[float]] = {variant: [] for variant in VARIANTS}
    bare = []
    # The first save loads and compiles code.
    for side, webhooks in VARIANTS[:3]:
        _time(bed, side, webhooks, model, save)
    for turn in range(bed.turns):
        # Change the order: the built-in leaves the servers busier than ours.
        order = VARIANTS[turn % len(VARIANTS) :] + VARIANTS[: turn % len(VARIANTS)]
        times = {variant: _time(bed, *variant, model, save) / count for variant in order}
        bare.append(times[NEITHER, 0])
        for variant in VARIANTS[1:]:
            added[variant].append(times[variant] - times[NEITHER, 0])
    yield Row(f'{what}: without webhooks', 'ms an object', bare)
    yield Row(f'{what}: added by 1 webhook', 'ms an object', added[OURS, 1], added[BUILTIN, 1])
    yield Row(f'{what}: added by 10 webhooks', 'ms an object', added[OURS, 10], added[BUILTIN, 10])


def _compared(bed: Bed, count: int) -> Iterator[Row]:
    """Updates, with and without `only_real_changes`. The turns of both sides are neighbours."""
    sides = {NEITHER: {}, 'every save': {'only_real_changes': False}, 'only real': {'only_real_changes': True}}
    for change, what in (('x', 'real update'), ('', 'save without a change')):
        objects = bed.new_devices(count)
        bed.save(objects)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(bed.turns + 1):
            names = list(sides)
            for name in names[turn % 3 :] + names[: turn % 3]:
                times[name].append(_time_updates(bed, objects, change, sides[name], is_bare=name == NEITHER) / count)
        # The first turn loads code.
        bare, every, real = (figures[1:] for figures in times.values())
        of = f'{what} of {count} Devices in one transaction'
        yield Row(f'{of}: without webhooks', 'ms an object', bare)
        for title, figures in (('each save', every), ('only_real_changes', real)):
            yield Row(f'{of}: added, {title}', 'ms an object', [a - b for a, b in zip(figures, bare, strict=True)])


def _time_updates(bed: Bed, objects: list[Device], change: str, fields: dict[str, bool], *, is_bare: bool) -> float:
    """Return milliseconds."""
    for one in objects:
        one.comments += change
    with bed.subscribed(NEITHER if is_bare else OURS, Device, **fields):
        start = time.perf_counter()
        bed.save(objects)
        return (time.perf_counter() - start) * 1000


def _added_to_deletion(bed: Bed) -> Iterator[Row]:
    what = f'deletion of a Device with {INTERFACES} interfaces'
    sides = (NEITHER, OURS, BUILTIN)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:
        _time_deletion(bed, side)
    for turn in range(bed.turns):
        for side in sides[turn % 3 :] + sides[: turn % 3]:
            times[side].append(_time_deletion(bed, side))
    with _without_events():
        bare = [_time_deletion(bed, NEITHER) for _ in range(bed.turns)]
    added = {side: [took - bare for took, bare in zip(times[side], times[NEITHER], strict=True)] for side in sides}
    prepared = [with_rule - without for with_rule, without in zip(times[BUILTIN], bare, strict=True)]
    yield Row(f'{what}: without webhooks', 'ms', times[NEITHER])
    yield Row(f'{what}: added by 1 webhook', 'ms', added[OURS], added[BUILTIN])
    yield Row(f'{what}: the same, and what NetBox prepares with and without a rule', 'ms', added[OURS], prepared)
    grown = {side: _grown_by_deletion(bed, side) for side in sides}
    yield Row(f'{what}, 1 webhook: memory', 'MB', [grown[OURS]], [grown[BUILTIN]])


def _time_deletion(bed: Bed, side: str) -> float:
    device = _device_with_interfaces(bed)
    return _time(bed, side, 1, (Device, Interface), lambda: bed.delete(device))


def _grown_by_deletion(bed: Bed, side: str) -> float:
    device = _device_with_interfaces(bed)
    with bed.subscribed(side, (Device, Interface)):
        return growth(lambda: bed.delete(device))


def _device_with_interfaces(bed: Bed) -> Device:
    (device,) = bed.new_devices(1)
    bed.save([device])
    bed.save([Interface(device=device, name=f'eth{number}', type='virtual') for number in range(INTERFACES)])
    return Device.objects.get(pk=device.pk)


def _imported(bed: Bed, count: int) -> Iterator[Row]:
    """Separate processes tell the memory apart."""
    seconds, grown = {}, {}
    for side in (NEITHER, OURS, BUILTIN):
        sites = bed.new_sites(count)
        with bed.subscribed(side, Site):
            start = time.perf_counter()
            grown[side] = growth(lambda sites=sites: bed.save(sites))
            seconds[side] = time.perf_counter() - start
    what = f'import of {count:,} Sites in one transaction'
    for figures, name, unit in ((seconds, 'time', 's'), (grown, 'memory', 'MB')):
        bare = figures[NEITHER]
        yield Row(f'{what}, without webhooks: {name}', unit, [bare])
        yield Row(f'{what}, added by 1 webhook: {name}', unit, [figures[OURS] - bare], [figures[BUILTIN] - bare])


def _time(bed: Bed, side: str, webhooks: int, model: Models, save: Callable[[], None]) -> float:
    """Return milliseconds."""
    with bed.subscribed(side, model, webhooks):
        start = time.perf_counter()
        save()
        return (time.perf_counter() - start) * 1000


@contextmanager
def _disconnected() -> Iterator[None]:
    """As if webhooks were not enabled."""
    for signal in (pre_save, post_save, pre_delete, post_delete):
        signal.disconnect(sender=Site, dispatch_uid=f'webhooks.{Site._meta.label_lower}')
    try:
        yield
    finally:
        signals.connect()


@contextmanager
def _without_events() -> Iterator[None]:
    """NetBox serializes objects for event rules, even without any rule."""
    with patch('core.signals.enqueue_event'):
        yield


@contextmanager
def _without_rules() -> Iterator[None]:
    EventRule.objects.update(enabled=False)
    try:
        yield
    finally:
        EventRule.objects.update(enabled=True)
