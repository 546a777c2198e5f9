import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from dcim.models import Site
from django.db import InternalError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
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
    work,
)
from support.tables import copy_row, fill_and_empty, rows_read
from tenancy.models import Tenant
from users.models import User

from devstack.receiver import Receiver
from webhooks import rendering
from webhooks.engine import rescue
from webhooks.engine.dispatch import claim, loop, matching, render
from webhooks.engine.process import inline
from webhooks.engine.registry import DISPATCH, Member
from webhooks.models import Delivery, Event, Hour, Webhook, Worker

pytestmark = pytest.mark.usefixtures('committed')


def queries_for(count: int) -> int:
    with transaction.atomic():
        for _ in range(count):
            site()
    with CaptureQueriesContext(connection) as queries:
        dispatch_all()
    return len(queries)


def test_a_large_batch_takes_no_more_queries_than_a_small_one():
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


def cut_off() -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_terminate_backend(pg_backend_pid())')


class TestDeletedWebhook:
    @pytest.fixture
    def goes(self) -> Webhook:
        return subscribe(NOWHERE, Site)

    @pytest.fixture
    def meanwhile(self, goes: Webhook, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
        def at(module: Any, name: str) -> None:
            """Somebody else deletes it just before this function runs."""
            function = getattr(module, name)

            def after_deletion(*args: Any) -> Any:
                in_thread(lambda: Webhook.objects.filter(pk=goes.pk).delete()).join(30)
                return function(*args)

            monkeypatch.setattr(module, name, after_deletion)

        return at

    @pytest.mark.parametrize(('module', 'name'), [(loop, 'match'), (rendering, 'render')])
    def test_the_other_webhooks_get_their_deliveries(self, goes, meanwhile, module, name):
        stays = subscribe(NOWHERE, Site)
        site()
        meanwhile(module, name)
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

    def spoil(self, monkeypatch: pytest.MonkeyPatch, name: str, spoilt: Callable[[Any], Any], at: int) -> None:
        """Let this function of rendering return another result for the object with this id."""
        function = getattr(rendering, name)

        def spoiling(model: type, snapshots: list, *deletions: Any) -> list:
            pairs = zip(function(model, snapshots, *deletions), snapshots, strict=True)
            return [spoilt(one) if snapshot and snapshot['row']['id'] == at else one for one, snapshot in pairs]

        monkeypatch.setattr(rendering, name, spoiling)

    @pytest.mark.parametrize(
        ('name', 'spoilt'),
        [
            ('change_log', lambda shown: {**shown, 'latitude': math.nan}),
            ('change_log', lambda shown: {**shown, 'name': '\x00'}),
            ('render', lambda shown: dataclasses.replace(shown, display='\ud800')),
        ],
    )
    def test_an_event_that_cannot_be_stored_fails_and_the_others_go_on(self, places, monkeypatch, name, spoilt):
        self.spoil(monkeypatch, name, spoilt, places[1].pk)
        work()
        statuses = dict(Delivery.objects.values_list('object_id', 'status'))
        assert statuses == {place.pk: 'failed' if place == places[1] else 'delivered' for place in places}

    def test_a_reason_is_made_storable(self, places, monkeypatch):
        def fail(*args: Any) -> None:
            raise RuntimeError('a \x00 and a \ud800')

        monkeypatch.setattr(rendering, 'render', fail)
        dispatch_all()
        assert all(event.error.endswith('a \ufffd and a \ufffd') for event in Event.objects.all())


def test_what_cannot_be_rendered_counts_as_failed(monkeypatch):
    def fail(*args: Any) -> None:
        raise RuntimeError('no')

    webhook, other = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
    monkeypatch.setattr(rendering, 'render', fail)
    with transaction.atomic():
        for _ in range(2):
            site()
    work()
    assert [health(one).failed for one in (webhook, other)] == [2, 2]
    assert [hour.failed for hour in Hour.objects.all()] == [2, 2]


def test_a_lost_connection_is_no_unmet_condition(monkeypatch):
    def fail(*args: Any) -> None:
        raise OperationalError('the connection was lost')

    subscribe(NOWHERE, Site, conditions={'attr': 'name', 'value': 'Bern'})
    site()
    monkeypatch.setattr(matching, 'are_met', fail)
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

    def let_tenants(self, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], Any]) -> None:
        render = rendering.render

        def failing(model: type, *args: Any) -> list:
            if model is Tenant:
                fail()
            return render(model, *args)

        monkeypatch.setattr(rendering, 'render', failing)

    @pytest.mark.parametrize('error', [OperationalError, InternalError, RedisConnectionError])
    def test_it_fails_one_event_as_long_as_our_own_connection_answers(self, place, monkeypatch, error):
        def fail() -> None:
            raise error("a plugin's database is down")

        self.let_tenants(monkeypatch, fail)
        assert work() == '1 delivered, 1 failed'
        assert [one.object_id for one in deliveries('delivered')] == [place.pk]
        assert "a plugin's database is down" in Event.objects.get(object_type__model='tenant').error

    def test_where_our_connection_is_lost_no_event_fails(self, place, monkeypatch):
        self.let_tenants(monkeypatch, cut_off)
        dispatch_all()
        assert Event.objects.filter(dispatched_at=None, lapses=0).count() == 2

    def test_one_that_is_broken_off_each_time_keeps_no_other(self, place, monkeypatch):
        self.let_tenants(monkeypatch, cut_off)
        for _ in range(4):
            work()
        assert [one.object_id for one in deliveries('delivered')] == [place.pk]
        assert Event.objects.get(object_type__model='tenant').dispatched_at is None

    def test_a_suspect_that_is_broken_off_each_time_keeps_no_other_suspect(self, place, monkeypatch):
        """It holds up no event and no delivery."""
        suspect(*Event.objects.all())
        other = site()
        dispatch_all()
        (delivery,) = deliveries()
        assert delivery.object_id == other.pk
        suspect(delivery)
        self.let_tenants(monkeypatch, cut_off)
        pass_retry_waits()
        for _ in range(4):
            work()
        assert {one.object_id for one in deliveries('delivered')} == {place.pk, other.pk}
        assert Event.objects.get(object_type__model='tenant').dispatched_at is None


class TestHanging:
    @pytest.fixture
    def places(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> list[Site]:
        subscribe(receiver.url(), Site)
        monkeypatch.setattr(render, 'TOGETHER', 1.0)
        monkeypatch.setattr(render, 'ALONE', 2.0)
        with transaction.atomic():
            return [site() for _ in range(4)]

    def hang(self, monkeypatch: pytest.MonkeyPatch, pk: int, how: Callable[[], Any]) -> None:
        render = rendering.render

        def hanging(model: type, snapshots: list, *deletions: Any) -> list:
            if pk in [snapshot['row']['id'] for snapshot in snapshots]:
                how()
            return render(model, snapshots, *deletions)

        monkeypatch.setattr(rendering, 'render', hanging)

    def query() -> None:
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_sleep(300)')

    def cancelled() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(300)")

    @pytest.mark.parametrize('how', [lambda: threading.Event().wait(300), query, cancelled])
    def test_an_event_that_hangs_fails_by_name_and_the_others_arrive(self, places, receiver, monkeypatch, how):
        self.hang(monkeypatch, places[1].pk, how)
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

    def test_what_one_holds_the_other_leaves_and_the_rest_it_takes(self):
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

    @pytest.mark.parametrize('stop', [hold, suspect])
    def test_what_waits_for_others_is_not_all_that_is_found(self, monkeypatch, stop):
        monkeypatch.setattr(claim, 'MOST', 2)
        place = site()
        stop(Event.objects.get())
        for _ in range(5):
            place.save()
        others = [site().pk, site().pk]
        assert self.dispatched() == others

    def test_what_a_dead_one_held_comes_back_and_goes_once(self, receiver):
        site()
        held = hold(Event.objects.get(), role=DISPATCH)
        assert work() == 'nothing to send'
        assert rescue.rescue(held.name)
        assert work() == '1 delivered'
        assert Event.objects.get().error == ''

    def test_one_that_was_declared_dead_makes_no_second_delivery(self, receiver, monkeypatch):
        site()
        render_, named_ = rendering.render, []

        def slowly(*args: Any) -> list:
            """Another worker rescues and dispatches it."""
            monkeypatch.undo()
            in_thread(take_over).join(60)
            return render_(*args)

        def take_over() -> None:
            assert rescue.rescue(Worker.objects.get().name)
            named_.append(work())

        monkeypatch.setattr(rendering, 'render', slowly)
        dispatch_batch()
        assert named_ == ['1 delivered']
        assert Delivery.objects.count() == 1
        assert work() == 'nothing to send'
        assert len(receiver.requests) == 1

    def test_a_change_passes_an_import(self, monkeypatch):
        monkeypatch.setattr(claim, 'MOST', 5)
        with transaction.atomic():
            for _ in range(60):
                site()
        change = site()
        member = Member(inline.name('test'), DISPATCH)
        member.begin()
        dispatcher = loop.Dispatcher(member)
        assert dispatcher.batch()
        assert dispatcher.batch()
        assert Delivery.objects.filter(object_id=change.pk).exists()
        assert Delivery.objects.count() < 20

    def test_no_batch_reads_all_events_for_each_of_its_own(self):
        site()
        fill_and_empty(Event)
        copy_row(Event, times=5000)
        ids = list(Event.objects.order_by('sequence').values_list('pk', flat=True)[:100])
        before = rows_read(Event)
        assert sorted(claim.in_turn(ids)) == ids
        assert rows_read(Event) - before < 3 * 5000

    def test_what_takes_long_to_render_is_cut_and_keeps_its_order(self, monkeypatch):
        monkeypatch.setattr(loop, 'BUDGET', 0)
        monkeypatch.setattr(render, 'SLICE', 1)
        place = site()
        place.save()
        site()
        while dispatch_batch():
            done = list(Delivery.objects.filter(object_id=place.pk).values_list('sequence', flat=True).order_by('pk'))
            assert done == sorted(done)
        assert Delivery.objects.count() == 3
