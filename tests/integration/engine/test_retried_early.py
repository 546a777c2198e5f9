"""When an endpoint is well again, or somebody has saved its webhook, nothing waits for its retry."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    arrivals,
    deliveries,
    die,
    disorder,
    dispatch_all,
    health,
    pass_probe_interval,
    pass_retry_waits,
    sender,
    take_turns,
    work,
)

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.deliver import queue
from webhooks.engine.deliver.circuit_breaker import REFUSED_TOO_LONG, SUSPEND_AFTER_ATTEMPTS
from webhooks.models import Delivery, Health, Webhook
from webhooks.services import feed, send_waiting, trial

pytestmark = pytest.mark.usefixtures('committed')

PENDING, DELIVERED = StatusChoices.PENDING, StatusChoices.DELIVERED
HOOK, MOVED = '/hook', '/moved'
TRIED = 4
HOUR = timedelta(hours=1)


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def put_off() -> datetime:
    """Let the next attempts be an hour away, as after several ones."""
    later = timezone.now() + HOUR
    Delivery.objects.filter(status=PENDING, attempt_count__gt=0).update(due_at=later)
    return later


def put_off_one_by_one() -> None:
    """Let the next attempts be an hour away, each at another time, as if they had failed one after another."""
    put_off()
    for number, one in enumerate(deliveries(PENDING, attempt_count__gt=0)):
        Delivery.objects.filter(pk=one.pk).update(due_at=one.due_at + timedelta(seconds=number))


def refuse_for_long(webhook: Webhook) -> None:
    Health.objects.filter(webhook=webhook).update(refused_since=timezone.now() - REFUSED_TOO_LONG)


def save(webhook: Webhook, **fields: object) -> None:
    saved = Webhook.objects.get(pk=webhook.pk)
    for name, value in fields.items():
        setattr(saved, name, value)
    saved.save()


@pytest.fixture
def tried(webhook: Webhook, receiver: Receiver) -> list[Site]:
    """Sites whose first change was refused. Their second one waits behind it."""
    receiver.answers(HOOK, 500)
    places = [site() for _ in range(TRIED)]
    work()
    for place in places:
        place.save()
    work()
    assert [one.attempt_count for one in deliveries(PENDING)].count(1) == TRIED
    return places


@pytest.fixture
def portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than what was tried is made due at once."""
    monkeypatch.setattr(queue, 'MAX_RETRIED', 2)
    monkeypatch.setattr(queue, 'MIN_RETRIED_PER_LANE', 2)


@pytest.fixture
def suspended(webhook: Webhook, tried: list[Site]) -> Webhook:
    refuse_for_long(webhook)
    pass_retry_waits(attempt_count=1)
    work()
    assert health(webhook).suspended_since
    return webhook


class TestOutage:
    @pytest.mark.parametrize('status', [500, 429])
    def test_when_the_endpoint_accepts_a_request_all_go_at_once_and_in_order(self, suspended, receiver, status):
        Delivery.objects.filter(attempt_count__gt=0).update(response_status=status)
        put_off()
        receiver.answers(HOOK, 200)
        site()
        pass_probe_interval(suspended)
        so_far = len(receiver.requests)
        work()
        assert not deliveries(PENDING)
        assert len(receiver.requests) == so_far + 2 * TRIED + 1
        assert disorder(arrivals(receiver)[so_far:]) == []

    def test_without_a_new_change_one_of_what_was_tried_is_the_probe(self, webhook, tried, receiver):
        refuse_for_long(webhook)
        put_off()
        site()
        work()
        assert health(webhook).suspended_since
        receiver.answers(HOOK, 200)
        pass_probe_interval(webhook)
        work()
        assert not deliveries(PENDING)

    def test_a_delivery_that_the_endpoint_asked_to_wait_is_no_probe_before_its_time(self, webhook, receiver):
        receiver.answers(HOOK, Answer(429, headers={'Retry-After': '3000'}))
        for _ in range(TRIED):
            site()
        work()
        refuse_for_long(webhook)
        site()
        work()
        assert health(webhook).suspended_since
        so_far = len(receiver.requests)
        pass_probe_interval(webhook)
        assert work() == 'nothing to send'
        assert len(receiver.requests) == so_far

    def test_a_delivery_is_the_probe_after_a_503_that_asked_for_no_wait(self, webhook, receiver):
        """As load balancers answer while no server is there."""
        receiver.answers(HOOK, 503)
        site()
        for _ in range(SUSPEND_AFTER_ATTEMPTS):
            pass_retry_waits()
            work()
        assert health(webhook).suspended_since
        receiver.answers(HOOK, 200)
        pass_probe_interval(webhook)
        work()
        assert deliveries(DELIVERED)

    def test_a_change_set_is_a_probe_as_a_whole(self, receiver):
        """Each time its request says the same."""
        webhook = subscribe(receiver.url(HOOK), Site, change_set=True)
        receiver.answers(HOOK, 500)
        for _ in range(2):
            with transaction.atomic():
                site()
                site()
            work()
        refuse_for_long(webhook)
        pass_retry_waits()
        work()
        assert health(webhook).suspended_since
        put_off()
        with sql.transaction() as now:
            queue.let_probe([webhook.pk], now)
        pass_probe_interval(webhook)
        assert work() == '2 to retry'
        assert {len(request.json()['changes']) for request in receiver.requests} == {2}

    def test_the_one_whose_failure_ended_the_outage_waits_for_its_next_attempt(self, suspended, receiver):
        receiver.answers(HOOK, 404, 200)
        pass_probe_interval(suspended)
        work()
        (failed,) = deliveries(PENDING, response_status=404)
        assert failed.due_at > timezone.now()
        assert len(deliveries(DELIVERED)) == 2 * (TRIED - 1)

    def test_a_single_one_that_was_refused_for_long_goes_with_the_next_success(self, webhook, receiver):
        """The endpoint was not suspended: it may have been unable to digest this one."""
        receiver.answers(HOOK, 500, 200)
        site()
        work()
        refuse_for_long(webhook)
        put_off()
        site()
        work()
        assert len(deliveries(DELIVERED)) == 2

    def test_one_that_is_refused_between_successes_keeps_its_waits(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        site()
        work()
        later = put_off()
        site()
        work()
        assert [one.due_at for one in deliveries(PENDING)] == [later]
        assert len(deliveries(DELIVERED)) == 1

    def test_all_go_however_many_are_retried_at_once(self, suspended, receiver, portions):
        put_off_one_by_one()
        receiver.answers(HOOK, 200)
        site()
        pass_probe_interval(suspended)
        so_far = len(receiver.requests)
        work()
        assert not deliveries(PENDING)
        assert not health(suspended).suspended_since
        assert disorder(arrivals(receiver)[so_far:]) == []

    def test_while_some_are_left_the_next_success_makes_more_of_them_due(self, suspended, receiver, portions):
        """Also if the worker dies in between: the lane itself says that there are more."""
        put_off_one_by_one()
        receiver.answers(HOOK, 200)
        site()
        dispatch_all()
        pass_probe_interval(suspended)
        with sender() as (_pk, its):
            assert take_turns(its, lambda: deliveries(DELIVERED))
        left = health(suspended)
        assert left.suspended_since
        assert left.probe_at <= timezone.now()
        work()
        assert not deliveries(PENDING)
        assert not health(suspended).suspended_since

    def test_lanes_with_few_of_them_leave_their_share_to_others(self, webhook, tried, monkeypatch):
        monkeypatch.setattr(queue, 'MAX_RETRIED', 2 * TRIED)
        monkeypatch.setattr(queue, 'MIN_RETRIED_PER_LANE', 1)
        put_off_one_by_one()
        others = [subscribe('http://127.0.0.1:9/', Site) for _ in range(3)]
        with sql.transaction() as now:
            left = queue.retry([webhook.pk, *(one.pk for one in others)], now)
        assert not left
        assert all(one.due_at <= now for one in deliveries(PENDING, attempt_count__gt=0))

    def test_all_go_though_the_endpoint_was_not_suspended(self, webhook, tried, receiver, portions):
        """Its last refusal came before ten minutes of them were over."""
        refuse_for_long(webhook)
        put_off_one_by_one()
        receiver.answers(HOOK, 200)
        site()
        work()
        assert not deliveries(PENDING)
        assert not health(webhook).refused_since

    def test_one_that_fails_for_another_reason_in_between_does_not_go_for_ever(self, suspended, receiver, portions):
        put_off_one_by_one()
        receiver.answers(HOOK, 404)
        site()
        pass_probe_interval(suspended)
        work()
        assert not health(suspended).suspended_since
        assert all(one.attempt_count <= 1 + TRIED for one in deliveries(PENDING))


class TestSaved:
    def test_tried_deliveries_go_to_a_new_url_at_once_and_in_order(self, webhook, tried, receiver):
        put_off()
        assert work() == 'nothing to send'
        save(webhook, payload_url=receiver.url(MOVED))
        work()
        assert not deliveries(PENDING)
        found = arrivals(receiver, MOVED)
        assert (len(found), disorder(found)) == (2 * TRIED, [])

    def test_all_of_them_go_to_a_new_url_however_many_are_retried_at_once(self, webhook, tried, receiver, portions):
        put_off_one_by_one()
        save(webhook, payload_url=receiver.url(MOVED))
        work()
        assert not deliveries(PENDING)
        assert disorder(arrivals(receiver, MOVED)) == []

    def test_if_the_new_url_fails_too_nothing_is_tried_again_and_again(self, webhook, tried, receiver, portions):
        receiver.answers(MOVED, 500)
        put_off_one_by_one()
        save(webhook, payload_url=receiver.url(MOVED))
        work()
        assert all(one.attempt_count <= 2 for one in deliveries(PENDING))

    def test_it_is_tried_once_for_each_save(self, webhook, tried, receiver):
        receiver.answers(MOVED, 500)
        put_off()
        save(webhook, payload_url=receiver.url(MOVED))
        work()
        assert work() == 'nothing to send'
        assert len(arrivals(receiver, MOVED)) == TRIED
        assert all(one.due_at is None or one.due_at > timezone.now() for one in deliveries(PENDING))

    def test_while_a_worker_owns_the_lane_too(self, webhook, receiver):
        receiver.answers(HOOK, 500)
        site()
        dispatch_all()
        with sender() as (_pk, its):
            assert take_turns(its, lambda: deliveries(PENDING, attempt_count=1))
            put_off()
            save(webhook, payload_url=receiver.url(MOVED))
            assert take_turns(its, lambda: deliveries(DELIVERED))

    def test_waiting_deliveries_are_in_the_feed_once_the_url_is_blank(self, webhook, tried):
        put_off()
        save(webhook, payload_url='')
        work()
        blank = Webhook.objects.get(pk=webhook.pk)
        assert (deliveries(PENDING), feed.unread_of(blank)) == ([], 2 * TRIED)

    @pytest.mark.parametrize('status', [200, 500])
    def test_a_test_right_after_the_save_changes_nothing_of_that(self, webhook, tried, receiver, status):
        put_off()
        save(webhook, payload_url=receiver.url(MOVED))
        receiver.answers(MOVED, status, 200)
        trial.send_test(Webhook.objects.get(pk=webhook.pk))
        work()
        assert not deliveries(PENDING)
        assert disorder(arrivals(receiver, MOVED)[1:]) == []

    def test_a_test_without_a_save_sends_nothing_earlier(self, webhook, tried, receiver):
        later = put_off()
        receiver.answers(HOOK, 404)
        trial.send_test(Webhook.objects.get(pk=webhook.pk))
        assert work() == 'nothing to send'
        assert {one.due_at for one in deliveries(PENDING, attempt_count=1)} == {later}

    def test_while_it_is_paused_all_of_it_waits(self, webhook, tried, receiver):
        put_off()
        receiver.answers(HOOK, 200)
        save(webhook, paused=True)
        assert work() == 'nothing to send'
        save(webhook, paused=False)
        work()
        assert not deliveries(PENDING)

    @pytest.mark.parametrize(
        'hurry', [lambda webhook: save(webhook, description='mended'), send_waiting.send], ids=['saved', 'sent now']
    )
    def test_a_delivery_in_hand_of_a_stopped_worker_waits_until_its_request_has_ended(
        self, webhook, receiver, hurry: Callable[[Webhook], object]
    ):
        """That one may still arrive: then an earlier state would come last."""
        site()
        work()
        site()
        dispatch_all()
        die(*deliveries(PENDING))
        (stopped,) = deliveries(PENDING)
        assert stopped.due_at > timezone.now()
        hurry(webhook)
        work()
        assert [one.due_at for one in deliveries(PENDING)] == [stopped.due_at]
        pass_retry_waits()
        work()
        assert not deliveries(PENDING)
