import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from queue import SimpleQueue

import pytest
from dcim.models import Site
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    deliveries,
    dispatch_all,
    expire,
    health,
    hold,
    in_hand,
    in_thread,
    is_anybody_blocked,
    open_transaction,
    pass_alive,
    pass_probe_interval,
    pass_retry_waits,
    sender,
    take_turns,
    work,
)
from support.others_code import proxy_router
from support.tables import copy_row, rows_read

from devstack.process import wait_until
from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.engine import commands, each, rescue, sql
from webhooks.engine.deliver import circuit_breaker, endpoint, lane, lanes, loop, order
from webhooks.engine.deliver.build import Call, Threads
from webhooks.engine.deliver.endpoint import Entry
from webhooks.engine.dispatch import claim
from webhooks.engine.dispatch.loop import make_deliveries
from webhooks.engine.process import inline
from webhooks.engine.process import sender as sender_process
from webhooks.engine.registry import GIVEN_UP, SEND, STOPPED, SUSPECT, SUSPECTS, Registration
from webhooks.engine.tidy import loop as tidy
from webhooks.engine.walks.backfills import BackfillWalk
from webhooks.engine.walks.loop import Walks
from webhooks.models import Delivery, Event, Health, Webhook, Worker
from webhooks.services import backfill, redelivery, send_waiting
from webhooks.templating import renderer
from webhooks.transport.exchange import Outcome

pytestmark = pytest.mark.usefixtures('committed')

PENDING, _SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
PATIENCE = 60


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def changes(count: int) -> list[Event]:
    place = site()
    for _ in range(count - 1):
        place.save()
    return list(Event.objects.filter(object_id=place.pk, dispatched_at=None).order_by('sequence'))


def suspect(event: Event, lapses: int) -> None:
    Event.objects.filter(pk=event.pk).update(lapses=lapses)
    Event.objects.filter(pk=event.pk).update(retry_at='2000-01-01T00:00Z')


class TestDispatch:
    def test_many_changes_of_one_object_are_all_dispatched_in_order(self, webhook, monkeypatch):
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', 2)
        changes(9)
        dispatch_all()
        assert not Event.objects.filter(dispatched_at=None).exists()
        in_order_of_dispatch = sorted(deliveries(), key=lambda one: one.pk)
        assert in_order_of_dispatch == deliveries()

    def test_older_events_are_dispatched_although_the_mark_has_passed_them(self, webhook, monkeypatch):
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', 2)
        monkeypatch.setattr(claim, 'LATE_SEQUENCES', 0)
        monkeypatch.setattr(each, 'MIN_PAUSE_SECONDS', 1000.0)
        monkeypatch.setattr(each, 'MAX_PAUSE_SECONDS', 1000.0)
        with transaction.atomic():
            for _ in range(9):
                site()
        dispatch_all()
        assert not Event.objects.filter(dispatched_at=None).exists()

    def test_an_event_that_was_given_up_does_not_wait_for_a_later_suspect_of_its_object(self, webhook):
        first, second = changes(2)
        suspect(first, GIVEN_UP)
        suspect(second, SUSPECT)
        dispatch_all()
        assert list(Event.objects.filter(dispatched_at=None)) == [second]
        work()
        assert [one.status for one in deliveries()] == [FAILED, DELIVERED]

    def test_a_suspect_that_has_to_wait_keeps_no_other_from_being_tried(self, webhook):
        first, second = changes(2)
        (other,) = changes(1)
        Event.objects.filter(pk=first.pk).update(lapses=SUSPECT, retry_at='2999-01-01T00:00Z')
        suspect(second, SUSPECT)
        suspect(other, SUSPECT)
        work()
        assert [one.event for one in deliveries(DELIVERED)] == [other]


def test_a_change_with_two_deliveries_is_sent_twice(webhook, receiver):
    """Two people may redeliver it in the same moment."""
    changes(2)
    work()
    first, second = deliveries()
    receiver.answers(HOOK, 500, 200)
    redelivery.redeliver(webhook.deliveries.filter(pk=first.pk))
    work()
    for _ in range(2):
        with transaction.atomic():
            commands.make([(webhook.pk, second.event_id)])
    work()
    assert len(deliveries(PENDING, due_at=None)) == 2
    pass_retry_waits(attempt_count__gt=0)
    assert work() == '3 delivered'


class TestRescue:
    def test_by_name_it_is_that_worker_and_no_other_that_is_dead(self, webhook):
        changes(1)
        dispatch_all()
        hold(*deliveries())
        pass_alive()
        ended = Registration(inline.name('test'), SUSPECTS)
        ended.begin()
        assert rescue.rescue(ended.name, 'signal 9')
        assert [one.role for one in Worker.objects.all()] == [SEND]
        assert [one.lapses for one in deliveries()] == [0]

    def test_the_turn_of_a_killed_worker_keeps_no_lane(self, webhook):
        """PostgreSQL may take a moment to end its transaction."""
        changes(1)
        dispatch_all()
        killed = hold(*deliveries())
        with open_transaction(lambda: lanes.lock_owned(killed.pk)):
            rescuing = in_thread(lambda: rescue.rescue(killed.name))
            assert wait_until(is_anybody_blocked, PATIENCE)
        rescuing.join(PATIENCE)
        (delivery,) = deliveries(error=STOPPED)
        assert delivery.due_at <= timezone.now()
        assert not Worker.objects.exists()

    def test_while_somebody_holds_a_dead_worker_the_others_are_rescued(self, webhook):
        changes(2)
        dispatch_all()
        held, _dead = (hold(one) for one in deliveries())
        pass_alive()
        with open_transaction(lambda: Worker.objects.select_for_update().get(pk=held.pk)):
            assert rescue.rescue()
            assert not rescue.rescue()
            assert Worker.objects.get().pk == held.pk
        assert rescue.rescue()
        assert not Worker.objects.exists()

    def test_lanes_of_a_dead_worker_with_much_in_hand_are_free_after_the_last_part(self, webhook, monkeypatch):
        monkeypatch.setattr(rescue, 'DELIVERIES_PER_TRANSACTION', 2)
        changes(5)
        dispatch_all()
        dead = hold(*deliveries())
        pass_alive()
        for rescued in (2, 4):
            assert rescue.rescue()
            assert len(deliveries(error=STOPPED)) == rescued
            assert Health.objects.get().owner_id == dead.pk
        assert rescue.rescue()
        assert len(deliveries(error=STOPPED)) == 5
        assert Health.objects.get().owner_id is None
        assert not Worker.objects.exists()

    def test_while_somebody_holds_a_lane_the_rest_of_its_worker_is_looked_at_once_a_second(
        self, webhook, receiver, monkeypatch
    ):
        monkeypatch.setattr(rescue, 'DELIVERIES_PER_TRANSACTION', 1)
        other = subscribe(receiver.url('/other'), Site)
        changes(1)
        dispatch_all()
        (held,), (free,) = deliveries(webhook=webhook), deliveries(webhook=other)
        hold(held, free)
        with open_transaction(lambda: order.lock_lanes([webhook.pk])):
            for calls, left in ((1, [free.pk, held.pk]), (2, [held.pk]), (1, [held.pk])):
                pass_alive()
                before = timezone.now()
                for _ in range(calls):
                    assert rescue.rescue()
                worker = Worker.objects.get()
                assert worker.deliveries == left
                assert worker.alive_until >= before + timedelta(seconds=1)

    def test_its_events_are_free_once_although_somebody_holds_its_lane(self, webhook):
        changes(1)
        dispatch_all()
        (event,) = changes(1)
        hold(event, *deliveries())
        with open_transaction(lambda: order.lock_lanes([webhook.pk])):
            for _ in range(2):
                pass_alive()
                assert rescue.rescue()
        assert Event.objects.get(pk=event.pk).lapses == 0

    def test_a_late_sender_that_looks_for_dead_ones_is_alive_itself(self, webhook):
        changes(1)
        dispatch_all()
        late = hold(*deliveries())
        pass_alive()
        sender_process.look_after_others(late.pk)
        assert [one.pk for one in Worker.objects.all()] == [late.pk]
        late.beat()
        assert [one.attempt_count for one in deliveries()] == [0]
        pass_alive()
        sender_process.look_after_others(late.pk + 1)
        assert not Worker.objects.exists()
        assert [one.attempt_count for one in deliveries()] == [1]


def test_one_more_endpoint_that_fails_costs_a_turn_no_statement_and_little_work(receiver):
    """A thousand may fail at once."""
    webhooks = [subscribe(receiver.url(HOOK), Site) for _ in range(20)]
    failure = Outcome(started_at=0, duration=0.1, status=500, error='HTTP 500')
    costs = []
    for some in (webhooks[:2], webhooks):
        calls = 0

        def count(_frame: object, kind: str, _argument: object) -> None:
            nonlocal calls
            calls += kind == 'call'

        with sql.transaction() as now, CaptureQueriesContext(connection) as asked:
            sys.setprofile(count)
            try:
                endpoint.write([Entry(one.pk, PENDING, 1, failure, one) for one in some], now)
            finally:
                sys.setprofile(None)
        costs.append((len(asked), calls))
    (statements_of_2, calls_of_2), (statements, calls) = costs
    assert statements == statements_of_2
    assert (calls - calls_of_2) / 18 < 1000
    assert {(one.last_status, one.last_error) for one in Health.objects.all()} == {(500, 'HTTP 500')}
    assert [sum(one.latency) for one in Health.objects.order_by('pk')] == [2, 2, *[1] * 18]


class TestBesideAnOwner:
    @pytest.fixture
    def owner(self, webhook: Webhook, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[loop.Sender]:
        """It owns the webhook's lane, and has nothing in hand."""
        monkeypatch.setattr(lane, 'IDLE_SECONDS', 60)
        site()
        dispatch_all()
        with sender() as (_pk, first):
            assert self.turns(first, lambda: bool(deliveries(DELIVERED)))
            receiver.clear()
            yield first

    def turns(self, owner: loop.Sender, condition: Callable[[], bool]) -> bool:
        """Turn until nothing is in hand and the condition holds."""

        def are_done() -> bool:
            owner.turn(0.01)
            return not in_hand() and condition()

        return wait_until(are_done, timeout=60)

    def test_a_creation_and_deletion_that_somebody_closes_are_not_sent_by_the_owner(self, owner, webhook, receiver):
        place = site()
        place.delete()
        dispatch_all()
        with open_transaction(lambda: send_waiting.send(webhook, latest_only=True)):
            owner.turn()
        assert self.turns(owner, lambda: not deliveries(PENDING))
        assert [one.status for one in deliveries()] == [DELIVERED, SUPERSEDED, SUPERSEDED]
        assert not receiver.requests

    def test_the_owner_sends_nothing_of_a_canceled_backfill_that_is_not_in_the_log(self, owner, webhook, receiver):
        backfill.start(webhook, backfill.choose(webhook))
        assert Walks([BackfillWalk]).next_slice()
        dispatch_all()
        assert deliveries(PENDING, backfill=True)
        with open_transaction(lambda: backfill.cancel(webhook)):
            owner.turn()
        assert self.turns(owner, lambda: not deliveries(PENDING))
        assert len(receiver.requests) == len(deliveries(backfill=True))

    def test_while_somebody_holds_its_lane_a_worker_rests(self, owner, webhook, receiver):
        for _ in range(4):
            site()
        dispatch_all()
        owner.turn()
        begun = len(in_hand())
        # Answers make room for the others.
        with open_transaction(lambda: order.lock_lanes([webhook.pk])):
            receiver.wait_for(begun)
            assert wait_until(owner.turn, timeout=60)
            assert wait_until(lambda: not owner.turn(), timeout=60)
            assert len(receiver.requests) == len(in_hand()) == begun < 4
        assert self.turns(owner, lambda: not deliveries(PENDING))
        assert len(receiver.requests) == 4

    def test_it_is_busy_while_somebody_holds_a_lane_with_something_due(self, owner, webhook):
        site()
        dispatch_all()
        with open_transaction(lambda: order.lock_lanes([webhook.pk])):
            owner.turn()
            assert owner.lanes.is_busy
        assert self.turns(owner, lambda: not deliveries(PENDING))
        assert not owner.lanes.is_busy

    def test_a_redelivered_change_passes_a_later_one_that_the_owner_knows(self, owner, webhook, receiver):
        webhook.concurrency = webhook.max_attempts = 1
        webhook.timeout = 200
        webhook.save()
        place, other = site(), site()
        receiver.answers(HOOK, 500)
        self.change(place, 'first')
        assert self.turns(owner, lambda: not deliveries(PENDING))
        receiver.clear()
        receiver.answers(HOOK, Answer(delay=150), 200)
        self.change(other, 'no room for others')
        owner.turn()
        receiver.wait_for(1)
        self.change(place, 'second')
        owner.turn()
        redelivery.redeliver(Delivery.objects.filter(status=FAILED))
        receiver.closing.set()
        assert self.turns(owner, lambda: not deliveries(PENDING))
        told = [request.json()['data']['description'] for request in receiver.requests]
        assert told.index('first') < told.index('second')

    def change(self, place: Site, description: str) -> None:
        place.description = description
        place.save()
        dispatch_all()

    def test_the_result_of_a_deleted_webhooks_request_is_written_no_more_than_once(self, owner, webhook, receiver):
        Webhook.objects.update(timeout=200)
        receiver.answers(HOOK, Answer(500, delay=150))
        site()
        dispatch_all()
        owner.turn()
        receiver.wait_for(1)
        webhook.delete()
        receiver.closing.set()

        def are_written(until: Callable[[], bool]) -> bool:
            with CaptureQueriesContext(connection) as queries:
                assert take_turns(owner, until)
            return any('FROM "webhooks_health"' in query['sql'] for query in queries.captured_queries)

        assert are_written(lambda: not in_hand())
        assert not are_written(lambda: True)

    def test_the_answer_after_a_suspension_spends_no_attempt(self, owner, webhook, receiver, monkeypatch):
        monkeypatch.setattr(circuit_breaker, 'SUSPEND_AFTER_ATTEMPTS', 1)
        receiver.answers(HOOK, 502)
        site()
        dispatch_all()
        assert self.turns(owner, lambda: health(webhook).suspended_since)
        pass_retry_waits()
        pass_probe_interval(webhook)
        assert self.turns(owner, lambda: bool(deliveries(PENDING, attempt_count=2)))
        assert deliveries(PENDING)[0].attempt_limit == webhook.max_attempts + 1


def end_session() -> None:
    """Let PostgreSQL end this thread's."""
    session = sql.fetch_value('SELECT pg_backend_pid()')
    in_thread(lambda: sql.fetch('SELECT pg_terminate_backend(%s, 30000)', [session])).join(30)


def test_a_sender_ends_although_its_last_transaction_is_broken_off():
    with sender() as (pk, first):
        end_session()
        first.end()
        assert Worker.objects.filter(pk=pk).exists()
    assert not Worker.objects.exists()


class TestThreads:
    @pytest.fixture
    def first(self, receiver: Receiver) -> Iterator[loop.Sender]:
        """Its next turn begins three requests, and there is one thread for them."""
        subscribe(receiver.url(HOOK), Site, concurrency=1, timeout=200)
        with transaction.atomic():
            for _ in range(10):
                site()
        dispatch_all()
        with sender() as (_pk, first):
            for _ in range(2):
                first.turn()
                assert wait_until(first._threads.is_idle.is_set, timeout=60)
            yield first

    @pytest.mark.parametrize(
        'stop',
        [lambda: Webhook.objects.update(paused=True), lambda: Webhook.objects.get().delete()],
        ids=['paused', 'deleted'],
    )
    def test_a_pause_or_deletion_stops_deliveries_without_a_thread(self, first, receiver, stop: Callable[[], object]):
        receiver.answers(HOOK, Answer(delay=150))
        first.turn()
        receiver.wait_for(4)
        assert len(in_hand()) == 3
        stop()
        for _ in range(2):
            first.turn()
        receiver.closing.set()
        assert take_turns(first, lambda: not first.lanes.is_busy)
        assert len(receiver.requests) == 4

    def test_a_delivery_without_a_thread_is_sent_later_as_its_webhook_was_saved_last(self, first, receiver):
        receiver.answers(HOOK, Answer(delay=150))
        first.turn()
        receiver.wait_for(4)
        assert len(in_hand()) == 3
        Webhook.objects.update(payload_url=receiver.url('/new'), last_updated=timezone.now())
        first.turn()
        receiver.closing.set()
        assert take_turns(first, lambda: not first.lanes.is_busy)
        assert [request.path for request in receiver.requests] == [HOOK] * 4 + ['/new'] * 6

    def test_a_delivery_without_a_thread_is_not_sent_once_its_webhook_is_suspended(self, first, receiver, monkeypatch):
        monkeypatch.setattr(circuit_breaker, 'SUSPEND_AFTER_ATTEMPTS', 1)
        receiver.answers(HOOK, 502, Answer(502, delay=150))
        first.turn()
        receiver.wait_for(5)
        assert take_turns(first, lambda: health(Webhook.objects.get()).suspended_since)
        first.turn()
        receiver.closing.set()
        assert take_turns(first, lambda: not first.lanes.is_busy)
        assert len(receiver.requests) == 5

    def test_they_know_since_when_the_oldest_is_under_way(self):
        begun, goes_on = SimpleQueue(), SimpleQueue()
        threads = Threads(1, 'test', lambda sent: begun.put(sent) or goes_on.get(), begun.put)
        threads.submit(Call(Delivery(webhook_id=1), None, lane=lane.Lane(1, used_at=0.0)))
        try:
            begun.get(timeout=60)
            reached = time.monotonic()
            assert threads.since <= reached
        finally:
            goes_on.put(None)
        assert threads.is_idle.wait(60)
        assert threads.since > reached

    def test_where_a_window_has_become_smaller_fewer_go_on(self):
        begun, goes_on = SimpleQueue(), SimpleQueue()
        threads = Threads(2, 'test', lambda sent: begun.put(sent) or goes_on.get(), begun.put)
        owned = lane.Lane(1, used_at=0.0, window=2)
        sents = [Call(Delivery(webhook_id=1), None, lane=owned) for _ in range(3)]
        try:
            for sent in sents:
                threads.submit(sent, owned.window)
            assert {begun.get(timeout=60), begun.get(timeout=60)} == set(sents[:2])
            owned.window = 1
            goes_on.put(None)
            assert wait_until(lambda: not threads.shared, timeout=60)
            assert begun.empty()
            goes_on.put(None)
            assert begun.get(timeout=60) is sents[2]
        finally:
            for _ in sents:
                goes_on.put(None)
            threads.close()


def test_behind_templates_without_end_none_is_lost(receiver, monkeypatch):
    monkeypatch.setattr(renderer, 'TEMPLATE_SECONDS', 0.3)
    monkeypatch.setattr(lane, 'ENDLESS_BUILD_SECONDS', 0.2)
    monkeypatch.setattr(lane, 'ENDLESS_REST_SECONDS', 0.0)
    loops = '{% for i in range(99999) %}' * 2 + '{% endfor %}' * 2
    subscribe(receiver.url(HOOK), Site, body_template=f'{{% if data.facility %}}{loops}{{% endif %}}')
    with transaction.atomic():
        for facility in [''] * 4 + ['endless'] * 6:
            site(facility=facility)
    dispatch_all()
    with sender() as (_pk, first):
        assert take_turns(first, lambda: not deliveries(PENDING))


def test_a_turn_that_is_broken_off_takes_back_no_request_of_an_earlier_one(webhook, receiver):
    receiver.answers(HOOK, Answer(200, delay=1))
    site()
    dispatch_all()
    with sender() as (_pk, first):
        first.turn()
        assert first.lanes.in_hand
        end_session()
        assert take_turns(first, lambda: not deliveries(PENDING))
    assert len(receiver.requests) == 1


def test_a_lane_that_was_taken_unknown_to_its_worker_is_served(webhook):
    """The answer to a commit was cut off."""
    site()
    dispatch_all()
    with sender() as (pk, first):
        Health.objects.update(owner=pk)
        assert take_turns(first, lambda: deliveries(DELIVERED))


def test_a_lane_that_was_taken_in_vain_may_have_another_owner(webhook, monkeypatch):
    take = lanes.take
    struck = []

    def take_in_vain(*args: object) -> set[int]:
        taken = take(*args)
        if taken and not struck:
            struck.append(taken)
            end_session()
        return taken

    monkeypatch.setattr(lanes, 'take', take_in_vain)
    site()
    dispatch_all()
    with sender() as (_pk, first):
        assert take_turns(first, lambda: struck)
        Health.objects.update(owner=hold().pk)
        first.turn()
        assert not first.lanes.is_busy
        Health.objects.update(owner=None)
        assert take_turns(first, lambda: deliveries(DELIVERED))


def test_a_request_that_cannot_begin_goes_in_another_turn(webhook, monkeypatch, settings):
    monkeypatch.setattr(each, 'MIN_PAUSE_SECONDS', 1000.0)
    monkeypatch.setattr(each, 'MAX_PAUSE_SECONDS', 1000.0)
    for _ in range(2):
        site()
    dispatch_all()
    Delivery.objects.filter(pk=deliveries()[0].pk).update(due_at=timezone.now() - timedelta(hours=1))
    once = [lambda: sql.execute('SELECT pg_terminate_backend(pg_backend_pid())')]
    settings.PROXY_ROUTERS = [proxy_router(lambda _webhook: once and once.pop()())]
    with sender() as (_pk, first):
        assert take_turns(first, lambda: not deliveries(PENDING))


def test_a_webhook_that_was_loaded_without_the_time_of_its_save_is_served(webhook):
    Webhook.objects.update(last_updated=None)
    with sender() as (_pk, first):
        for count in (1, 2):
            site()
            dispatch_all()
            assert take_turns(first, lambda count=count: len(deliveries(DELIVERED)) == count)


def test_a_worker_learns_that_another_one_has_suspended_a_webhook(webhook, receiver):
    site()
    dispatch_all()
    with sender() as (_pk, first):

        def is_left() -> bool:
            first.turn(0.01)
            return not Health.objects.filter(owner__isnull=False).exists() and bool(deliveries(DELIVERED))

        assert wait_until(is_left, timeout=60)
        now = timezone.now()
        Health.objects.update(unreachable=5, suspended_since=now, probe_at=now, probes=1, last_attempt_at=now)
        receiver.answers(HOOK, 502)
        site()
        dispatch_all()

        def is_probed() -> bool:
            first.turn(0.01)
            return bool(deliveries(PENDING, attempt_count=1))

        assert wait_until(is_probed, timeout=60)
    (pending,) = deliveries(PENDING)
    assert pending.attempt_limit == webhook.max_attempts + 1


def test_a_second_worker_gets_its_share_of_busy_webhooks(receiver):
    receiver.answers(HOOK, Answer(delay=0.05))
    for _ in range(4):
        subscribe(receiver.url(HOOK), Site, concurrency=1)
    with transaction.atomic():
        for _ in range(60):
            site()
    dispatch_all()
    with sender() as (first_id, first), sender() as (second_id, second):

        def owned(worker: int) -> int:
            return Health.objects.filter(owner=worker).count()

        first.turn()
        assert owned(first_id) == 4

        def share() -> bool:
            first.turn(0.01)
            second.turn(0.01)
            return owned(first_id) == owned(second_id) == 2

        assert wait_until(share, timeout=60)


def while_lives(other: Registration, is_done: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        other.beat()
        return is_done()

    return look


def test_lanes_that_a_worker_gives_up_are_for_others(receiver, monkeypatch):
    monkeypatch.setattr(lanes, 'GIVEN_SECONDS', 60)
    for _ in range(4):
        subscribe(receiver.url(HOOK), Site, concurrency=1, rate_limit=1)
    with transaction.atomic():
        for _ in range(20):
            site()
    dispatch_all()
    with sender() as (pk, first):
        assert take_turns(first, while_lives(hold(), lambda: Health.objects.filter(owner=pk).count() == 2))
        first.lanes.look_again()
        first.turn()
        assert Health.objects.filter(owner=pk).count() == 2


class TestHangingEndpoint:
    """One webhook's endpoint hangs, another webhook has more to send than its rate limit allows."""

    @pytest.fixture
    def hanging(self, receiver: Receiver) -> Webhook:
        receiver.answers('/hangs', Answer(delay=150))
        return subscribe(receiver.url('/hangs'), Site, timeout=200)

    @pytest.fixture
    def busy(self, hanging: Webhook, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url(HOOK), Site, rate_limit=1)

    @pytest.fixture
    def first(self, hanging: Webhook, busy: Webhook, receiver: Receiver) -> Iterator[loop.Sender]:
        """It has taken the lane of the hanging one first."""
        for _ in range(20):
            site()
        Webhook.objects.filter(pk=busy.pk).update(paused=True)
        dispatch_all()
        with sender() as (_pk, first):
            assert take_turns(first, lambda: len(receiver.requests) == 1)
            Webhook.objects.filter(pk=busy.pk).update(paused=False)
            assert take_turns(first, lambda: len(receiver.requests) >= 2)
            yield first
            receiver.closing.set()

    def test_a_worker_with_too_many_lanes_gives_up_another_one(self, first, hanging, busy):
        assert take_turns(first, while_lives(hold(), lambda: health(busy).owner is None))
        assert health(hanging).owner is not None
        assert deliveries(PENDING, webhook=busy)

    def test_a_worker_that_ends_leaves_all_others(self, first, hanging, busy, receiver):
        ending = in_thread(first.end)
        assert wait_until(lambda: health(busy).owner is None, timeout=60)
        assert health(hanging).owner is not None
        Health.objects.filter(pk=busy.pk).update(owner=hold().pk)
        assert lanes.share(1) == 2, 'it is to have all lanes'
        receiver.closing.set()
        ending.join(60)

    def test_a_worker_that_ends_counts_what_it_has_sent_before_others_have_the_lane(
        self, first, busy, receiver, monkeypatch
    ):
        monkeypatch.setattr(loop, 'COUNTERS_BEHIND_SECONDS', 1000.0)
        assert take_turns(first, lambda: deliveries(DELIVERED, webhook=busy))
        ending = in_thread(first.end)
        assert wait_until(lambda: health(busy).owner is None, timeout=60)
        with open_transaction(lambda: order.lock_lanes([busy.pk])):
            receiver.closing.set()
            ending.join(60)
        assert health(busy).delivered == len(deliveries(DELIVERED, webhook=busy))


def test_a_part_goes_on_where_the_change_that_stands_for_it_expires(receiver):
    """A worker knows the change, and its lane is busy."""
    subscribe(receiver.url(HOOK), Site, change_set=True, timeout=200)
    receiver.answers(HOOK, Answer(delay=150), 200)
    for count in (1, 3):
        with transaction.atomic():
            for _ in range(count):
                site()
    dispatch_all()
    with sender() as (_pk, first):

        def are_formed() -> bool:
            first.turn(0.01)
            return len(deliveries(parts=1)) == 4

        assert wait_until(are_formed, timeout=60)
        expire(pk=deliveries()[1].pk)
        assert tidy.expire()
        first.turn(0.01)
        receiver.closing.set()

        def are_sent() -> bool:
            first.turn(0.01)
            return not deliveries(PENDING)

        assert wait_until(are_sent, timeout=60)
    assert [len(request.json()['changes']) for request in receiver.requests] == [1, 2]
    assert [one.status for one in deliveries()] == [DELIVERED, FAILED, DELIVERED, DELIVERED]


def test_no_look_reads_the_deliveries_again_for_each_delivery(webhook, receiver):
    site()
    dispatch_all()
    copy_row(Event, times=1000)
    copy_row(Delivery, times=1000)
    with connection.cursor() as cursor:
        cursor.execute('ANALYZE webhooks_event, webhooks_delivery')
    before = rows_read(Delivery)
    with sender() as (_pk, first):
        first.turn()
        assert rows_read(Delivery) - before < 20 * 1000


def test_what_follows_a_delivery_is_found_without_reading_its_webhooks_backlog(webhook):
    """The log is young: PostgreSQL knows of no statistics that tell an object's index from a webhook's."""
    place = site()
    dispatch_all()
    copy_row(Delivery, times=500)
    ids = [one.pk for one in deliveries(PENDING)[:100]]
    place.save()
    dispatch_all()
    following = Delivery.objects.filter(object_id=place.pk).latest('pk')
    Delivery.objects.filter(pk=following.pk).update(state=DeliveryState.HELD, due_at=None)
    before = rows_read(Delivery)
    order.release_next(ids, timezone.now())
    assert rows_read(Delivery) - before < 20 * 500
    following.refresh_from_db()
    assert following.state == DeliveryState.READY


def test_deliveries_are_made_without_reading_their_webhooks_backlog(webhook):
    """The log is young here too."""
    site()
    dispatch_all()
    copy_row(Event, times=100)
    copy_row(Delivery, times=500)
    pairs = [(webhook.pk, pk) for pk in Event.objects.values_list('pk', flat=True)[:100]]
    before = rows_read(Delivery)
    assert len(make_deliveries(pairs, are_new=True)) == len(pairs)
    assert rows_read(Delivery) - before < 20 * 500


def test_a_webhook_that_becomes_a_feed_keeps_the_order(receiver):
    """A worker knows of the later change already, and an earlier one is redelivered."""
    webhook = subscribe(receiver.url(HOOK), Site, rate_limit=1, max_attempts=1)
    receiver.answers(HOOK, 400)
    place = site()
    work()
    site()
    place.save()
    dispatch_all()
    with sender() as (_pk, first):
        first.turn()
        redelivery.redeliver(Delivery.objects.filter(status=FAILED))
        webhook.payload_url = ''
        webhook.save()

        def are_published() -> bool:
            first.turn(0.01)
            return Delivery.objects.filter(object_id=place.pk, position__isnull=False).count() == 2

        assert wait_until(are_published, timeout=60)
    published = Delivery.objects.filter(object_id=place.pk).order_by('position')
    assert [one.sequence for one in published] == sorted(one.sequence for one in published)
