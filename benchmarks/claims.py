"""A look at a long queue."""

import time
from collections.abc import Iterator
from datetime import timedelta

from dcim.models import Site
from django.db import transaction
from django.utils import timezone

from benchmarks import copies
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from webhooks.engine.deliver import lanes, queue
from webhooks.engine.deliver.lane import BEGINNING, Lane
from webhooks.engine.process import inline
from webhooks.models import Delivery, Health, Webhook

SUSPENDED = 'due, of a suspended webhook'
# Copies of a finished delivery.
KINDS = {
    'due, of many objects': {'object_id': 'n', 'due_at': 'now()'},
    'waiting for one object': {'object_id': '1', 'due_at': 'NULL'},
    'waiting for a retry': {'object_id': 'n', 'due_at': "now() + interval '1 hour'"},
    SUSPENDED: {'object_id': 'n', 'due_at': 'now()'},
}


def measure(bed: Bed) -> Iterator[Row]:
    few, many = (100, 1000) if bed.quick else (1000, 1_000_000)
    with bed.subscribed(OURS, Site):
        for what in KINDS:
            short, long = _claim(bed, few, what), _claim(bed, many, what)
            yield Row(f'claim among {many:,} {what}, of that among {few:,}', '', [long / short])


def _claim(bed: Bed, count: int, what: str) -> float:
    """Return milliseconds: the median of several claims, each undone."""
    bed.reset()
    bed.save(bed.new_sites(1))
    inline.run()
    waiting = {'status': "'pending'", 'attempt_count': '0', 'finished_at': 'NULL', 'sequence': 'n'}
    copies.make(Delivery, count, uuid='gen_random_uuid()', **waiting, **KINDS[what])
    suspended = {'suspended_since': timezone.now(), 'probe_at': timezone.now() + timedelta(days=1)}
    Health.objects.update(**suspended if what == SUSPENDED else dict.fromkeys(suspended))
    times = sorted(_time_of_look() for _ in range(9))
    return times[4]


def _time_of_look() -> float:
    """Return milliseconds."""
    now = timezone.now()
    with transaction.atomic():
        webhooks = list(Webhook.objects.values_list('pk', flat=True))
        start = time.perf_counter()
        lanes.take(0, BEGINNING, 1, now, given=())
        owned = [Lane(pk, used_at=0.0, state=state) for pk, state in lanes.read_states(webhooks, now).items()]
        if requests := [request for lane in owned for request in lane.read_requests(everything=True)]:
            queue.read(requests, (), now)
        taken = time.perf_counter() - start
        transaction.set_rollback(True)
    return taken * 1000
