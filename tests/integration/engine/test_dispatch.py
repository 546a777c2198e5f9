import math
import threading
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Site
from django.db import InternalError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from extras.conditions import ConditionSet
from redis.exceptions import ConnectionError as RedisConnectionError
from support.builders import NOWHERE, named, site, subscribe
from support.engine import (
    deliveries,
    dispatch_all,
    dispatch_batch,
    health,
    hold,
    in_thread,
    pass_retry_waits,
    suspect,
    try_suspects,
    work,
)
from support.others_code import at_each, at_first
from support.tables import copy_row, fill_and_empty, rows_read
from support.writers import before_statement
from tenancy.models import Tenant
from users.models import User

from devstack.receiver import Receiver
from webhooks.engine import rescue
from webhooks.engine.dispatch import claim, loop, render
from webhooks.engine.dispatch.put_off import PutOff
from webhooks.engine.process import inline, suspects
from webhooks.engine.registry import DISPATCH, SUSPECT, Registration
from webhooks.interruptions import Locked
from webhooks.models import Delivery, Event, Hour, Subscription, Webhook, Worker

pytestmark = pytest.mark.usefixtures('committed')


def put_off(event: Event) -> None:
    """As while somebody holds a table that it needs."""
    PutOff().add(event, Locked('held'))


def queries_for(count: int) -> int:
    with transaction.atomic():
        for _ in range(count):
            site()
    with CaptureQueriesContext(connection) as queries:
        dispatch_all()
    return len(queries)


def test_a_large_batch_takes_no_more_queries_than_a_small_one(monkeypatch):
    monkeypatch.setattr(loop, 'BATCH_SECONDS', 60)
    subscribe(NOWHERE, Site)
    queries_for(2)
    few = queries_for(3)
    assert queries_for(30) <= few
    assert Delivery.objects.count() == 35


def test_those_who_do_not_take_it_are_counted_once_a_batch():
    for _ in range(2):
        subscribe(NOWHERE, Site, conditions={'attr': 'name', 'value': 'none has it'})
    subscribe(NOWHERE, Site, ignore_users=[User.objects.create_user('robot')])
    with transaction.atomic():
        for _ in range(5):
            site()
    with CaptureQueriesContext(connection) as queries:
        dispatch_all()
    assert set(Event.objects.values_list('skipped', flat=True)) == {2}
    assert len([query for query in queries.captured_queries if 'skipped = v.skipped' in query['sql']]) == 1


def cut_off(*_instance: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_terminate_backend(pg_backend_pid())')


class TestDeletedWebhook:
    @pytest.mark.parametrize('model', [Event, Subscription, Webhook, Site], ids=lambda model: model.__name__)
    def test_the_other_webhooks_get_their_deliveries(self, model):
        """Somebody else deletes it as soon as a dispatcher has read the first of these."""
        goes, stays = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
        site()
        with at_first(model, lambda: in_thread(Webhook.objects.filter(pk=goes.pk).delete).join(30)):
            dispatch_all()
        assert not Webhook.objects.filter(pk=goes.pk).exists()
        assert [one.webhook for one in Delivery.objects.all()] == [stays]


class TestNotStored:
    """PostgreSQL refuses a value: only its own event fails."""

    @pytest.fixture
    def places(self, receiver: Receiver) -> list[Site]:
        subscribe(receiver.url(), Site, include_snapshots=True)
        with transaction.atomic():
            return [site() for _ in range(3)]

    @pytest.mark.parametrize(
        ('name', 'value'), [('comments', math.nan), ('comments', '\x00'), ('name', '\x00'), ('name', '\ud800')]
    )
    def test_an_event_that_cannot_be_stored_fails_and_the_others_go_on(self, places, name, value):
        def spoil(place: Site) -> None:
            if place.pk == places[1].pk:
                setattr(place, name, value)

        with at_each(Site, spoil):
            work()
        statuses = dict(Delivery.objects.values_list('object_id', 'status'))
        assert statuses == {place.pk: 'failed' if place == places[1] else 'delivered' for place in places}

    def test_a_reason_is_made_storable(self, places):
        def fail(_place: Site) -> None:
            raise RuntimeError('a \x00 and a \ud800')

        with at_each(Site, fail):
            dispatch_all()
        assert all(event.error.endswith('a \ufffd and a \ufffd') for event in Event.objects.all())


def test_events_that_cannot_be_rendered_count_as_failed_for_each_webhook():
    def fail(_place: Site) -> None:
        raise RuntimeError('no')

    webhook, other = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
    with transaction.atomic():
        for _ in range(2):
            site()
    with at_each(Site, fail):
        work()
    assert [health(one).failed for one in (webhook, other)] == [2, 2]
    assert [hour.failed for hour in Hour.objects.all()] == [2, 2]


def test_a_lost_connection_is_no_unmet_condition(monkeypatch):
    def fail(*args: Any) -> None:
        raise OperationalError('the connection was lost')

    subscribe(NOWHERE, Site, conditions={'attr': 'name', 'value': 'Bern'})
    site()
    monkeypatch.setattr(ConditionSet, 'eval', fail)
    dispatch_all()
    assert Event.objects.get().dispatched_at is None


class TestDatabaseError:
    """Rendering meets a broken transaction or an absent Redis."""

    @pytest.fixture
    def place(self, receiver: Receiver) -> Site:
        """A site changed after a tenant."""
        subscribe(receiver.url(), Site, Tenant)
        Tenant.objects.create(**named('tenant'))
        return site()

    @pytest.mark.parametrize('error', [OperationalError, InternalError, RedisConnectionError])
    def test_it_fails_one_event_as_long_as_our_own_connection_answers(self, place, error):
        def fail(_tenant: Tenant) -> None:
            raise error("a plugin's database is down")

        with at_each(Tenant, fail):
            assert work() == '1 delivered, 1 failed'
        assert [one.object_id for one in deliveries('delivered')] == [place.pk]
        assert "a plugin's database is down" in Event.objects.get(object_type__model='tenant').error

    def test_where_our_connection_is_lost_no_event_fails(self, place):
        with at_each(Tenant, cut_off):
            dispatch_all()
        assert Event.objects.filter(dispatched_at=None, lapses=0).count() == 2

    def test_one_that_is_broken_off_each_time_keeps_no_other(self, place):
        with at_each(Tenant, cut_off):
            for _ in range(4):
                work()
        assert [one.object_id for one in deliveries('delivered')] == [place.pk]
        assert Event.objects.get(object_type__model='tenant').dispatched_at is None

    def test_where_a_decision_is_broken_off_no_event_in_hand_is_blamed(self, monkeypatch):
        monkeypatch.setattr(loop, 'BATCH_SECONDS', 0)
        monkeypatch.setattr(render, 'EVENTS_PER_SLICE', 1)
        subscribe(NOWHERE, Site, conditions={'attr': 'name', 'op': 'regex', 'value': '^B'})
        site(name='Bern')
        later = site(name='Basel')
        with before_statement("status = 'undecided' AND webhook_id =", cut_off):
            assert dispatch_batch() == 2
        left = Event.objects.get(dispatched_at=None)
        assert (left.object_id, left.stopped, left.lapses) == (later.pk, False, 0)
        assert [one.status for one in deliveries()] == ['undecided']
        dispatch_all()
        assert [one.status for one in deliveries()] == ['pending', 'pending']

    def test_a_suspect_that_is_broken_off_each_time_keeps_no_other_suspect(self, place):
        """It holds up no event and no delivery."""
        suspect(*Event.objects.all())
        other = site()
        dispatch_all()
        (delivery,) = deliveries()
        assert delivery.object_id == other.pk
        suspect(delivery)
        pass_retry_waits()
        with at_each(Tenant, cut_off):
            for _ in range(4):
                work()
        assert {one.object_id for one in deliveries('delivered')} == {place.pk, other.pk}
        assert Event.objects.get(object_type__model='tenant').dispatched_at is None


class TestHanging:
    @pytest.fixture
    def places(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> list[Site]:
        subscribe(receiver.url(), Site)
        monkeypatch.setattr(render, 'SLICE_SECONDS', 1.0)
        monkeypatch.setattr(render, 'LONE_EVENT_SECONDS', 2.0)
        with transaction.atomic():
            return [site() for _ in range(4)]

    def query() -> None:
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_sleep(20)')  # PostgreSQL goes on with it

    @pytest.mark.parametrize('how', [lambda: threading.Event().wait(300), query])
    def test_an_event_that_hangs_is_a_suspect_and_the_others_arrive(self, places, receiver, how):
        """A process of its own tries it (process/suspects.py)."""

        def hang(place: Site) -> None:
            if place.pk == places[1].pk:
                how()

        with at_each(Site, hang):
            assert work() == '3 delivered'
        (left,) = Event.objects.filter(dispatched_at=None)
        assert (left.object_id, left.lapses, left.error) == (places[1].pk, SUSPECT, 'it takes more than 2 seconds')
        try_suspects()
        assert work() == '1 delivered'

    def test_a_later_change_of_what_hangs_waits_for_it(self, places, receiver):
        def hang(place: Site) -> None:
            if place.pk == places[1].pk:
                threading.Event().wait(300)

        places[1].save()
        with at_each(Site, hang):
            assert work() == '3 delivered'
        assert Event.objects.filter(dispatched_at=None, object_id=places[1].pk).count() == 2

    def test_a_query_that_is_cancelled_fails_its_event_by_name_and_the_others_arrive(self, places, receiver):
        def cancel(place: Site) -> None:
            if place.pk == places[1].pk:
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(300)")

        with at_each(Site, cancel):
            assert work() == '3 delivered, 1 failed'
        failed = Delivery.objects.get(status='failed')
        assert failed.object_id == places[1].pk
        assert 'the payload cannot be built' in failed.error


class TestManyDispatchers:
    @pytest.fixture(autouse=True)
    def webhook(self, committed: None, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url(), Site)

    def dispatched(self) -> list[int]:
        dispatch_all()
        return [one.object_id for one in deliveries()]

    def test_a_dispatcher_leaves_events_in_other_hands_and_takes_the_rest(self):
        places = [site() for _ in range(4)]
        hold(*Event.objects.order_by('sequence')[:2], role=DISPATCH)
        assert self.dispatched() == [place.pk for place in places[2:]]

    def test_a_later_change_of_an_object_waits_while_an_earlier_one_is_in_other_hands(self):
        place = site()
        other_hands = hold(Event.objects.get(), role=DISPATCH)
        place.save()
        other = site()
        assert self.dispatched() == [other.pk]
        other_hands.end()
        dispatch_all()
        found = Delivery.objects.filter(object_id=place.pk).order_by('pk').values_list('sequence', flat=True)
        assert list(found) == sorted(found)
        assert len(found) == 2

    @pytest.mark.parametrize('stop', [hold, suspect, put_off])
    def test_events_that_wait_for_an_earlier_one_do_not_fill_the_batch(self, monkeypatch, stop):
        for limit in ('EVENTS_PER_BATCH', 'NEWEST_EVENTS_PER_BATCH'):
            monkeypatch.setattr(claim, limit, 2)
        monkeypatch.setattr('webhooks.engine.dispatch.put_off.PUT_OFF_PAUSE', timedelta(hours=1))
        place = site()
        stop(Event.objects.get())
        for _ in range(5):
            place.save()
        others = [site().pk, site().pk]
        for _ in range(5):
            place.save()
        assert self.dispatched() == others

    def test_an_event_in_hand_of_a_dead_dispatcher_is_sent_once(self, receiver):
        site()
        held = hold(Event.objects.get(), role=DISPATCH)
        assert work() == 'nothing to send'
        assert rescue.rescue(held.name)
        assert work() == '1 delivered'
        assert Event.objects.get().error == ''

    def test_one_that_was_declared_dead_makes_no_second_delivery(self, receiver):
        site()
        told = []

        def take_over() -> None:
            """Another worker rescues and dispatches it."""
            assert rescue.rescue(Worker.objects.get().name)
            told.append(work())

        with before_statement('"snapshot", "webhooks_event"."prechange"', take_over):
            dispatch_batch()
        assert told == ['1 delivered']
        assert Delivery.objects.count() == 1
        assert work() == 'nothing to send'
        assert len(receiver.requests) == 1

    def test_a_change_passes_an_import(self, monkeypatch):
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', 5)
        monkeypatch.setattr(claim, 'NEWEST_EVENTS_PER_BATCH', 2)
        with transaction.atomic():
            for _ in range(60):
                site()
        change = site()
        registration = Registration(inline.name('test'), DISPATCH)
        registration.begin()
        dispatcher = loop.Dispatcher(registration)
        assert dispatcher.batch()
        assert dispatcher.batch()
        assert Delivery.objects.filter(object_id=change.pk).exists()
        assert Delivery.objects.count() <= 7

    def test_no_batch_reads_all_events_for_each_of_its_own(self):
        site()
        fill_and_empty(Event)
        copy_row(Event, times=5000)
        ids = list(Event.objects.order_by('sequence').values_list('pk', flat=True)[:100])
        before = rows_read(Event)
        assert sorted(claim.in_turn(ids)) == ids
        assert rows_read(Event) - before < 3 * 5000

    def test_a_batch_that_takes_too_long_is_cut_and_keeps_the_order_of_an_object(self, monkeypatch):
        monkeypatch.setattr(loop, 'BATCH_SECONDS', 0)
        monkeypatch.setattr(render, 'EVENTS_PER_SLICE', 1)
        place = site()
        place.save()
        site()
        while dispatch_batch():
            done = list(Delivery.objects.filter(object_id=place.pk).values_list('sequence', flat=True).order_by('pk'))
            assert done == sorted(done)
        assert Delivery.objects.count() == 3


def test_a_suspect_starts_a_process_only_once_it_is_the_first_of_its_object():
    subscribe(NOWHERE, Site)
    place = site()
    place.save()
    _first, later = Event.objects.order_by('sequence')
    suspect(later)
    pass_retry_waits()
    assert not suspects.are_any()
    dispatch_all()
    assert list(Event.objects.filter(dispatched_at=None)) == [later]
    assert suspects.are_any()
