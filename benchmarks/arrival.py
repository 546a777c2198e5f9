"""From the save's answer to the arrival, with an idle worker."""

import time
from collections.abc import Iterator
from itertools import pairwise

from dcim.models import Site
from django_rq import get_queue
from rq.job import Job
from rq.registry import FinishedJobRegistry

from benchmarks.report import Row, percentile
from benchmarks.sides import BUILTIN, OURS, Bed
from devstack.process import wait_until
from webhooks.models import Attempt

# The steps of ours, each from the end of the one before.
STEPS = (
    'the wake-up, until the dispatcher has it from Redis',
    'the dispatcher, until it writes: take, render, match',
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
    began = time.time()
    bed.save(bed.new_sites(1))
    moments = [time.time()]
    arrived = bed.receiver.wait_for(number, timeout=120)[number - 1].arrived
    if side == OURS:
        moments += _moments(number, began)
    moments.append(arrived)
    return [(later - earlier) * 1000 for earlier, later in pairwise(moments)]


def _moments(number: int, began: float) -> list[float]:
    """Return when the job began that the save at `began` enqueued, when its delivery was made, and its request began.

    All are unix seconds.
    """
    wait_until(lambda: Attempt.objects.count() == number, timeout=120)
    attempt = Attempt.objects.select_related('delivery').latest('pk')
    while not ((job := _last_job()) and job.started_at.timestamp() > began):
        time.sleep(0.01)
    moments = (job.started_at, attempt.delivery.created, attempt.started_at)
    return [moment.timestamp() for moment in moments]


def _last_job() -> Job | None:
    queue = get_queue('low')
    found = FinishedJobRegistry(queue=queue).get_job_ids(start=-1)
    return queue.fetch_job(found[0]) if found else None
