"""`scripts/tool python -m benchmarks.sizes` computes what loads need, from what docs/benchmarks.md says was measured.

It needs no NetBox. docs/operations.md shows the result.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MEASURED = Path(__file__).parents[1] / 'docs/benchmarks.md'
ROW = re.compile(r'^\| (each [^|]+?) \| ?\w* ?\| ([\d.,]+) \|', re.MULTILINE)

ENDPOINT_SECONDS = 0.1
# Days of the log, of which the first is the default.
KEPT_DAYS = (30, 3)


@dataclass(frozen=True)
class Costs:
    """Of each change, and of each delivery: ms of CPU, and bytes."""

    worker: tuple[float, float]
    postgres: tuple[float, float]
    wal: tuple[float, float]
    log: tuple[float, float]


@dataclass(frozen=True)
class Load:
    """`busiest`: changes a second in the busiest hour. `days`: how many there are of it; None: it goes on."""

    what: str
    changes_per_day: int
    busiest: float
    webhooks: int
    days: int | None = None


LOADS = (
    Load('200,000 changes a day, a tenth of them in one hour', 200_000, 20_000 / 3600, 3),
    Load('2 million changes a day, a tenth of them in one hour', 2_000_000, 200_000 / 3600, 3),
    Load('an import of a million objects, 100 a second', 1_000_000, 100, 3, days=1),
    Load('5,000 changes a minute, all day', 7_200_000, 5000 / 60, 3),
    Load('the same, with 10 webhooks', 7_200_000, 5000 / 60, 10),
)
HEAD = (
    'load',
    'deliveries a second',
    'cores of workers',
    'cores of PostgreSQL',
    'requests under way',
    'WAL a day',
    *(f'log of {days} days' for days in KEPT_DAYS),
)


def measured(text: str) -> Costs:
    """Read the costs from the page's tables."""
    found = {what: float(figure.replace(',', '')) for what, figure in ROW.findall(text)}

    def both(what: str) -> tuple[float, float]:
        return found[f'each change: {what}'], found[f'each delivery: {what}']

    of_change, of_delivery = both('WAL')
    return Costs(
        worker=both('CPU of the worker'),
        postgres=both('CPU of PostgreSQL'),
        wal=(of_change + found['each change: WAL of the save'], of_delivery),
        log=both('stored'),
    )


def table(costs: Costs) -> Iterator[str]:
    """Yield the lines of the table."""
    yield _line(HEAD)
    yield _line(['---'] * len(HEAD))
    for load in LOADS:
        yield _line(_cells(costs, load))


def _cells(costs: Costs, load: Load) -> Iterator[str]:
    def a_second(cost: tuple[float, float]) -> float:
        return load.busiest * (cost[0] + cost[1] * load.webhooks)

    def a_day(cost: tuple[float, float]) -> float:
        return load.changes_per_day * (cost[0] + cost[1] * load.webhooks)

    deliveries = load.busiest * load.webhooks
    yield load.what
    yield f'{deliveries:,.0f}'
    for milliseconds in (costs.worker, costs.postgres):
        yield f'{a_second(milliseconds) / 1000:.2g}'
    yield f'{math.ceil(deliveries * ENDPOINT_SECONDS):,}'
    yield _bytes(a_day(costs.wal))
    for days in KEPT_DAYS:
        yield _bytes(a_day(costs.log) * min(days, load.days or days))


def _bytes(number: float) -> str:
    return f'{number / 1e9:,.1f} GB' if number < 1e10 else f'{number / 1e9:,.0f} GB'


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


if __name__ == '__main__':
    print('\n'.join(table(measured(MEASURED.read_text()))))
