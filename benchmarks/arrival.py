"""From the save's answer to the arrival, with an idle worker."""

import time
from collections.abc import Iterator

from dcim.models import Site

from benchmarks.report import Row, percentile
from benchmarks.sides import BUILTIN, OURS, Bed


def measure(bed: Bed) -> Iterator[Row]:
    ours, builtin = _delays(bed, OURS), _delays(bed, BUILTIN)
    for name, share in (('p50', 0.5), ('p95', 0.95)):
        yield Row(f'answer to arrival, {name}', 'ms', [percentile(ours, share)], [percentile(builtin, share)])


def _delays(bed: Bed, side: str) -> list[float]:
    """Return milliseconds. Skip the first save."""
    count = 4 if bed.quick else 40
    with bed.subscribed(side, Site), bed.worker():
        return [_delay(bed, number) for number in range(1, count + 2)][1:]


def _delay(bed: Bed, number: int) -> float:
    bed.save(bed.new_sites(1))
    answered = time.time()
    return (bed.receiver.wait_for(number, timeout=120)[number - 1].arrived - answered) * 1000
