"""What is to blame for the death of a suspect's process: what that had in hand, under a lease that still holds."""

import uuid
from datetime import timedelta

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.engine import (
    claim,
    claim_suspect,
    deliveries,
    dispatch_all,
    open_transaction,
    pass_event_leases,
    pass_leases,
    pass_retry_waits,
)
from webhooks.engine.blame import count_death
from webhooks.engine.death import DEATHS

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import backoff, event_claims, lanes, rescue
from webhooks.models import Delivery, Event, Webhook

pytestmark = pytest.mark.usefixtures('committed')

# Seconds that the wait after the first death lasts at least.
WAIT = timedelta(seconds=backoff.BACKOFF[0] * (1 - backoff.JITTER))


@pytest.fixture
def lease() -> uuid.UUID:
    """That of the process which has died."""
    return uuid.uuid4()


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(), Site)


@pytest.fixture
def held_delivery(webhook: Webhook, lease: uuid.UUID) -> int:
    site()
    dispatch_all()
    assert claim()
    pass_leases()
    rescue.rescue()
    return hold_delivery(lease)


def hold_delivery(lease: uuid.UUID) -> int:
    (held,) = claim_suspect(lease)
    return held.pk


@pytest.fixture
def held_event(webhook: Webhook, lease: uuid.UUID) -> int:
    site()
    with lanes.turn():
        event_claims.claim(uuid.uuid4(), 1)
    return hold_event(lease)


def hold_event(lease: uuid.UUID) -> int:
    pass_event_leases()
    with lanes.turn():
        (held,) = event_claims.claim_suspect(lease)
    return held.pk


def deaths_of_delivery(pk: int) -> int:
    return Delivery.objects.get(pk=pk).lapses - rescue.SUSPECT


def deaths_of_event(pk: int) -> int:
    return event_claims.deaths(Event.objects.get(pk=pk))


def test_a_delivery_is_tried_again_after_a_wait(held_delivery, lease):
    assert count_death(lease, 'signal 9')
    assert deaths_of_delivery(held_delivery) == 1
    assert Delivery.objects.get(pk=held_delivery).due_at >= lanes.now() + WAIT - timedelta(seconds=1)


def test_an_event_is_tried_again_after_a_wait_and_fails_at_once_after_the_last_death(held_event, lease, caplog):
    for deaths in range(1, DEATHS + 1):
        assert count_death(lease, 'signal 9')
        event = Event.objects.get(pk=held_event)
        assert event_claims.deaths(event) == deaths
        assert event_claims.is_given_up(event) == (event.lease_until <= lanes.now()) == (deaths == DEATHS)
        assert f'event={event.uuid} error="{event.error}"' in caplog.messages
        lease = uuid.uuid4()
        hold_event(lease)


def test_where_the_lease_has_run_out_nothing_is_counted(held_delivery, lease):
    pass_leases()
    assert count_death(lease, 'signal 9')
    assert deaths_of_delivery(held_delivery) == 0
    Delivery.objects.update(lease_until=lanes.now() + timedelta(minutes=1))
    assert count_death(lease, 'signal 9')
    assert deaths_of_delivery(held_delivery) == 1


def test_where_the_lease_on_an_event_has_run_out_nothing_is_counted(held_event, lease):
    pass_event_leases()
    assert count_death(lease, 'signal 9')
    assert deaths_of_event(held_event) == 0


def test_where_the_lane_is_busy_it_is_counted_later_and_once(held_delivery, held_event, webhook, lease):
    with open_transaction(lambda: lanes.take([webhook.pk])):
        for _ in range(2):
            assert not count_death(lease, 'signal 9')
    assert (deaths_of_delivery(held_delivery), deaths_of_event(held_event)) == (0, 0)
    assert count_death(lease, 'signal 9')
    assert (deaths_of_delivery(held_delivery), deaths_of_event(held_event)) == (1, 1)


def test_what_others_hold_has_nothing_to_do_with_it(held_delivery, held_event):
    assert count_death(uuid.uuid4(), 'signal 9')
    assert (deaths_of_delivery(held_delivery), deaths_of_event(held_event)) == (0, 0)


def test_after_the_last_death_a_delivery_fails(held_delivery, lease):
    for _ in range(DEATHS):
        assert not deliveries(StatusChoices.FAILED)
        assert count_death(lease, 'signal 9')
        pass_retry_waits()
        if deaths_of_delivery(held_delivery) < DEATHS:
            hold_delivery(lease)
    (failed,) = deliveries(StatusChoices.FAILED)
    assert failed.error == 'its process died 3 times (signal 9)'
