"""Further tests of redelivery: engine/test_sending.py, test_ordering.py and test_batching.py."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
from dcim.models import Site
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    deliveries,
    die,
    dispatch_all,
    in_hand,
    in_thread,
    is_anybody_blocked,
    open_transaction,
    pass_retry_waits,
    sequences,
    work,
    working,
)
from support.others_code import at_each
from support.settings import change_settings

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import registry, rescue
from webhooks.engine.deliver import order
from webhooks.engine.registry import SEND
from webhooks.engine.tidy import retention
from webhooks.models import Delivery, Event, ListWalk, Webhook, Worker
from webhooks.outbox import redis_queue
from webhooks.services import failed_jobs, redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
PATIENCE = 60


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, max_attempts=1)


@pytest.fixture
def failed(webhook: Webhook, receiver: Receiver) -> Delivery:
    """Its endpoint works again."""
    receiver.answers(HOOK, 500, 200)
    site()
    work()
    (failed,) = deliveries(FAILED)
    receiver.clear()
    return failed


def redeliver(**filters: object) -> int:
    return redelivery.redeliver(Delivery.objects.filter(**filters))


class TestFailed:
    def test_a_worker_that_dies_with_it_loses_nothing(self, failed, receiver):
        redeliver()
        die(failed)
        pass_retry_waits()
        work()
        assert len(deliveries(DELIVERED)) == 1
        assert [request.header('webhook-id') for request in receiver.requests] == [str(failed.uuid)]

    def test_a_late_answer_from_before_does_not_close_it(self, failed, receiver):
        """A worker was taken for dead, and its request ends after the redelivery began."""
        receiver.answers(HOOK, Answer(delay=150), 500)
        redeliver()
        with working():
            receiver.wait_for(1, timeout=PATIENCE)
            assert wait_until(in_hand, timeout=PATIENCE)
            assert rescue.rescue(Worker.objects.get(role=SEND).name)
            Delivery.objects.update(state=FAILED, due_at=None)
            redeliver()
            Webhook.objects.update(paused=True)
            receiver.closing.set()
        assert [one.status for one in deliveries()] == [PENDING]

    def test_each_time_it_has_one_attempt_more(self, failed, receiver):
        """`max_attempts` does not limit it."""
        Webhook.objects.update(max_attempts=3)
        receiver.answers(HOOK, 500)
        for attempts in (2, 3, 4):
            redeliver()
            assert work() == '1 failed'
            assert [one.attempt_count for one in deliveries()] == [attempts]
        assert [attempt.number for attempt in failed.attempts.order_by('pk')] == [1, 2, 3, 4]

    def test_redelivering_twice_at_once_sends_once(self, failed, receiver):
        assert [redeliver(), redeliver()] == [1, 0]
        assert work() == '1 delivered'
        assert len(receiver.requests) == 1

    def test_while_it_is_sent_nothing_is_to_be_done(self, failed, receiver):
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        redeliver()
        with working():
            receiver.wait_for(1, timeout=PATIENCE)
            assert redeliver() == 0
            receiver.close()
        assert [(one.status, one.attempt_count) for one in deliveries()] == [(FAILED, 2)]


class TestDelivered:
    @pytest.fixture
    def place(self, webhook: Webhook, receiver: Receiver) -> Site:
        """It is paused, so new deliveries stay pending."""
        place = site()
        work()
        receiver.clear()
        Webhook.objects.update(paused=True, max_attempts=8)
        return place

    def test_the_first_delivery_stays_unchanged(self, place):
        (first,) = deliveries()
        redeliver()
        again = deliveries(PENDING)
        assert [(one.event, one.sequence, one.attempt_count) for one in again] == [(first.event, first.sequence, 0)]
        assert deliveries(DELIVERED) == [first]

    def test_untried_later_changes_wait_for_a_redelivered_one(self, place, receiver):
        place.save()
        place.save()
        dispatch_all()
        redeliver(status=DELIVERED)
        Webhook.objects.update(paused=False)
        assert work() == '3 delivered'
        got = sequences(receiver.requests)
        assert got == sorted(got)

    def test_it_waits_for_an_earlier_one_that_is_retried(self, place, receiver):
        place.save()
        Webhook.objects.update(paused=False)
        work()
        first, second = deliveries()
        Delivery.objects.filter(pk=first.pk).update(state=PENDING, error='HTTP 500', due_at=later())
        redeliver(pk=second.pk)
        receiver.clear()
        assert work() == 'nothing to send'
        pass_retry_waits(pk=first.pk)
        assert work() == '2 delivered'
        assert sequences(receiver.requests) == [first.sequence, second.sequence]

    def test_it_is_retried_by_the_schedule(self, place, receiver):
        Webhook.objects.update(paused=False)
        receiver.answers(HOOK, 500, 200)
        redeliver()
        assert work() == '1 to retry'
        pass_retry_waits()
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert first.header('webhook-id') == second.header('webhook-id')

    def test_a_period_that_is_redelivered_again_sends_each_change_once(self, webhook, receiver):
        """Each redelivery adds a delivery of the same event."""
        site(), site()
        work()
        for _ in range(3):
            receiver.clear()
            assert redelivery.measure(redelivery.select(webhook)).count == 2
            assert redelivery.redeliver(redelivery.select(webhook)) == 2
            work()
            assert len(receiver.requests) == 2

    def test_two_people_who_confirm_the_same_figures_send_once(self, webhook, receiver):
        site()
        work()
        chosen = redelivery.select(webhook)
        counted_at = redelivery.measure(chosen).counted_at
        receiver.clear()
        for done in (1, 0):
            assert redelivery.redeliver(chosen, counted_at=counted_at) == done
            work()
        assert len(receiver.requests) == 1

    def test_what_somebody_else_redelivers_meanwhile_is_left_out(self, webhook, receiver):
        """Many take minutes."""
        site()
        work()
        chosen, told = redelivery.select(webhook), []

        def beside(parts: list[list[int]]) -> Iterator[list[int]]:
            told.append(redelivery.redeliver(chosen))
            yield from parts

        assert redelivery.redeliver(chosen, watch=beside) == 0
        assert told == [1]

    def test_tests_are_no_part_of_a_period(self, webhook, receiver):
        trial.send_test(webhook)
        assert redelivery.measure(redelivery.select(webhook)).count == 0

    def test_the_message_says_so_where_nothing_is_sent(self, monkeypatch):
        assert redelivery.announce(1) == '1 delivery is being redelivered.'
        change_settings(monkeypatch, enabled=False)
        assert redelivery.announce(1).startswith('1 delivery is being redelivered. Changes are not sent: ')

    def test_while_it_is_redelivered_nothing_is_to_be_done(self, place):
        assert [redeliver(), redeliver()] == [1, 0]

    def test_two_requests_at_once_send_it_once(self, place):
        told = []
        with open_transaction(lambda: told.append(redeliver())):
            second = in_thread(lambda: told.append(redeliver()))
            wait_until(lambda: is_anybody_blocked() or not second.is_alive(), timeout=PATIENCE)
        second.join(PATIENCE)
        assert told == [1, 0]
        assert len(deliveries(PENDING)) == 1


def later() -> object:
    return timezone.now() + timedelta(hours=1)


class TestPrune:
    @pytest.fixture(params=[FAILED, DELIVERED])
    def old(self, failed: Delivery, request: pytest.FixtureRequest) -> Delivery:
        long_ago = timezone.now() - timedelta(days=40)
        Event.objects.update(timestamp=long_ago)
        Delivery.objects.update(created=long_ago, state=request.param)
        return failed

    def test_it_is_redelivered_first(self, old, receiver):
        pruned: list[int] = []
        with transaction.atomic():
            redeliver()
            in_thread(lambda: pruned.append(retention.prune_all(30))).join(PATIENCE)
            assert pruned == [0]
        assert work() == '1 delivered'
        assert len(receiver.requests) == 1

    def test_it_is_pruned_first(self, old, receiver):
        counts: list[int] = []
        with transaction.atomic():
            assert retention.prune_all(30) == 1
            in_thread(lambda: counts.append(redeliver())).join(PATIENCE)
            assert counts == [0]
        assert work() == 'nothing to send'


class TestNotRendered:
    """A later version of NetBox may render the event."""

    @pytest.fixture
    def broken(self) -> Iterator[ExitStack]:
        """Until it is closed."""

        def fail(place: Site) -> None:
            if place.pk:  # it is saved
                raise RuntimeError('no such field')

        with ExitStack() as broken:
            broken.enter_context(at_each(Site, fail))
            yield broken

    def test_while_it_cannot_be_it_fails_again_and_nothing_is_sent(self, webhook, receiver, broken):
        site()
        work()
        assert redeliver() == 1
        assert work() == '1 failed'
        (failed,) = deliveries(FAILED)
        assert 'RuntimeError: no such field' in failed.error
        assert not receiver.requests

    def test_redelivering_renders_an_event_again_that_was_given_up(self, webhook, receiver, broken):
        site()
        work()
        Event.objects.update(lapses=registry.GIVEN_UP)
        broken.close()
        assert redeliver() == 1
        assert work() == '1 delivered'

    def test_an_event_that_is_rendered_again_has_its_snapshots(self, webhook, receiver, broken):
        Webhook.objects.update(include_snapshots=True)
        site()
        work()
        broken.close()
        redeliver()
        assert work() == '1 delivered'
        assert receiver.requests[0].json()['snapshots']['postchange']

    def test_snapshots_of_an_event_that_was_rendered_again_stay_for_later_redeliveries(self, webhook, receiver, broken):
        """The source of the rendering is dropped then."""
        other = subscribe(receiver.url('/other'), Site, include_snapshots=True, max_attempts=1)
        site()
        work()
        broken.close()
        redeliver(webhook=webhook)
        redeliver(webhook=other)
        work()
        (request,) = receiver.matching(lambda request: request.path == '/other')
        assert request.json()['snapshots']['postchange']

    @pytest.mark.parametrize(
        'asks', [{'conditions': {'attr': 'name', 'value': 'B'}}, {'filters': {'dcim.site': 'name=B'}}]
    )
    def test_only_what_meets_the_conditions_or_is_in_the_list_is_sent(self, asks, webhook, receiver, broken):
        Webhook.objects.update(**asks)
        other = subscribe(receiver.url('/other'), Site, max_attempts=1)
        for name in 'AB':
            site(name=name)
        work()
        broken.close()
        redeliver(webhook=other)
        redeliver(webhook=webhook)
        work()
        sent = [request.json()['data']['name'] for request in receiver.matching(lambda one: one.path == HOOK)]
        assert sent == ['B']

    def test_its_object_may_be_gone_without_an_event_and_a_list_may_have_noticed(self, webhook, receiver, broken):
        place = site()
        subscribe(receiver.url('/list'), Site, filters={'dcim.site': 'status=active'})
        work()
        broken.close()
        Site.objects.filter(pk=place.pk)._raw_delete('default')
        ListWalk.objects.update(asked=True)
        work()
        redeliver(webhook=webhook)
        work()
        assert not deliveries(FAILED, webhook=webhook)


class TestMany:
    """Small parts hold nobody up."""

    @pytest.fixture
    def many(self, webhook: Webhook, receiver: Receiver) -> list[Delivery]:
        """The third of five has failed."""
        receiver.answers(HOOK, 200, 200, 500, 200)
        place = site()
        for _ in range(4):
            place.save()
        work()
        receiver.clear()
        return deliveries()

    @pytest.fixture(autouse=True)
    def parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redelivery, 'DELIVERIES_PER_PART', 2)

    def test_they_are_sent_in_order_and_once(self, many, receiver):
        assert redeliver() == 5
        work()
        assert sequences(receiver.requests) == [one.sequence for one in many]

    def test_they_wait_for_no_worker(self, many):
        with open_transaction(lambda: order.lock_lanes([many[0].webhook_id])):
            assert redeliver() == 5

    def test_payloads_are_not_read(self, many):
        with CaptureQueriesContext(connection) as captured:
            assert redeliver(status=DELIVERED) == 4
        assert not [query['sql'] for query in captured.captured_queries if '"webhooks_event"."data"' in query['sql']]

    @pytest.mark.parametrize('lead', [None, 7])
    def test_the_log_is_not_read(self, many, lead: int | None):
        Delivery.objects.update(lead=lead)
        with CaptureQueriesContext(connection) as captured:
            assert redelivery.redeliver(Delivery.objects.filter(pk=many[2].pk)) == 1
        asked = [query['sql'] for query in captured.captured_queries if query['sql'].startswith('SELECT')]
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute('SET LOCAL enable_seqscan = off')  # else a small table is read as a whole
            for statement in asked:
                cursor.execute(f'EXPLAIN {statement}')
                plan = str(cursor.fetchall())
                assert 'Seq Scan on webhooks_delivery' not in plan, statement
                assert 'hashed SubPlan' not in plan, statement

    def test_redelivering_asks_redis_only_of_failures_on_the_status_page(self, many, monkeypatch):
        asked: list[str] = []
        monkeypatch.setattr(failed_jobs, '_remove', lambda _registry, job_ids: asked.extend(job_ids))
        Delivery.objects.update(state=FAILED, listed=True)
        redeliver(status=FAILED)
        assert asked == [str(many[2].uuid)]

    def test_those_on_the_status_page_are_taken_off_it_and_no_others_looked_for(self, many):
        page = redis_queue.get().failed_job_registry
        assert page.get_job_ids() == [str(many[2].uuid)]
        redeliver(status=FAILED)
        assert page.get_job_ids() == []
        Delivery.objects.update(state=FAILED)
        failed_jobs.publish()
        Delivery.objects.update(listed=False)
        redeliver(status=FAILED)
        assert len(page.get_job_ids()) == 5

    def test_a_delivery_that_somebody_else_redelivered_meanwhile_is_left_alone(self, many):
        """Another user was quicker."""

        def and_somebody_else(parts: list) -> list:
            Delivery.objects.filter(pk=many[2].pk).update(state=DELIVERED)
            return parts

        failed = Delivery.objects.filter(status=FAILED)
        assert redelivery.redeliver(failed, watch=and_somebody_else) == 0
        Delivery.objects.filter(pk=many[2].pk).update(state=FAILED)
        assert redelivery.redeliver(failed) == 1
