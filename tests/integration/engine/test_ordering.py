"""Deliveries of one object go out one after the other; different objects do not wait for each other."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    arrivals,
    change_settings,
    claim,
    deliveries,
    disorder,
    dispatch_all,
    expire,
    in_thread,
    pass_event_leases,
    pass_leases,
    pass_retry_waits,
    record,
    sequences,
    work,
)

from devstack.receiver import Receiver
from webhooks import rendering
from webhooks.choices import StatusChoices
from webhooks.engine import dispatch, event_claims, lanes, rescue, sql
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import redelivery
from webhooks.transport.exchange import Outcome

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED = StatusChoices.values()
HOOK = '/hook'
LONG = 3600


def come_back() -> None:
    """What a dead worker held is due again."""
    pass_leases()
    rescue.rescue()
    pass_retry_waits()


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def changes(place: Site, count: int) -> None:
    """Each in a transaction of its own, and so an event of its own."""
    for _ in range(count):
        place.save()


def parked() -> list[Delivery]:
    return deliveries(PENDING, due_at=None)


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
        monkeypatch.setattr(dispatch, 'BATCH', 2)
        changes(site(), 9)
        assert work() == '10 delivered'
        got = sequences(receiver.requests)
        assert got == sorted(got)

    def test_the_order_holds_where_another_worker_takes_over_the_first_while_both_are_rendered(
        self, webhook, receiver, monkeypatch
    ):
        """The lease has run out: rendering took longer, or the worker was frozen."""
        render, taken = rendering.render, []

        def take_over() -> None:
            pass_event_leases()
            with lanes.turn():
                taken.extend(event_claims.claim_suspect(uuid.uuid4()))

        def rendering_slowly(*args: Any) -> list:
            if not taken:
                in_thread(take_over).join(30)
            return render(*args)

        monkeypatch.setattr(rendering, 'render', rendering_slowly)
        changes(site(), 2)
        dispatch.dispatch(uuid.uuid4())
        assert (len(taken), deliveries()) == (1, [])
        pass_event_leases()  # of the one who has taken it over
        assert work() == '3 delivered'
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

    def test_what_comes_later_waits_as_well(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        place = site()
        work()
        place.save()
        assert work() == 'nothing to send'
        pass_retry_waits(attempt_count__gt=0)
        assert work() == '2 delivered'
        assert disorder(arrivals(receiver)) == []

    def test_while_one_is_being_sent_the_next_waits(self, webhook, receiver):
        """Also where the worker that sends it is dead."""
        changes(site(), 1)
        dispatch_all()
        first, second = deliveries()
        Delivery.objects.filter(pk=first.pk).update(
            status=SENDING, lease_until=timezone.now() + timedelta(hours=1), due_at=None
        )
        assert work() == 'nothing to send'
        come_back()
        assert work() == '2 delivered'
        assert sequences(receiver.requests) == [first.sequence, second.sequence]

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
        assert not parked()


class TestItGoesOn:
    """The next in line is sent when the one before it is closed, however that came."""

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
        assert parked()
        pass_retry_waits(attempt_count__gt=0)
        work()
        assert not parked()

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


class TestRepeatableRead:
    """The database's default, by which a transaction sees nothing of what others commit after its first statement."""

    @pytest.fixture(autouse=True)
    def default(self, committed: None, webhook: Webhook) -> Iterator[None]:
        sql.execute("SET default_transaction_isolation = 'repeatable read'")
        with transaction.atomic():
            before = Site.objects.count()
            in_thread(site).join()
            assert Site.objects.count() == before
        yield
        sql.execute('RESET default_transaction_isolation')

    def test_what_is_parked_during_a_turn_is_seen_by_it(self, webhook):
        Event.objects.all().delete()
        lease, place = uuid.uuid4(), site()
        dispatch_all()
        first = claim(lease)

        def park() -> None:
            place.save()
            dispatch_all()
            assert not claim()
            assert parked()

        with lanes.turn():
            in_thread(park).join()
            record(lease, first, Outcome(started_at=0, duration=0, status=200))
        assert statuses() == [DELIVERED, PENDING]
        assert not parked()

    def test_who_holds_a_lane_sees_what_was_done_under_it_before(self, webhook):
        with lanes.hold(webhook.pk):
            before = Site.objects.count()
            in_thread(site).join()
            assert Site.objects.count() == before + 1

    def test_a_transaction_of_somebody_else_stays_as_it_is(self, webhook):
        with transaction.atomic():
            before = Site.objects.count()
            with lanes.hold(webhook.pk), lanes.turn():
                in_thread(site).join()
                assert Site.objects.count() == before


class TestOrderWait:
    def test_the_next_is_due_when_it_is_over(self, webhook, receiver, monkeypatch):
        change_settings(monkeypatch, order_wait=LONG)
        receiver.answers(HOOK, 500)
        changes(site(), 1)
        before = timezone.now()
        work()
        _first, second = deliveries()
        wait = timedelta(seconds=LONG)
        assert before + wait <= second.due_at <= timezone.now() + wait

    def test_after_the_wait_a_delivery_goes_before_the_one_that_is_retried(self, webhook, receiver, monkeypatch):
        change_settings(monkeypatch, order_wait=0)
        receiver.answers(HOOK, 500, 200)
        changes(site(), 1)
        assert work() == '1 delivered, 1 to retry'
        assert statuses() == [PENDING, DELIVERED]

    def test_it_is_counted_from_the_first_failure(self, webhook, receiver, monkeypatch):
        change_settings(monkeypatch, order_wait=LONG)
        receiver.answers(HOOK, 500)
        changes(site(), 1)
        work()
        due = deliveries()[1].due_at
        pass_retry_waits(attempt_count__gt=0)
        work()
        assert deliveries()[1].due_at == due

    def test_before_the_first_attempt_nothing_is_counted(self, webhook, receiver, monkeypatch):
        """Waiting for a slot, a pause or a suspension is no retry."""
        change_settings(monkeypatch, order_wait=0)
        webhook.paused = True
        webhook.save()
        changes(site(), 2)
        work()
        assert statuses() == [PENDING] * 3
        webhook.paused = False
        webhook.save()
        assert work() == '3 delivered'
        assert disorder(arrivals(receiver)) == []

    def test_what_comes_while_it_is_retried_waits_as_long(self, webhook, receiver, monkeypatch):
        change_settings(monkeypatch, order_wait=LONG)
        receiver.answers(HOOK, 500)
        place = site()
        work()
        place.save()
        before = timezone.now()
        work()
        assert deliveries()[1].due_at >= before + timedelta(seconds=LONG - 60)

    def test_once_the_first_is_delivered_the_next_goes_at_once(self, webhook, receiver, monkeypatch):
        change_settings(monkeypatch, order_wait=LONG)
        receiver.answers(HOOK, 500, 200)
        changes(site(), 1)
        work()
        pass_retry_waits(attempt_count__gt=0)
        assert work() == '2 delivered'

    def test_a_delivery_that_went_first_and_failed_keeps_its_own_wait(self, webhook, receiver, monkeypatch):
        """Its retry is not brought forward by the success of the one that it no longer waits for."""
        change_settings(monkeypatch, order_wait=0)
        receiver.answers(HOOK, 500, 500, 200)
        changes(site(), 1)
        assert work() == '2 to retry'
        change_settings(monkeypatch, order_wait=LONG)
        first, second = deliveries()
        pass_retry_waits(pk=first.pk)
        assert work() == '1 delivered'
        second.refresh_from_db()
        assert second.status == PENDING
        assert second.due_at > timezone.now()


class TestOverdue:
    """`order_wait` is over and the earlier one is due itself, as after a long suspension."""

    @pytest.fixture
    def line(self, webhook, receiver, monkeypatch) -> list[Delivery]:
        """Three of one object; the first has failed once."""
        change_settings(monkeypatch, order_wait=LONG)
        receiver.answers(HOOK, 500)
        changes(site(), 2)
        work()
        receiver.clear()
        return deliveries()

    def test_they_go_one_after_the_other(self, line, receiver):
        pass_retry_waits()
        assert claim() == [line[0]]
        assert claim() == []
        receiver.answers(HOOK, 200)
        come_back()
        assert work() == '3 delivered'
        assert sequences(receiver.requests) == [one.sequence for one in line]

    def test_the_later_goes_if_the_earlier_fails_again(self, line, receiver):
        receiver.answers(HOOK, 500, 200)
        pass_retry_waits()
        assert work() == '2 delivered, 1 to retry'
        assert sequences(receiver.requests) == [one.sequence for one in line]

    def test_what_comes_after_one_that_went_first_does_not_go_beside_the_earlier(self, line, receiver):
        first, second, third = line
        receiver.answers(HOOK, 200)
        pass_retry_waits(pk=second.pk)
        lease = uuid.uuid4()
        claimed = claim(lease)
        assert claimed == [second]
        record(lease, claimed, Outcome(started_at=0, duration=0.1, status=200))
        pass_retry_waits(pk=first.pk)
        assert claim() == [first]
        assert claim() == []
        come_back()
        assert work() == '2 delivered'
        assert sequences(receiver.requests) == [first.sequence, third.sequence]
        assert not parked()

    def test_what_went_first_and_failed_goes_after_the_earlier_where_all_are_due(self, line, receiver):
        pass_retry_waits(pk=line[1].pk)
        assert work() == '2 to retry'
        receiver.clear()
        receiver.answers(HOOK, 200)
        pass_retry_waits()
        assert work() == '3 delivered'
        assert sequences(receiver.requests) == [one.sequence for one in line]
        assert not parked()


class TestRedelivery:
    def test_what_is_behind_and_untried_waits_for_it(self, webhook, receiver):
        receiver.answers(HOOK, 410, 200)
        place = site()
        work()
        Delivery.objects.update(status=FAILED, due_at=None)
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
