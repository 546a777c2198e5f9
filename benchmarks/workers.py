"""What more workers bring: deliveries a second, and what one costs them and PostgreSQL."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dcim.models import Site
from django.db import connection
from django_rq import get_queue
from rq import Worker

from benchmarks.report import Row
from benchmarks.sides import HOOK, OURS, Bed, dispatch_began
from devstack.process import wait_until
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
    share, numbers = (10, (1, 2)) if bed.quick else (1, (1, 2, 4))
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
    """Return deliveries a second, and seconds of CPU for each: of the workers, and of PostgreSQL."""
    count = load.webhooks * load.sites
    with bed.subscribed(OURS, Site, load.webhooks, path=load.path), ExitStack() as stack:
        workers = [stack.enter_context(bed.worker()).pid for _ in range(number)]
        _wait_until_idle(number)
        before = [_cpu(workers), _cpu([_postmaster()])]
        bed.save(bed.new_sites(load.sites))
        got = bed.receiver.wait_for(count, timeout=TIMEOUT)
        rate = count / (got[count - 1].arrived - dispatch_began())
        _wait_until_idle(number)
        used = [_cpu(workers) - before[0], _cpu([_postmaster()]) - before[1]]
    return rate, used[0] / count, used[1] / count


def _wait_until_idle(number: int) -> None:
    def idle() -> bool:
        workers = Worker.all(connection=get_queue('low').connection)
        return [worker.get_state() for worker in workers].count('idle') >= number

    if not wait_until(idle, timeout=120):
        raise TimeoutError('the workers did not become idle')


def _postmaster() -> int:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_backend_pid()')
        return _parent(cursor.fetchone()[0])


def _cpu(pids: Sequence[int]) -> float:
    """Return the CPU seconds of processes, of their children that have ended, and of all that descend from them."""
    children: dict[int, list[int]] = {}
    for folder in Path('/proc').iterdir():
        if folder.name.isdecimal() and (pid := int(folder.name)):
            children.setdefault(_parent(pid), []).append(pid)
    todo, ticks = list(pids), 0
    while todo:
        pid = todo.pop()
        ticks += sum(map(int, _stat(pid)[11:15]))
        todo += children.get(pid, [])
    return ticks / os.sysconf('SC_CLK_TCK')


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """Return the fields of a process after its name, zeros where it has just ended."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except FileNotFoundError:
        return ['0'] * 50
