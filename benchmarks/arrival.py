"""From the save's answer to the arrival, with an idle worker."""

import time
from collections.abc import Iterator
from itertools import pairwise

from dcim.models import Site

from benchmarks.report import Row, percentile
from benchmarks.sides import BUILTIN, OURS, Bed
from devstack.process import wait_until
from webhooks.models import Attempt

# The steps of ours, each from the end of the one before.
STEPS = (
    'the wake-up by Redis, then the dispatcher: take, render, match',
    'its commit, the poke, a turn of the sender, the build',
    'the request, until it has arrived',
)


def measure(bed: Bed) -> Iterator[Row]:
    ours, builtin = _delays(bed, OURS), _delays(bed, BUILTIN)
    for name, share in (('p50', 0.5), ('p95', 0.95)):
        sides = [[percentile([sum(one) for one in side], share)] for side in (ours, builtin)]
        yield Row(f'answer to arrival, {name}', 'ms', *sides)
    for what, step in zip(STEPS, zip(*ours, strict=True), strict=True):
        yield Row(f'of that: {what}, p50', 'ms', [percentile(step, 0.5)])


def _delays(bed: Bed, side: str) -> list[list[float]]:
    """Return the milliseconds of each step. Skip the first save."""
    count = 4 if bed.quick else 40
    with bed.subscribed(side, Site), bed.worker():
        return [_delay(bed, side, number) for number in range(1, count + 2)][1:]


def _delay(bed: Bed, side: str, number: int) -> list[float]:
    bed.save(bed.new_sites(1))
    moments = [time.time()]
    arrived = bed.receiver.wait_for(number, timeout=120)[number - 1].arrived
    if side == OURS:
        moments += _moments(number)
    moments.append(arrived)
    return [(later - earlier) * 1000 for earlier, later in pairwise(moments)]


def _moments(number: int) -> list[float]:
    """Return when the dispatcher wrote the last delivery, and when its request began, as unix seconds."""
    wait_until(lambda: Attempt.objects.count() == number, timeout=120)
    attempt = Attempt.objects.select_related('delivery').latest('pk')
    return [attempt.delivery.created.timestamp(), attempt.started_at.timestamp()]
