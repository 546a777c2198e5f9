import time

import pytest
from dcim.models import Site
from django.db import transaction
from support.builders import site, subscribe
from support.engine import deliveries, dispatch_all, in_thread, work
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.models import Webhook

pytestmark = pytest.mark.usefixtures('committed')

RATE, COUNT = 20, 40
# A fifth of a second fills it.
BUCKET = RATE // 5


def limited(receiver: Receiver, rate: int = RATE, count: int = COUNT) -> Webhook:
    webhook = subscribe(receiver.url('/limited'), Site, rate_limit=rate, concurrency=100)
    with transaction.atomic():
        for _ in range(count):
            site()
    dispatch_all()
    return webhook


def took(receiver: Receiver) -> float:
    """Return the seconds from first to last request, on the receiver's clock.

    The first request takes longer to arrive.
    """
    moments = sorted(request.arrived for request in receiver.matching(lambda request: request.path == '/limited'))
    return moments[-1] - moments[0]


def test_a_job_waits_for_tokens_and_sends_everything(receiver):
    limited(receiver)
    assert work() == f'{COUNT} delivered'
    assert took(receiver) >= 2 / 3 * (COUNT - BUCKET - 1) / RATE


def test_a_slow_rate_lets_one_go_at_a_time(receiver):
    limited(receiver, rate=1, count=3)
    began = time.time()
    assert work() == '3 delivered'
    assert max(request.arrived for request in receiver.requests) >= began + 1.9


def test_two_workers_keep_the_rate(receiver):
    limited(receiver)
    threads = [in_thread(work) for _ in range(2)]
    for thread in threads:
        thread.join(60)
    assert len(deliveries(StatusChoices.DELIVERED)) == COUNT
    assert took(receiver) >= 2 / 3 * (COUNT - BUCKET - 1) / RATE


def test_another_webhook_is_not_held(receiver):
    limited(receiver, rate=1, count=3)
    subscribe(receiver.url('/free'), Tenant)
    with transaction.atomic():
        for number in range(10):
            Tenant.objects.create(name=f'Tenant {number}', slug=f'tenant-{number}')
    work()
    arrived = [request.path for request in sorted(receiver.requests, key=lambda request: request.arrived)]
    assert arrived[-1] == '/limited'
