"""`rate_limit` is held across all workers: a token bucket beside the webhook, which the claim empties."""

import uuid
from datetime import timedelta

import pytest
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from support import engine
from support.builders import site, subscribe
from support.engine import deliveries, dispatch_all, in_thread, work
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import claims, lanes
from webhooks.engine.claims import is_claimable
from webhooks.models import Delivery, Health, Webhook

pytestmark = pytest.mark.usefixtures('committed')

RATE = 50
# It holds a fifth of a second.
BUCKET = RATE // 5


def limited(receiver: Receiver, rate: int = RATE) -> Webhook:
    """A webhook with more to send than its bucket holds, and no limit but the rate."""
    webhook = subscribe(receiver.url('/limited'), Site, rate_limit=rate, concurrency=100)
    with transaction.atomic():
        for _ in range(30):
            site()
    dispatch_all()
    return webhook


def claim() -> int:
    """Claim what there is in one instant, as a worker of its own."""
    return len(engine.claim(limit=100))


def fill(webhook: Webhook, seconds: float) -> None:
    """As if the bucket had been empty so many seconds ago."""
    Health.objects.filter(webhook=webhook).update(tokens=0, tokens_at=timezone.now() - timedelta(seconds=seconds))


def stop_the_clock(webhook: Webhook) -> None:
    """No token comes while the test looks."""
    Health.objects.filter(webhook=webhook).update(tokens=-60 * RATE)


def test_at_first_a_bucketful_goes(receiver):
    limited(receiver)
    assert claim() == BUCKET


def test_an_empty_bucket_lets_nothing_go(receiver):
    webhook = limited(receiver)
    claim()
    stop_the_clock(webhook)
    assert claim() == 0
    assert is_claimable(lanes.now())


@pytest.mark.parametrize(('seconds', 'expected'), [(0.1, RATE // 10), (0.2, BUCKET), (3600, BUCKET)])
def test_a_bucket_fills_with_time_and_not_beyond_its_brim(receiver, seconds, expected):
    webhook = limited(receiver)
    fill(webhook, seconds)
    # The clock goes on between the two statements.
    assert expected <= claim() <= BUCKET


def test_a_clock_that_was_an_hour_ahead_holds_nothing(receiver):
    fill(webhook := limited(receiver), -3600)
    assert claim() == BUCKET
    stop_the_clock(webhook)
    assert claim() == 0


def test_a_turn_that_began_long_before_another_one_has_spent_finds_no_other_bucketful(receiver):
    """A worker that was frozen before it took the lane, for less time than PostgreSQL bears."""
    webhook = limited(receiver)
    Delivery.objects.update(due_at=timezone.now() - timedelta(hours=1))
    assert claim() == BUCKET
    stop_the_clock(webhook)
    with lanes.turn() as now:
        assert not claims.claim(uuid.uuid4(), (), 100, now - timedelta(seconds=4)).held
    fill(webhook, 3600)
    assert claim() == BUCKET


def test_what_goes_is_taken_out(receiver):
    webhook = limited(receiver)
    fill(webhook, 3600)
    claim()
    assert Health.objects.get(webhook=webhook).tokens < 1


def test_a_slow_rate_lets_one_go_at_a_time(receiver):
    webhook = limited(receiver, rate=1)
    fill(webhook, 3600)
    assert claim() == 1
    stop_the_clock(webhook)
    assert claim() == 0


def test_without_a_limit_nothing_holds(receiver):
    subscribe(receiver.url('/free'), Site, concurrency=20)
    with transaction.atomic():
        for _ in range(30):
            site()
    dispatch_all()
    assert claim() == 20
    assert not is_claimable(lanes.now())


def test_where_only_concurrency_holds_the_rate_does_not(receiver):
    """Nobody needs to wait for tokens then: who uses the slots goes on when they are free."""
    subscribe(receiver.url('/limited'), Site, rate_limit=RATE, concurrency=1)
    with transaction.atomic():
        for _ in range(3):
            site()
    dispatch_all()
    assert claim() == 1
    assert not is_claimable(lanes.now())


def test_another_webhook_is_not_held(receiver):
    webhook = limited(receiver)
    claim()
    stop_the_clock(webhook)
    subscribe(receiver.url('/free'), Tenant)
    Tenant.objects.create(name='Tenant', slug='tenant')
    dispatch_all()
    assert claim() == 1


def test_a_job_waits_for_tokens_and_sends_everything(receiver):
    limited(receiver)
    assert work() == '30 delivered'


def test_two_workers_share_the_rate(receiver):
    """How long it took is on the receiver's clock: what came first came out of the bucket, the rest at the rate.

    The first request takes longer to arrive than the others. Without sharing it would be half the time and less.
    """
    limited(receiver)
    threads = [in_thread(work) for _ in range(2)]
    for thread in threads:
        thread.join(60)
    assert len(deliveries(StatusChoices.DELIVERED)) == 30
    moments = sorted(request.arrived for request in receiver.requests)
    assert moments[-1] - moments[0] >= 2 / 3 * (30 - BUCKET - 1) / RATE
