"""A worker's speed and cost, and the effect of a dead endpoint."""

import subprocess
import sys
import time
from collections.abc import Iterator

from dcim.models import Device, Site

from benchmarks.processes import cpu, growth, wait_until_idle
from benchmarks.report import Row
from benchmarks.sides import BUILTIN, HOOK, OURS, Bed, dispatch_began
from devstack.receiver import Answer, Manner
from webhooks.choices import StatusChoices
from webhooks.engine.process import inline
from webhooks.models import Delivery, Webhook

SLOW, DEAD = '/slow', '/dead'
TIMEOUT = 120

LOOP = """
import sys, time, requests
url, count = sys.argv[1], int(sys.argv[2])
session, body = requests.Session(), b'{"data": "' + b'x' * 1000 + b'"}'
start = time.perf_counter()
for _ in range(count):
    session.post(url, data=body)
print(count / (time.perf_counter() - start))
"""


def measure(bed: Bed) -> Iterator[Row]:
    bed.receiver.answers(SLOW, Answer(200, delay=0.05))
    bed.receiver.answers(DEAD, Answer(manner=Manner.HANG))
    ours, builtin = (200, 20) if bed.quick else (2000, 100)
    turns = range(1 if bed.quick else 3)
    yield Row('limit: one requests.Session in a loop', 'a second', [_limit(bed, ours) for _ in turns])
    for what, path in (('instant endpoint', HOOK), ('endpoint that takes 50 ms', SLOW)):
        yield Row(
            f'sent by one rqworker, {what}',
            'a second',
            [_rate(bed, OURS, ours, path) for _ in turns],
            [_rate(bed, BUILTIN, builtin, path) for _ in turns],
        )
    with_option = [_rate(bed, OURS, ours, HOOK, latest_only=True) for _ in turns]
    yield Row('sent by one rqworker, instant endpoint, with `latest_only`, each object once', 'a second', with_option)
    objects, times = (20, 5) if bed.quick else (250, 40)
    yield Row(
        f'{times} waiting changes of each of {objects} objects, with `latest_only`, until the last are sent',
        's',
        [_time_of_latest(bed, objects, times) for _ in turns],
    )
    yield Row('share of the speed beside an endpoint that hangs', '', [_fairness(bed, ours)])
    yield Row('CPU of NetBox and worker for created Devices', 's for 1,000', [_cpu(bed, OURS)], [_cpu(bed, BUILTIN)])
    many = 1000 if bed.quick else 20000
    yield Row(f'growth of a worker that sends {many:,}', 'MB', [_growth(bed, many)])


def _limit(bed: Bed, count: int) -> float:
    answer = subprocess.run(
        [sys.executable, '-c', LOOP, bed.receiver.url('/limit'), str(count)], capture_output=True, text=True, check=True
    )
    return float(answer.stdout)


def _rate(bed: Bed, side: str, count: int, path: str, **fields: object) -> float:
    with bed.subscribed(side, Site, path=path):
        if fields:
            Webhook.objects.update(**fields)
        bed.save(bed.new_sites(count))
        with bed.worker():
            got = bed.receiver.wait_for(count, timeout=TIMEOUT)
        began = dispatch_began() if side == OURS else got[0].arrived
        return count / (got[count - 1].arrived - began)


def _time_of_latest(bed: Bed, objects: int, times: int) -> float:
    """Return seconds from the end of a pause, with everything dispatched, to the last request."""
    with bed.subscribed(OURS, Site):
        Webhook.objects.update(latest_only=True, paused=True)
        sites = bed.new_sites(objects)
        for _ in range(times):
            bed.save(sites)
        inline.run()
        Webhook.objects.update(paused=False)
        with bed.worker():
            got = bed.receiver.wait_for(objects, timeout=TIMEOUT)
        began = Delivery.objects.filter(status=StatusChoices.SUPERSEDED).order_by('finished_at').first().finished_at
        return got[-1].arrived - began.timestamp()


def _fairness(bed: Bed, count: int) -> float:
    """Return ten healthy webhooks' rate beside a dead one, as a share of their own."""
    with bed.subscribed(OURS, Site, 10):
        alone = _rate_of_ten(bed, count // 10)
    with bed.subscribed(OURS, Site, path=DEAD, timeout=2), bed.subscribed(OURS, Site, 10):
        return _rate_of_ten(bed, count // 10) / alone


def _rate_of_ten(bed: Bed, count: int) -> float:
    bed.save(bed.new_sites(count))
    with bed.worker():
        got = bed.receiver.wait_for(10 * count, lambda request: request.path == HOOK, timeout=TIMEOUT)
    return 10 * count / (got[-1].arrived - dispatch_began())


def _cpu(bed: Bed, side: str) -> float:
    """Return CPU seconds for 1,000 Devices, without start-up."""
    count = 20 if bed.quick else 1000 if side == OURS else 100
    with bed.subscribed(side, Device), bed.worker() as worker:
        wait_until_idle()
        before, ours_before = time.process_time(), cpu([worker.pid])
        bed.save(bed.new_devices(count))
        bed.receiver.wait_for(count, timeout=TIMEOUT)
        wait_until_idle()
        used = time.process_time() - before + cpu([worker.pid]) - ours_before
    return used * 1000 / count


def _growth(bed: Bed, count: int) -> float:
    """Return MB, after the first hundred deliveries."""
    with bed.subscribed(OURS, Site):
        bed.save(bed.new_sites(100))
        inline.run()
        for start in range(0, count, 1000):
            bed.save(bed.new_sites(min(1000, count - start)))
        return growth(_drain)


def _drain() -> None:
    while inline.run():
        pass
