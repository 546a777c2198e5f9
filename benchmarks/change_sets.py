"""A large transaction, as single requests and as a change set."""

from collections.abc import Iterator
from typing import NamedTuple

from dcim.models import Site

from benchmarks.processes import peak
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed, dispatch_began

TIMEOUT = 1200


class Sent(NamedTuple):
    """`seconds` run from the first dispatch to the last arrival. `peak` (MB) is the worker's largest process."""

    seconds: float
    requests: int
    peak: float


def measure(bed: Bed) -> Iterator[Row]:
    count = 1000 if bed.quick else 10_000
    sites = f'{count:,} Sites of one transaction'
    each, together = _send(bed, count), _send(bed, count, change_set=True)
    yield Row(f'{sites}, a request each, from the first dispatch to the last arrival', 's', [each.seconds])
    yield Row(f'{sites}, as a change set', 's', [together.seconds])
    yield Row('a change set, of the time of a request each', '', [together.seconds / each.seconds])
    yield Row('parts of the change set', '', [together.requests])
    yield Row('peak of a process of the worker, a request each', 'MB', [each.peak])
    yield Row('peak of a process of the worker, as a change set', 'MB', [together.peak])


def _send(bed: Bed, count: int, **fields: bool) -> Sent:
    with bed.subscribed(OURS, Site, **fields):
        bed.save(bed.new_sites(count))
        with bed.worker() as worker:
            first = bed.receiver.wait_for(1, timeout=TIMEOUT)[0].json()
            got = bed.receiver.wait_for(first.get('parts', count), timeout=TIMEOUT)
            most = peak(worker.pid)
        return Sent(max(request.arrived for request in got) - dispatch_began(), len(got), most)
