"""The gain from more workers."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from dcim.models import Site

from benchmarks.processes import cpu, postmaster, wait_until_idle
from benchmarks.report import Row
from benchmarks.sides import HOOK, OURS, Bed, dispatch_began
from devstack.receiver import Answer

SLOW = '/slow'
TIMEOUT = 300


@dataclass(frozen=True)
class Load:
    what: str
    path: str
    webhooks: int
    sites: int


def measure(bed: Bed) -> Iterator[Row]:
    bed.receiver.answers(SLOW, Answer(200, delay=0.2))
    share, numbers = (10, (1, 2)) if bed.quick else (1, (1, 2, 4, 8))
    loads = (
        Load('an endpoint that costs nothing', HOOK, 10, 1000 // share),
        Load('an endpoint that takes 200 ms', SLOW, 12, 300 // share),
    )
    for load in loads:
        turns = range(1 if bed.quick else 3)
        found = {number: [_run(bed, load, number) for _ in turns] for number in numbers}
        yield Row(f'sent by one worker, {load.what}', 'a second', [rate for rate, *_ in found[1]])
        for number in numbers[1:]:
            for position, what in enumerate(('rate', 'CPU of the workers a delivery', "PostgreSQL's CPU a delivery")):
                ratios = [many[position] / one[position] for many, one in zip(found[number], found[1], strict=True)]
                yield Row(f'{number} workers, of one, {load.what}: {what}', '', ratios)


def _run(bed: Bed, load: Load, number: int) -> tuple[float, float, float]:
    """Return deliveries a second, and CPU seconds per delivery: of the workers, and of PostgreSQL."""
    count = load.webhooks * load.sites
    with bed.subscribed(OURS, Site, load.webhooks, path=load.path), ExitStack() as stack:
        workers = [stack.enter_context(bed.worker()).pid for _ in range(number)]
        wait_until_idle(number)
        before = [cpu(workers), cpu([postmaster()])]
        bed.save(bed.new_sites(load.sites))
        got = bed.receiver.wait_for(count, timeout=TIMEOUT)
        rate = count / (got[count - 1].arrived - dispatch_began())
        wait_until_idle(number)
        used = [cpu(workers) - before[0], cpu([postmaster()]) - before[1]]
    return rate, used[0] / count, used[1] / count
