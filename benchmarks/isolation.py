"""How long a change for an idle webhook takes to arrive, alone and beside what others do: the worst of twenty."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dcim.models import Site
from tenancy.models import Tenant

from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from devstack.receiver import Answer
from webhooks.models import Webhook

BUSY, IDLE = '/busy', '/idle'
# Runs until its time is up.
ENDLESS = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'


def measure(bed: Bed) -> Iterator[Row]:
    bed.receiver.answers(BUSY, Answer(200, delay=0.02))
    count = 3 if bed.quick else 20
    backlog = 100 if bed.quick else 2400
    slow = 5 if bed.quick else 200
    with bed.subscribed(OURS, Tenant, path=IDLE), bed.worker():
        alone = _worst(bed, count)
    yield _row('alone', alone)
    with _busy(bed, 10, backlog):
        yield _row(f'beside {10 * backlog:,} deliveries that wait for a healthy endpoint of 20 ms', _worst(bed, count))
    with _busy(bed, 1, slow, body_template=ENDLESS):
        yield _row(f'beside {slow} deliveries whose template takes its 2 s', _worst(bed, count))


def _row(what: str, worst: float) -> Row:
    return Row(f'a change for an idle webhook arrives, {what}', 'ms, worst', [worst])


@contextmanager
def _busy(bed: Bed, webhooks: int, count: int, **fields: object) -> Iterator[None]:
    """While the block lasts, a worker has `count` changes to send for each of other webhooks."""
    with bed.subscribed(OURS, Site, webhooks, path=BUSY), bed.subscribed(OURS, Tenant, path=IDLE):
        Webhook.objects.filter(object_types__model='site').update(**fields)
        bed.save(bed.new_sites(count))
        with bed.worker():
            if not fields:
                bed.receiver.wait_for(100, lambda request: request.path == BUSY, timeout=120)
            yield


def _worst(bed: Bed, count: int) -> float:
    """Return milliseconds. The first change is not counted: the worker starts with it."""
    return max([_delay(bed, number) for number in range(1, count + 2)][1:])


def _delay(bed: Bed, number: int) -> float:
    bed.save([Tenant(name=f'tenant {time.time_ns()}', slug=f'tenant-{time.time_ns()}')])
    saved = time.time()
    arrived = bed.receiver.wait_for(number, lambda request: request.path == IDLE, timeout=120)[number - 1].arrived
    return (arrived - saved) * 1000
