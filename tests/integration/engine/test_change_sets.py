import uuid
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Cable, Device, DeviceRole, Interface, Rack, Site
from django.db import transaction
from django.utils import timezone
from netbox.context_managers import event_tracking
from support.builders import device, device_type, interface, named, site, subscribe
from support.builtin import request_by
from support.engine import (
    deliveries,
    die,
    expire,
    hold,
    in_thread,
    is_anybody_blocked,
    open_transaction,
    pass_retry_waits,
    suspect,
    try_suspects,
    work,
)
from support.settings import change_settings
from tenancy.models import Tenant, TenantGroup
from users.models import User
from utilities.request import NetBoxFakeRequest

from devstack.process import wait_until
from devstack.receiver import Received, Receiver
from webhooks.constants import DEFAULT_MODELS
from webhooks.engine import rescue, sql
from webhooks.engine.deliver import change_sets, lane
from webhooks.engine.dispatch import loop, render
from webhooks.engine.registry import GIVEN_UP, SUSPECTS
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import redelivery, send_waiting, trial, why_not_sent

pytestmark = pytest.mark.usefixtures('committed')

PATIENCE = 60
LATER_PART = 'It is sent with the other changes of its part, after the earlier parts of its change set.'
MODELS = (TenantGroup, Tenant, Site, Rack, Device, Interface, Cable)


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/'), Site, Rack, Device, Interface, Tenant, change_set=True)


def received(receiver: Receiver, count: int) -> list[Received]:
    work()
    requests = receiver.wait_for(count)
    assert len(receiver.requests) == count
    return requests


def told(request: Received) -> list[tuple[str, str]]:
    """Return (kind, model) of each change."""
    return [(change['event'], change['model']) for change in request.json()['changes']]


def names(request: Received) -> list[str]:
    return [change['data']['name'] for change in request.json()['changes']]


def make_sites(*names: str) -> list[Site]:
    with transaction.atomic():
        return [site(name=name) for name in names]


def rename(*places: Site, suffix: str = '*') -> None:
    with transaction.atomic():
        for place in places:
            place.name += suffix
            place.save()


def switch(webhook: Webhook, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(webhook, name, value)
    webhook.save()


class TestOrderInside:
    def test_a_change_set_creates_objects_before_those_that_refer_to_them(self, receiver: Receiver, monkeypatch):
        change_settings(monkeypatch, allowed_models=(*DEFAULT_MODELS, 'dcim.cable'))
        subscribe(receiver.url('/'), *MODELS, change_set=True)
        kind, role = device_type(), DeviceRole.objects.create(**named('role'))
        moved, gone = (device(device_type=kind, role=role) for _ in range(2))
        interface(gone)
        work()
        so_far = len(receiver.requests)
        # Saved in reverse of the order to send, where possible.
        with transaction.atomic():
            gone.delete()
            place = site()
            moved.site, moved.rack = place, Rack.objects.create(name='rack', site=place)
            moved.save()
            new = device(site=place, device_type=kind, role=role)
            ends = [interface(new) for _ in range(2)]
            Cable(a_terminations=ends[:1], b_terminations=ends[1:]).save()
            place.tenant = tenant = Tenant.objects.create(**named('tenant'))
            place.save()
            tenant.group = TenantGroup.objects.create(**named('group'))
            tenant.save()
        request = received(receiver, so_far + 1)[-1]
        assert told(request) == [
            ('created', 'TenantGroup'),
            ('created', 'Tenant'),
            ('created', 'Site'),
            ('created', 'Rack'),
            ('created', 'Device'),
            ('created', 'Interface'),
            ('created', 'Interface'),
            ('created', 'Cable'),
            ('updated', 'Device'),
            ('deleted', 'Interface'),
            ('deleted', 'Device'),
        ]


class TestBody:
    def test_each_change_is_as_it_is_alone(self, receiver: Receiver, webhook):
        subscribe(receiver.url('/alone'), Site, Tenant)
        with transaction.atomic():
            site(name='b')
            Tenant.objects.create(name='t', slug='t')
            site(name='a')
        work()
        (request,) = receiver.matching(lambda request: request.path == '/')
        alone = receiver.matching(lambda request: request.path == '/alone')
        body = request.json()
        assert list(body) == ['event', 'transaction', 'part', 'parts', 'changes']
        assert (body['event'], body['part'], body['parts']) == ('change_set', 1, 1)
        first = next(one for one in deliveries(webhook=webhook) if one.pk == one.lead)
        assert body['transaction'] == {
            'id': str(first.event.transaction_id), 'username': None, 'request_id': None, 'message': None, 'count': 3,
        }  # fmt: skip
        by_id = {one.json()['id']: one.json() for one in alone}
        assert [by_id[change['id']] for change in body['changes']] == body['changes']
        assert names(request) == ['t', 'b', 'a']
        assert request.header('webhook-id') == str(first.uuid)

    def test_a_change_set_names_its_user_and_message(self, receiver: Receiver, webhook, netbox_user):
        request = NetBoxFakeRequest({'user': netbox_user, 'id': uuid.uuid4(), 'META': {}})
        with event_tracking(request), transaction.atomic():
            site(name='a')
            place = Site(name='b', slug='b')
            place._changelog_message = 'As agreed'
            place.save()
        (sent,) = received(receiver, 1)
        shown = sent.json()['transaction']
        assert (shown['username'], shown['request_id']) == (netbox_user.username, str(request.id))
        assert (shown['message'], shown['count']) == ('As agreed', 2)

    def test_cloudevents_are_a_batch_with_four_attributes_more(self, receiver: Receiver, webhook):
        switch(webhook, payload_format='cloudevents')
        make_sites('a', 'b')
        (request,) = received(receiver, 1)
        assert request.header('Content-Type') == 'application/cloudevents-batch+json'
        shown = [(one['transactioncount'], one['part'], one['parts'], one['data']['name']) for one in request.json()]
        assert shown == [(2, 1, 1, 'a'), (2, 1, 1, 'b')]
        assert len({one['transaction'] for one in request.json()}) == 1

    def test_the_netbox_format_has_netbox_s_bodies_in_it(self, receiver: Receiver, webhook):
        switch(webhook, payload_format='netbox')
        make_sites('a')
        (request,) = received(receiver, 1)
        (change,) = request.json()['changes']
        assert {'event', 'timestamp', 'object_type', 'data', 'snapshots'} <= change.keys()

    def test_a_template_has_the_transaction_and_its_changes(self, receiver: Receiver, webhook):
        template = '{{ transaction.count }}: {% for one in changes %}{{ one.model }} {{ one.data.name }};{% endfor %}'
        switch(webhook, body_template=template)
        make_sites('a', 'b')
        (request,) = received(receiver, 1)
        assert request.body == b'2: site a;site b;'

    def test_a_test_shows_a_set_of_one(self, receiver: Receiver, webhook):
        site(name='a')
        trial.send_test(webhook)
        body = receiver.requests[0].json()
        assert (body['event'], body['transaction']['id'], body['transaction']['count']) == ('change_set', None, 1)
        assert body['changes'][0]['test'] is True


class TestWhatIsInIt:
    def test_conditions_leave_out_changes_and_an_empty_set_is_not_sent(self, receiver: Receiver):
        conditions = {'attr': 'facility', 'value': 'x', 'negate': True}
        subscribe(receiver.url('/'), Site, change_set=True, conditions=conditions)
        site(facility='x')
        with transaction.atomic():
            site(name='a')
            site(name='b', facility='x')
            site(name='c')
        (request,) = received(receiver, 1)
        assert names(request) == ['a', 'c']
        assert request.json()['transaction']['count'] == 2

    def test_an_ignored_user_s_changes_are_left_out_and_a_set_of_them_alone_is_not_sent(
        self, receiver: Receiver, netbox_user
    ):
        robot = User.objects.create_user(username='robot')
        subscribe(receiver.url('/'), Site, change_set=True, ignore_users=[robot])
        with transaction.atomic():
            with request_by(robot):
                site(name='a')
            with request_by(netbox_user):
                site(name='b')
        with request_by(robot):
            site(name='c')
            site(name='d')
        (request,) = received(receiver, 1)
        assert names(request) == ['b']
        shown = request.json()['transaction']
        assert (shown['username'], shown['count']) == (netbox_user.username, 1)

    def test_a_devices_change_by_a_component_comes_outside_the_change_set(self, receiver: Receiver):
        """It is recorded late, after another change perhaps: two sets could wait for each other."""
        subscribe(receiver.url('/'), Device, Interface, change_set=True, include_components=True)
        port = interface(device())
        work()
        so_far = len(receiver.requests)
        with transaction.atomic():
            port.description = 'changed'
            port.save()
        requests = received(receiver, so_far + 2)[so_far:]
        shown = sorted(told(request) for request in requests)
        assert shown == [[('updated', 'Device')], [('updated', 'Interface')]]

    def test_one_that_is_dispatched_in_slices_is_whole(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(loop, 'BATCH_SECONDS', 0)
        monkeypatch.setattr(render, 'EVENTS_PER_SLICE', 10)
        made = [one.name for one in make_sites(*(f'site {number:02}' for number in range(30)))]
        (request,) = received(receiver, 1)
        assert names(request) == made


class TestParts:
    def test_parts_come_in_order_each_under_its_own_id(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(lane, 'PART_DELIVERIES', 2)
        make_sites(*'abcde')
        requests = received(receiver, 3)
        assert [names(request) for request in requests] == [['a', 'b'], ['c', 'd'], ['e']]
        assert [(one.json()['part'], one.json()['parts']) for one in requests] == [(1, 3), (2, 3), (3, 3)]
        assert {one.json()['transaction']['count'] for one in requests} == {5}
        assert len({request.header('webhook-id') for request in requests}) == 3

    def test_a_part_waits_while_the_one_before_is_retried(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(lane, 'PART_DELIVERIES', 2)
        receiver.answers('/', 500, 200)
        make_sites(*'abcd')
        received(receiver, 1)
        # The split was decided at the first attempt.
        waits = [why_not_sent.wait_of(one, timezone.now()).text for one in deliveries() if one.part == 2]
        assert waits == [LATER_PART] * len(waits) != []
        monkeypatch.setattr(lane, 'PART_DELIVERIES', 1000)
        pass_retry_waits()
        first, again, second = received(receiver, 3)
        assert (again.body, again.header('webhook-id')) == (first.body, first.header('webhook-id'))
        assert names(second) == ['c', 'd']

    def test_the_next_goes_when_one_has_failed(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(lane, 'PART_DELIVERIES', 2)
        switch(webhook, max_attempts=1)
        receiver.answers('/', 500, 200)
        make_sites(*'abc')
        assert [names(request) for request in received(receiver, 2)] == [['a', 'b'], ['c']]
        assert [one.status for one in deliveries()] == ['failed', 'failed', 'delivered']

    def test_one_is_split_below_a_megabyte(self, receiver: Receiver, webhook):
        with transaction.atomic():
            for number in range(5):
                site(name=f's{number}', comments='x' * 300_000)
        requests = received(receiver, 3)
        assert [names(request) for request in requests] == [['s0', 's1'], ['s2', 's3'], ['s4']]

    def test_very_many_are_several_sets_and_others_wait_a_turn(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(change_sets, 'MAX_CHANGES', 3)
        make_sites(*'abcde')
        make_sites('f', 'g')
        make_sites('h', 'i')
        requests = received(receiver, 4)
        assert sorted(map(names, requests)) == [['a', 'b', 'c'], ['d', 'e'], ['f', 'g'], ['h', 'i']]
        assert {(one.json()['part'], one.json()['parts']) for one in requests} == {(1, 1)}

    def test_sets_that_are_held_count_as_others_do(self, receiver: Receiver, webhook, monkeypatch):
        """A turn has ten seconds, and reads them to see whether they may go."""
        monkeypatch.setattr(change_sets, 'MAX_CHANGES', 2)
        receiver.answers('/', 500)
        places = make_sites('a', 'b')
        work()
        for _ in range(3):
            rename(*places)
        work()
        held = Delivery.objects.filter(parts=None).order_by().values_list('webhook_id', 'change_set').distinct()
        assert len(held) == 3
        with sql.transaction() as now:
            assert len(change_sets.form(set(held), now)) == 1


class TestOrder:
    def test_all_of_a_set_waits_for_one_that_is_retried(self, receiver: Receiver, webhook):
        a, b = make_sites('a')[0], make_sites('b')[0]
        receiver.answers('/', 500, 200)
        with transaction.atomic():
            rename(a)
        work()
        retried = names(receiver.requests[0])
        so_far = len(receiver.requests)
        with transaction.atomic():
            rename(a)
            rename(b)
            site(name='c')
        work()
        assert len(receiver.requests) == so_far
        assert retried == ['a']
        assert (
            'waits for an earlier change of one of its objects'
            in why_not_sent.wait_of(deliveries(object_id=b.pk)[-1], timezone.now()).text
        )
        pass_retry_waits()
        work()
        assert names(receiver.requests[-1]) == ['c', 'a**', 'b*']

    def test_a_part_that_waits_for_a_redelivered_change_is_looked_at_later(self, receiver: Receiver, webhook):
        switch(webhook, max_attempts=1)
        receiver.answers('/', 500)
        (place,) = make_sites('a')
        work()
        switch(webhook, max_attempts=5)
        with transaction.atomic():
            site(name='b')
            rename(place)
        work()
        redelivery.redeliver(Delivery.objects.filter(status='failed'))
        again, first, _second = deliveries()
        Delivery.objects.filter(pk=again.pk).update(due_at=timezone.now() + timedelta(hours=1))
        receiver.answers('/', 200)
        pass_retry_waits(part=1, due_at__lt=timezone.now() + timedelta(minutes=30))
        was_due_at = Delivery.objects.get(pk=first.pk).due_at
        work()
        assert Delivery.objects.get(pk=first.pk).due_at > was_due_at
        assert len(receiver.requests) == 2
        pass_retry_waits(pk=again.pk)
        assert wait_until(lambda: work() and len(receiver.requests) == 4, PATIENCE)
        assert [names(request) for request in receiver.requests[2:]] == [['a'], ['b', 'a*']]

    def test_a_set_of_other_objects_does_not_wait(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        make_sites('a')
        received(receiver, 1)
        make_sites('b')
        assert names(received(receiver, 2)[1]) == ['b']

    def test_without_order_none_waits_for_another(self, receiver: Receiver, webhook):
        switch(webhook, ordered=False)
        receiver.answers('/', 500, 200)
        (place,) = make_sites('a')
        received(receiver, 1)
        rename(place)
        assert names(received(receiver, 2)[1]) == ['a*']

    def test_a_set_that_waits_goes_when_order_is_switched_off(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        (place,) = make_sites('a')
        received(receiver, 1)
        with transaction.atomic():
            rename(place)
            site(name='b')
        work()
        assert not deliveries(attempt_count=0, due_at__isnull=False)
        switch(webhook, ordered=False)
        assert tidy.step()
        # The first is tried again at once: the webhook was saved.
        assert [names(request) for request in received(receiver, 3)].count(['b', 'a*']) == 1

    def test_a_set_goes_where_the_one_that_it_waited_for_has_expired(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        (place,) = make_sites('a')
        received(receiver, 1)
        with transaction.atomic():
            rename(place)
            site(name='b')
        work()
        expire(attempt_count__gt=0)
        work()
        assert names(received(receiver, 2)[1]) == ['b', 'a*']

    def test_a_set_goes_where_what_was_to_wait_in_it_has_expired(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        (place,) = make_sites('a')
        received(receiver, 1)
        with transaction.atomic():
            rename(place)
            site(name='b')
        work()
        expire(attempt_count=0, object_id=place.pk)
        work()
        assert names(received(receiver, 2)[1]) == ['b']


class TestAgain:
    def test_a_set_stays_one_after_the_option_is_switched_off(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        make_sites('a', 'b')
        (first,) = received(receiver, 1)
        switch(webhook, change_set=False)
        pass_retry_waits()
        assert received(receiver, 2)[1].body == first.body

    def test_a_failed_set_is_redelivered_under_the_same_id(self, receiver: Receiver, webhook):
        switch(webhook, max_attempts=1)
        receiver.answers('/', 500, 200)
        make_sites('a', 'b')
        (first,) = received(receiver, 1)
        assert redelivery.redeliver(Delivery.objects.filter(pk=deliveries()[1].pk)) == 2
        second = received(receiver, 2)[1]
        assert (second.body, second.header('webhook-id')) == (first.body, first.header('webhook-id'))

    def test_a_delivered_set_is_replayed_under_a_new_id(self, receiver: Receiver, webhook):
        make_sites('a', 'b')
        (first,) = received(receiver, 1)
        assert redelivery.redeliver(redelivery.select(webhook)) == 2
        second = received(receiver, 2)[1]
        assert second.body == first.body
        assert second.header('webhook-id') != first.header('webhook-id')

    @pytest.mark.parametrize('end', [die, suspect])
    def test_a_part_in_hand_when_its_worker_died_goes_whole_and_first(self, receiver, webhook, monkeypatch, end):
        monkeypatch.setattr(lane, 'PART_DELIVERIES', 2)
        receiver.answers('/', 500, 200)
        make_sites('a', 'b', 'c')
        (first,) = received(receiver, 1)
        end(*deliveries(part=1))
        pass_retry_waits()
        # Another process tries suspects.
        assert wait_until(lambda: work() and len(receiver.requests) == 3, PATIENCE)
        assert [names(request) for request in receiver.requests] == [['a', 'b'], ['a', 'b'], ['c']]
        assert receiver.requests[1].header('webhook-id') == first.header('webhook-id')

    def test_a_suspected_part_waits_where_an_earlier_change_was_redelivered(self, receiver: Receiver, webhook):
        a, b = make_sites('a', 'b')
        received(receiver, 1)
        switch(webhook, max_attempts=1)
        receiver.answers('/', 500)
        rename(b)
        received(receiver, 2)
        earlier = Delivery.objects.filter(status='failed')
        switch(webhook, max_attempts=5)
        rename(a, b)
        received(receiver, 3)
        suspect(*deliveries(status='pending'))
        redelivery.redeliver(earlier)
        pass_retry_waits()
        Delivery.objects.filter(lapses=0, status='pending').update(due_at=timezone.now() + timedelta(hours=1))
        try_suspects()
        assert len(receiver.requests) == 3
        assert {one.attempt_count for one in deliveries(lapses__gt=0)} == {3}

    def test_a_part_of_many_is_redelivered_whole(self, receiver: Receiver, webhook, monkeypatch):
        monkeypatch.setattr(redelivery, 'DELIVERIES_PER_PART', 2)
        switch(webhook, max_attempts=1)
        receiver.answers('/', 500, 200)
        make_sites(*'abcde')
        (first,) = received(receiver, 1)
        counts: list[int] = []
        with open_transaction(lambda: Delivery.objects.select_for_update().get(pk=deliveries()[-1].pk)):
            redelivering = in_thread(lambda: counts.append(redelivery.redeliver(Delivery.objects.all())))
            assert wait_until(is_anybody_blocked, PATIENCE)
            work()  # nothing is committed yet
        redelivering.join(PATIENCE)
        assert counts == [5]
        assert received(receiver, 2)[1].body == first.body

    def test_change_sets_that_are_switched_on_later_leave_out_no_waiting_change(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        (place,) = make_sites('a')
        received(receiver, 1)
        for _ in range(2):
            rename(place)
            work()
        send_waiting.send(webhook, latest_only=True)
        assert [names(request) for request in received(receiver, 4)[1:]] == [['a'], ['a*'], ['a**']]


class TestOthersGoOn:
    def test_a_component_whose_device_is_held_waits_for_nobody(self, receiver: Receiver, webhook):
        """The device's own update waits for its row."""
        subscribe(receiver.url('/devices'), Device, Interface, include_components=True)
        port = interface(device())
        work()
        so_far = len(receiver.requests)
        with open_transaction(lambda: Device.objects.select_for_update().get(pk=port.device_id)):
            port.description = 'changed'
            port.save()
            assert wait_until(lambda: work() and len(receiver.requests) > so_far + 1, PATIENCE)
            assert Event.objects.filter(dispatched_at=None).exists()
        assert told(receiver.matching(lambda request: request.path == '/')[-1]) == [('updated', 'Interface')]

    def test_an_event_that_ends_its_process_comes_later(self, receiver: Receiver, webhook):
        _a, b = make_sites('a', 'b')
        suspect(Event.objects.get(object_id=b.pk))
        Event.objects.filter(lapses__gt=0).update(retry_at=timezone.now() + timedelta(hours=1))
        assert names(received(receiver, 1)[0]) == ['a']
        pass_retry_waits()
        assert wait_until(lambda: work() and len(receiver.requests) == 2, PATIENCE)
        assert names(receiver.requests[1]) == ['b']

    def test_a_set_that_ends_its_process_fails_by_name_and_the_next_goes(self, receiver: Receiver, webhook):
        receiver.answers('/', 500, 200)
        a, _b = make_sites('a', 'b')
        received(receiver, 1)
        Delivery.objects.update(lapses=GIVEN_UP - 1)
        rename(a)
        registration = hold(*deliveries(part=1), role=SUSPECTS)
        rescue.rescue(registration.name, 'killed by signal 9')
        work()
        assert {(one.status, 'its process died' in one.error) for one in deliveries(object_id=a.pk)[:1]} == {
            ('failed', True)
        }
        assert names(received(receiver, 2)[1]) == ['a*']
