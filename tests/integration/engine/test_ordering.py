from datetime import timedelta

import pytest
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    arrivals,
    deliveries,
    disorder,
    dispatch_all,
    expire,
    hold,
    pass_alive,
    pass_retry_waits,
    sequences,
    work,
    working,
)

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.engine.dispatch import claim
from webhooks.engine.registry import DISPATCH
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def changes(place: Site, count: int) -> None:
    """Each save is a transaction, and so its own event."""
    for _ in range(count):
        place.save()


def held() -> list[Delivery]:
    return deliveries(state=DeliveryState.HELD)


def statuses() -> list[str]:
    return [one.status for one in deliveries()]


class TestInOrder:
    def test_changes_of_an_object_arrive_in_order_although_many_go_at_a_time(self, webhook, receiver):
        changes(site(), 40)
        assert work() == '41 delivered'
        got = sequences(receiver.requests)
        assert got == sorted(got)

    def test_changes_of_many_objects_arrive_in_the_order_of_each(self, webhook, receiver):
        places = [site() for _ in range(8)]
        for _ in range(6):
            for place in places:
                place.save()
        assert work() == '56 delivered'
        assert disorder(arrivals(receiver)) == []

    def test_the_order_holds_from_one_dispatched_batch_to_the_next(self, webhook, receiver, monkeypatch):
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', 2)
        changes(site(), 9)
        assert work() == '10 delivered'
        got = sequences(receiver.requests)
        assert got == sorted(got)

    def test_the_order_holds_where_another_worker_dispatches_what_a_dead_one_had_in_hand(self, webhook, receiver):
        place = site()
        first = hold(Event.objects.get(), role=DISPATCH)
        changes(place, 2)
        site()
        dispatch_all()
        assert [one.object_id for one in deliveries()] == [place.pk + 1]
        first.end()
        assert work() == '4 delivered'
        assert disorder(arrivals(receiver)) == []

    def test_the_next_waits_while_one_is_retried(self, webhook, receiver):
        receiver.answers(HOOK, 500, 500, 200)
        changes(site(), 2)
        assert work() == '1 to retry'
        assert work() == 'nothing to send'
        pass_retry_waits(attempt_count__gt=0)
        assert work() == '1 to retry'
        pass_retry_waits(attempt_count__gt=0)
        assert work() == '3 delivered'
        first = sequences(receiver.requests)[0]
        assert sequences(receiver.requests)[:3] == [first] * 3
        assert disorder(arrivals(receiver)) == []

    def test_a_later_change_waits_for_the_retry_of_an_earlier_one(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        place = site()
        work()
        place.save()
        assert work() == 'nothing to send'
        pass_retry_waits(attempt_count__gt=0)
        assert work() == '2 delivered'
        assert disorder(arrivals(receiver)) == []

    def test_while_one_is_being_sent_the_next_waits(self, webhook, receiver):
        """Even if its worker is dead."""
        changes(site(), 1)
        dispatch_all()
        first, second = deliveries()
        hold(first)
        assert work() == 'nothing to send'
        pass_alive()
        assert work() == 'nothing to send'
        pass_retry_waits(pk=first.pk)
        work()
        assert statuses() == [DELIVERED, DELIVERED]
        assert sequences(receiver.requests) == [first.sequence, second.sequence]

    def test_a_delivery_in_hand_of_a_dead_worker_holds_no_other_object(self, webhook, receiver):
        place, other = site(), site()
        changes(place, 1)
        dispatch_all()
        hold(deliveries()[0])
        pass_alive()
        assert work() == '1 delivered'
        assert [pk for pk, _sequence in arrivals(receiver)] == [other.pk]

    def test_other_objects_do_not_wait(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        place = site()
        work()
        place.save()
        with transaction.atomic():
            others = {site().pk for _ in range(3)}
        assert work() == '3 delivered'
        assert {pk for pk, _sequence in arrivals(receiver)[1:]} == others

    def test_other_webhooks_do_not_wait(self, webhook, receiver):
        receiver.answers(HOOK, 500)
        subscribe(receiver.url('/well'), Site)
        changes(site(), 2)
        assert work() == '3 delivered, 1 to retry'
        assert [request.path for request in receiver.requests].count('/well') == 3

    def test_where_order_is_switched_off_nothing_waits(self, receiver):
        subscribe(receiver.url(HOOK), Site, ordered=False)
        receiver.answers(HOOK, 500, 200)
        changes(site(), 2)
        assert work() == '2 delivered, 1 to retry'
        assert not held()

    def test_held_deliveries_are_sent_when_order_is_switched_off(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        changes(site(), 2)
        assert work() == '1 to retry'
        assert len(held()) == 2
        webhook.ordered = False
        webhook.save()
        assert tidy.step()
        # The first is tried again at once: the webhook was saved.
        assert work() == '3 delivered'
        assert statuses() == [DELIVERED, DELIVERED, DELIVERED]


class TestItGoesOn:
    def test_the_line_goes_on_after_a_failure_for_good(self, receiver):
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        receiver.answers(HOOK, 500, 200)
        changes(site(), 2)
        assert work() == '2 delivered, 1 failed'
        assert statuses() == [FAILED, DELIVERED, DELIVERED]

    def test_the_line_goes_on_after_a_delivery_expired(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        changes(site(), 2)
        work()
        expire(attempt_count=1)
        assert work() == '2 delivered'
        assert statuses() == [FAILED, DELIVERED, DELIVERED]

    def test_the_line_goes_on_after_a_delivery_could_not_be_built(self, receiver):
        template = "{{ '{}' if data.description else data.missing.key }}"
        subscribe(receiver.url(HOOK), Site, body_template=template)
        place = site()
        place.description = 'x'
        place.save()
        assert work() == '1 delivered, 1 failed'
        assert statuses() == [FAILED, DELIVERED]

    def test_nothing_is_left_of_the_line(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        changes(site(), 3)
        work()
        assert held()
        pass_retry_waits(attempt_count__gt=0)
        work()
        assert not held()

    def test_the_line_goes_on_where_the_middle_delivery_expires(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        changes(site(), 2)
        work()
        first, second, third = deliveries()
        Delivery.objects.filter(pk=second.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        assert work() == 'nothing to send'
        pass_retry_waits(attempt_count__gt=0)
        work()
        assert statuses() == [DELIVERED, FAILED, DELIVERED]
        assert sequences(receiver.requests) == [first.sequence, first.sequence, third.sequence]

    def test_webhook_and_line_may_be_deleted_together(self, webhook, receiver):
        receiver.answers(HOOK, 500)
        changes(site(), 2)
        work()
        webhook.delete()
        assert work() == 'nothing to send'


def test_changes_that_waited_for_a_paused_webhook_go_in_order(webhook, receiver):
    webhook.paused = True
    webhook.save()
    changes(site(), 2)
    work()
    assert statuses() == [PENDING] * 3
    webhook.paused = False
    webhook.save()
    assert work() == '3 delivered'
    assert disorder(arrivals(receiver)) == []


def test_they_go_one_after_the_other_where_all_are_due(webhook, receiver):
    receiver.answers(HOOK, 500)
    changes(site(), 2)
    work()
    Delivery.objects.update(due_at=timezone.now())
    receiver.clear()
    receiver.answers(HOOK, 200)
    assert work() == '3 delivered'
    assert sequences(receiver.requests) == [one.sequence for one in deliveries()]


def test_one_that_is_sent_while_an_earlier_one_is_opened_again_is_followed_by_it(receiver):
    """A request under way cannot be called back: the third delivery waits for both."""
    subscribe(receiver.url(HOOK), Site, max_attempts=1)
    receiver.answers(HOOK, 500, Answer(delay=150), 200)
    place = site()
    work()
    (failed,) = deliveries(FAILED)
    changes(place, 2)
    with working():
        receiver.wait_for(2, timeout=60)
        assert redelivery.redeliver(Delivery.objects.filter(pk=failed.pk)) == 1
        receiver.closing.set()
    work()
    _first, second, third = deliveries()
    assert statuses() == [DELIVERED] * 3
    told = sequences(receiver.requests)
    assert told[1] == second.sequence
    assert told.index(third.sequence) == len(told) - 1
    assert not held()


class TestRedelivery:
    def test_untried_later_changes_wait_for_a_redelivered_one(self, webhook, receiver):
        receiver.answers(HOOK, 410, 200)
        place = site()
        work()
        Delivery.objects.update(state=FAILED, due_at=None)
        webhook.refresh_from_db()
        webhook.enabled, webhook.paused = True, True
        webhook.save()
        changes(place, 2)
        dispatch_all()
        assert redelivery.redeliver(Delivery.objects.filter(status=FAILED)) == 1
        webhook.paused = False
        webhook.save()
        receiver.clear()
        assert work() == '3 delivered'
        got = sequences(receiver.requests)
        assert got == sorted(got)

    def test_it_waits_for_what_is_before_it(self, receiver):
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        receiver.answers(HOOK, 500)
        changes(site(), 2)
        work()
        assert statuses() == [FAILED] * 3
        receiver.clear()
        receiver.answers(HOOK, 200)
        assert redelivery.redeliver(Delivery.objects.all()) == 3
        assert work() == '3 delivered'
        got = sequences(receiver.requests)
        assert len(got) == 3
        assert got == sorted(got)

    def test_many_deliveries_of_one_object_are_redelivered_at_once_in_order(self, webhook, receiver):
        changes(site(), 20)
        work()
        receiver.clear()
        assert redelivery.redeliver(Delivery.objects.all()) == 21
        assert work() == '21 delivered'
        got = sequences(receiver.requests)
        assert got == sorted(got)


def test_a_test_under_way_holds_up_no_change(webhook, receiver):
    place = site()
    work()
    trial._make_test(webhook, None)
    place.save()
    assert work() == '1 delivered'
