"""A request takes the events of a single transaction, model and kind; each is its own delivery."""

from typing import Any

import pytest
from dcim.models import Rack, Site
from django.db import transaction
from support.builders import CREATED, DELETED, UPDATED, site, subscribe
from support.engine import deliveries, dispatch_all, pass_retry_waits, work, working
from tenancy.models import Tenant

from devstack.receiver import Answer, Received, Receiver
from webhooks.engine import rescue
from webhooks.engine.deliver import lane
from webhooks.engine.deliver.lane import BATCH_BYTES
from webhooks.engine.dispatch import loop, render
from webhooks.engine.registry import SEND
from webhooks.models import Delivery, Event, Webhook, Worker
from webhooks.services import redelivery
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/'), Site, Rack, Tenant, batch=True)


def received(receiver: Receiver, count: int) -> list[Received]:
    work()
    requests = receiver.wait_for(count)
    assert len(receiver.requests) == count
    return requests


def names(request: Received) -> list[str]:
    return [shown['name'] for shown in request.json()['data']]


def make_sites(*names: str) -> list[Site]:
    with transaction.atomic():
        return [site(name=name) for name in names]


def rename(places: list[Site], suffix: str = '*') -> None:
    with transaction.atomic():
        for place in places:
            place.name += suffix
            place.save()


class TestTogether:
    def test_the_events_of_one_transaction_model_and_kind_go_together(self, receiver: Receiver, webhook):
        (old,) = make_sites('old')
        with transaction.atomic():
            places = [site(name=name) for name in 'abc']
            tenant = Tenant.objects.create(name='t', slug='t')
            rename([old])
            late = site(name='d')
        with transaction.atomic():
            site(name='e')
        requests = received(receiver, 5)
        by_first = {names(request)[0]: request for request in requests}
        assert names(by_first['a']) == ['a', 'b', 'c', 'd']
        assert [shown['id'] for shown in by_first['a'].json()['data']] == [place.pk for place in [*places, late]]
        assert {first: names(request) for first, request in by_first.items() if first != 'a'} == {
            first: [first] for first in ('old', 'old*', 't', 'e')
        }
        assert by_first['t'].json()['data'][0]['id'] == tenant.pk

    def test_the_body_lists_the_events(self, receiver: Receiver, webhook):
        make_sites('a', 'b')
        (request,) = received(receiver, 1)
        body = request.json()
        events = list(Event.objects.order_by('sequence'))
        assert list(body) == [
            'event', 'signal_received_timestamp', 'model', 'data', 'object_type', 'events', 'username', 'request_id',
        ]  # fmt: skip
        assert body['events'] == [{'id': str(event.uuid), 'sequence': event.sequence} for event in events]
        assert body['signal_received_timestamp'] == max(event.timestamp for event in events).timestamp()
        assert request.header('webhook-id') == str(deliveries()[0].uuid)

    def test_a_single_event_is_a_list_of_one(self, receiver: Receiver, webhook):
        make_sites('alone')
        (request,) = received(receiver, 1)
        assert names(request) == ['alone']
        assert [event['sequence'] for event in request.json()['events']] == [Event.objects.get().sequence]

    @pytest.mark.parametrize('payload_format', ['default', 'netbox'])
    def test_snapshots_are_listed_with_their_events(self, receiver: Receiver, payload_format: str):
        subscribe(receiver.url('/'), Site, batch=True, include_snapshots=True, payload_format=payload_format)
        make_sites('a', 'b')
        (request,) = received(receiver, 1)
        assert [shown['postchange']['name'] for shown in request.json()['snapshots']] == ['a', 'b']

    def test_the_deliveries_of_a_batch_have_one_attempt_and_say_that_they_went_together(self, receiver, webhook):
        make_sites('a', 'b', 'c')
        received(receiver, 1)
        together = deliveries()
        assert [one.event.payload_data['name'] for one in together] == ['a', 'b', 'c']
        assert {one.batch for one in together} == {together[0].pk}
        assert [one.attempts.count() for one in together] == [1, 0, 0]
        assert [one.attempt_count for one in together] == [1, 1, 1]

    def test_one_that_is_dispatched_in_parts_goes_together(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(loop, 'BATCH_SECONDS', 0)
        monkeypatch.setattr(render, 'EVENTS_PER_SLICE', 10)
        made = [one.name for one in make_sites(*(f'site {number:02}' for number in range(30)))]
        (request,) = received(receiver, 1)
        assert names(request) == made

    def test_a_batch_leaves_out_changes_that_do_not_meet_the_conditions(self, receiver: Receiver):
        conditions = {'attr': 'name', 'value': 'b', 'negate': True}
        subscribe(receiver.url('/'), Site, batch=True, conditions=conditions)
        make_sites('a', 'b', 'c')
        (request,) = received(receiver, 1)
        assert names(request) == ['a', 'c']
        assert list(Event.objects.order_by('sequence').values_list('skipped', flat=True)) == [0, 1, 0]

    def test_an_event_that_cannot_be_rendered_fails_alone(self, receiver: Receiver, webhook):
        make_sites('a', 'b', 'c')
        broken = Event.objects.order_by('sequence')[1]
        broken.snapshot['row']['status'] = {'no': 'status'}
        broken.snapshot['row'].pop('id')
        broken.save()
        (request,) = received(receiver, 1)
        assert names(request) == ['a', 'c']
        assert [one.status for one in deliveries()] == ['delivered', 'failed', 'delivered']

    def test_without_the_option_each_goes_alone(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site)
        make_sites('a', 'b')
        assert sorted(request.json()['data']['name'] for request in received(receiver, 2)) == ['a', 'b']


class TestSplit:
    def test_a_batch_is_split_at_1000_events(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(lane, 'BATCH_BYTES', 10 * BATCH_BYTES)
        Site.objects.bulk_create(Site(name=f's{number:04}', slug=f's{number:04}') for number in range(1001))
        record_created(Site)
        first, second = received(receiver, 2)
        sizes = sorted([len(first.json()['data']), len(second.json()['data'])])
        assert sizes == [1, 1000]
        assert {name for request in (first, second) for name in names(request)} == {f's{n:04}' for n in range(1001)}

    def test_a_batch_is_split_below_a_megabyte(self, receiver: Receiver, webhook):
        with transaction.atomic():
            for number in range(5):
                site(name=f's{number}', comments='x' * 300_000)
        requests = received(receiver, 3)
        assert sorted(len(names(request)) for request in requests) == [1, 2, 2]
        assert all(len(request.body) < 1_000_000 for request in requests)

    @pytest.mark.parametrize('payload_format', ['default', 'netbox', 'cloudevents'])
    def test_all_that_an_event_takes_of_the_body_counts(self, receiver: Receiver, payload_format: str, monkeypatch):
        """Beside short objects, snapshots, differences and the envelope are large."""
        monkeypatch.setattr(lane, 'BATCH_BYTES', 40_000)
        subscribe(receiver.url('/'), Tenant, batch=True, include_snapshots=True, payload_format=payload_format)
        with transaction.atomic():
            for number in range(40):
                Tenant.objects.create(name=f't{number:02}', slug=f't{number:02}', comments='ü' * 100)
        work()
        bodies = [request.body for request in receiver.requests]
        assert len(bodies) > 1
        assert all(len(body) < lane.BATCH_BYTES for body in bodies)
        assert max(map(len, bodies)) > lane.BATCH_BYTES * 0.5

    def test_an_event_larger_than_a_batch_goes_alone(self, receiver: Receiver, webhook):
        with transaction.atomic():
            site(name='small')
            site(name='large', comments='x' * (BATCH_BYTES + 1))
            site(name='little')
        requests = received(receiver, 3)
        assert sorted(names(request) for request in requests) == [['large'], ['little'], ['small']]

    def test_each_part_has_its_own_id(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(lane, 'BATCH_DELIVERIES', 2)
        make_sites(*'abcde')
        requests = received(receiver, 3)
        assert len({request.header('webhook-id') for request in requests}) == 3


def record_created(model: type) -> None:
    bulk_operation.send(sender=model, instances=list(model.objects.all()), event='created')


class TestOrder:
    def test_a_batch_waits_for_each_earlier_delivery_of_its_objects(self, receiver: Receiver, webhook):
        places = make_sites(*'abc')
        receiver.answers('/', 500, 200)
        received(receiver, 1)
        rename(places[1:])
        work()
        assert len(receiver.requests) == 1
        pass_retry_waits(attempt_count__gt=0)
        assert [names(request) for request in received(receiver, 3)] == [['a', 'b', 'c'], ['a', 'b', 'c'], ['b*', 'c*']]

    def test_deliveries_of_other_objects_do_not_wait(self, receiver: Receiver, webhook):
        make_sites(*'ab')
        receiver.answers('/', 500, 200)
        received(receiver, 1)
        make_sites('c')
        assert names(received(receiver, 2)[1]) == ['c']

    def test_batches_and_single_deliveries_keep_the_order(self, receiver: Receiver, webhook):
        """Batches wait for single deliveries, and single deliveries for batches."""
        places = make_sites(*'ab')
        receiver.answers('/', 500, 200)
        received(receiver, 1)
        # Not saved: then what was tried goes at once.
        its = Webhook.objects.filter(pk=webhook.pk)
        its.update(batch=False)
        rename(places[:1], '1')
        work()
        its.update(batch=True)
        rename(places, '2')
        work()
        assert len(receiver.requests) == 1
        pass_retry_waits(attempt_count__gt=0)
        work()
        shown = [request.json()['data'] for request in receiver.requests]
        told = [one['name'] for data in shown for one in (data if isinstance(data, list) else [data])]
        assert told[:4] == ['a', 'b', 'a', 'b']
        assert [name for name in told[4:] if name.startswith('a')] == ['a1', 'a12']
        assert [name for name in told[4:] if name.startswith('b')] == ['b2']

    def test_each_waits_for_the_earlier_ones_of_its_own_object_alone(self, receiver: Receiver, webhook):
        first, second = make_sites('a'), make_sites('b')
        receiver.answers('/', 500, 500, 200)
        received(receiver, 2)
        rename([*first, *second])
        work()
        blockers = [one.pk for one in deliveries('pending')][:2]
        pass_retry_waits(pk=blockers[0])
        assert [names(request) for request in received(receiver, 4)[2:]] == [['a'], ['a*']]
        pass_retry_waits(pk=blockers[1])
        assert [names(request) for request in received(receiver, 6)[4:]] == [['b'], ['b*']]

    def test_a_failed_batch_lets_the_next_go(self, receiver: Receiver, webhook):
        switch(webhook, max_attempts=1)
        places = make_sites(*'ab')
        receiver.answers('/', 500, 200)
        received(receiver, 1)
        rename(places)
        assert names(received(receiver, 2)[1]) == ['a*', 'b*']

    def test_kinds_of_one_object_come_in_order(self, receiver: Receiver, webhook):
        places = make_sites(*'ab')
        rename(places)
        with transaction.atomic():
            for place in places:
                place.delete()
        requests = received(receiver, 3)
        assert [request.json()['event'] for request in requests] == [CREATED, UPDATED, DELETED]
        highest = [max(event['sequence'] for event in request.json()['events']) for request in requests]
        assert highest == sorted(highest)


def switch(webhook: Webhook, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(webhook, name, value)
    webhook.save()


class TestAgain:
    def test_a_retry_is_the_same_batch_under_the_same_id(self, receiver: Receiver, webhook):
        make_sites(*'abc')
        receiver.answers('/', 500, 200)
        (first,) = received(receiver, 1)
        pass_retry_waits(attempt_count__gt=0)
        _first, second = received(receiver, 2)
        assert first.body == second.body
        assert first.header('webhook-id') == second.header('webhook-id')

    def test_a_retry_is_whole_where_a_worker_has_no_room_for_all_that_is_due(self, receiver, webhook, monkeypatch):
        make_sites(*'abc')
        receiver.answers('/', 500, 200)
        (first,) = received(receiver, 1)
        monkeypatch.setattr(lane, 'BATCH_DELIVERIES', 2)
        pass_retry_waits()
        _first, second = received(receiver, 2)
        assert second.body == first.body

    def test_after_a_crash_it_is_the_same_batch_under_the_same_id(self, receiver: Receiver, webhook, monkeypatch):
        """The endpoint may have acted on it. The rest of its transaction is due before it."""
        monkeypatch.setattr(lane, 'BATCH_DELIVERIES', 2)
        switch(webhook, timeout=200)
        make_sites(*'abc')
        receiver.answers('/', Answer(delay=150), 200)
        with working():
            receiver.wait_for(1, timeout=60)
            assert rescue.rescue(Worker.objects.get(role=SEND).name)
            receiver.closing.set()
        requests = received(receiver, 3)
        assert sorted(names(request) for request in requests) == [['a', 'b'], ['a', 'b'], ['c']]
        assert len({request.header('webhook-id') for request in requests}) == 2

    def test_a_change_that_went_alone_takes_no_others_along(self, receiver: Receiver, webhook):
        """The rest of its transaction was not due yet."""
        make_sites(*'abc')
        dispatch_all()
        Delivery.objects.exclude(pk=deliveries()[0].pk).update(due_at='2099-01-01T00:00Z')
        receiver.answers('/', 500, 200)
        received(receiver, 1)
        pass_retry_waits()
        assert sorted(names(request) for request in received(receiver, 3)) == [['a'], ['a'], ['b', 'c']]

    @pytest.mark.parametrize('payload_format', ['default', 'netbox', 'cloudevents'])
    def test_a_batch_stays_one_after_the_option_is_switched_off(self, receiver: Receiver, webhook, payload_format: str):
        switch(webhook, payload_format=payload_format, include_snapshots=True)
        make_sites(*'abc')
        receiver.answers('/', 500, 200)
        (first,) = received(receiver, 1)
        switch(webhook, batch=False)
        pass_retry_waits(attempt_count__gt=0)
        _first, second = received(receiver, 2)
        assert second.body == first.body
        assert second.header('Content-Type') == first.header('Content-Type')

    def test_a_failed_batch_is_redelivered_under_the_same_id(self, receiver: Receiver, webhook):
        switch(webhook, max_attempts=1)
        places = make_sites(*'abc')
        receiver.answers('/', 500, 200)
        (first,) = received(receiver, 1)
        assert redelivery.redeliver(Delivery.objects.filter(status='failed')) == 3
        rename(places[:1])
        _first, second, third = received(receiver, 3)
        assert second.header('webhook-id') == first.header('webhook-id')
        assert second.body == first.body
        assert names(third) == ['a*']

    def test_a_delivered_batch_is_replayed_under_a_new_id(self, receiver: Receiver, webhook):
        make_sites(*'abc')
        (first,) = received(receiver, 1)
        assert redelivery.replay(webhook) == 3
        _first, second = received(receiver, 2)
        assert second.header('webhook-id') != first.header('webhook-id')
        assert second.body == first.body
        assert len(deliveries('delivered')) == 6

    def test_later_deliveries_wait_behind_a_reopened_batch(self, receiver: Receiver, webhook):
        """A later untried change of an object in the batch waits for it again."""
        switch(webhook, max_attempts=1)
        places = make_sites(*'ab')
        receiver.answers('/', 500, 200)
        received(receiver, 1)
        rename(places[1:])
        dispatch_all()
        redelivery.redeliver(Delivery.objects.filter(status='failed'))
        assert [names(request) for request in received(receiver, 3)] == [['a', 'b'], ['a', 'b'], ['b*']]
