import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Device, Site
from django.db import transaction
from django.utils import timezone
from extras.conditions import InvalidCondition
from extras.models import Tag
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, device, site, subscribe
from support.builtin import builtin_rule, request_by
from support.engine import deliveries, dispatch_all, dispatch_batch, sender, take_turns, work
from users.models import User

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.engine.dispatch import loop, matching, undecided
from webhooks.engine.dispatch.undecided import Undecided
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Delivery, Event, Health, Webhook
from webhooks.services import backlog, redelivery

pytestmark = pytest.mark.usefixtures('committed')

ACTIVE = {'attr': 'status.value', 'value': 'active'}
WITHOUT_END = {'attr': 'comments', 'op': 'regex', 'value': '(a+)+$'}
SLOW = 'a' * 40 + '!'


def dispatched() -> list[tuple[str, int]]:
    """Return (kind, object id) of each delivery."""
    dispatch_all()
    return [(one.event.kind, one.object_id) for one in deliveries()]


def skipped() -> list[int]:
    """Return, for each event, how many webhooks did not take it."""
    return list(Event.objects.order_by('sequence').values_list('skipped', flat=True))


def edit(instance: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(instance, name, value)
    instance.save()


class TestData:
    def test_an_unmet_one_makes_no_delivery_and_is_counted(self):
        subscribe(NOWHERE, Site, conditions=ACTIVE)
        active, _planned = site(status='active'), site(status='planned')
        assert dispatched() == [(CREATED, active.pk)]
        assert skipped() == [0, 1]

    def test_each_webhook_has_its_own_conditions(self):
        subscribe(NOWHERE, Site, conditions=ACTIVE)
        subscribe(NOWHERE, Site, conditions={**ACTIVE, 'negate': True})
        subscribe(NOWHERE, Site)
        site(status='active')
        assert len(dispatched()) == 2
        assert skipped() == [1]

    @pytest.mark.parametrize(
        ('conditions', 'is_met'),
        [
            ({'attr': 'name', 'value': 'Bern'}, True),
            ({'attr': 'name', 'value': 'bern'}, False),
            ({'attr': 'name', 'op': 'regex', 'value': '^B'}, True),
            ({'attr': 'name', 'op': 'in', 'value': ['Bern', 'Thun']}, True),
            ({'attr': 'tags.name', 'op': 'contains', 'value': 'core'}, True),
            ({'attr': 'tags.name', 'op': 'contains', 'value': 'edge'}, False),
            ({'attr': 'latitude', 'op': 'gt', 'value': 46}, True),
            ({'attr': 'tenant', 'value': None}, True),
            ({'attr': 'device_count', 'value': 0}, True),
            ({'and': [ACTIVE, {'attr': 'name', 'value': 'Thun'}]}, False),
            ({'or': [ACTIVE, {'attr': 'name', 'value': 'Thun'}]}, True),
            ({'and': [{'or': [{'attr': 'name', 'value': 'x'}, ACTIVE]}, {'attr': 'slug', 'value': 'bern'}]}, True),
            # As in NetBox, a condition that does not fit the data is not met.
            ({'attr': 'no.such.attribute', 'value': 1}, False),
            ({'attr': 'name', 'op': 'gt', 'value': 5}, False),
            ({'attr': 'name.more', 'value': 1, 'negate': True}, False),
        ],
    )
    def test_conditions_of_every_kind_are_evaluated(self, conditions: dict, is_met: bool):
        subscribe(NOWHERE, Site, conditions=conditions)
        with transaction.atomic():
            place = site(name='Bern', slug='bern', latitude=46.95)
            place.tags.add(Tag.objects.create(name='core', slug='core'))
        assert dispatched() == ([(CREATED, place.pk)] if is_met else [])
        assert skipped() == [0 if is_met else 1]

    def test_a_condition_that_cannot_be_evaluated_stops_no_other(self):
        subscribe(NOWHERE, Site, conditions={'attr': 'name', 'op': 'gt', 'value': 5})
        subscribe(NOWHERE, Site)
        place = site()
        assert dispatched() == [(CREATED, place.pk)]

    @pytest.mark.parametrize(
        'conditions',
        [
            ['a list'],
            {'xor': []},
            {'and': 5},
            {'and': [5]},
            {'attr': 'name', 'op': 'like', 'value': 'x'},
            {'attr': 5, 'value': 'x'},
            {'attr': 'name', 'op': 'regex', 'value': '('},
        ],
    )
    def test_a_condition_that_was_saved_unchecked_stops_no_other(
        self, conditions: Any, caplog: pytest.LogCaptureFixture
    ):
        broken = subscribe(NOWHERE, Site)
        Webhook.objects.filter(pk=broken.pk).update(conditions=conditions)
        well = subscribe(NOWHERE, Site)
        site()
        assert len(dispatched()) == 1
        assert deliveries()[0].webhook == well
        assert skipped() == [1]
        assert f'webhook={broken.pk} name={broken.name!r} ' in caplog.text


class TestSnapshots:
    """`changed` and `unchanged` compare outside requests, too."""

    @pytest.fixture
    def place(self) -> Site:
        return site(name='Bern', status='planned')

    @pytest.mark.parametrize(
        ('conditions', 'edited', 'is_met'),
        [
            ({'attr': 'status', 'op': 'changed'}, {'status': 'active'}, True),
            ({'attr': 'status', 'op': 'changed'}, {'name': 'Thun'}, False),
            ({'attr': 'status', 'op': 'unchanged'}, {'name': 'Thun'}, True),
            ({'attr': 'status', 'op': 'changed', 'negate': True}, {'name': 'Thun'}, True),
            ({'and': [{'attr': 'status', 'op': 'changed'}, ACTIVE]}, {'status': 'active'}, True),
            ({'and': [{'attr': 'status', 'op': 'changed'}, ACTIVE]}, {'status': 'retired'}, False),
            ({'attr': 'snapshots.prechange.status', 'value': 'planned'}, {'status': 'active'}, True),
            ({'attr': 'snapshots.postchange.status', 'value': 'active'}, {'status': 'active'}, True),
            ({'attr': 'custom_fields', 'op': 'changed'}, {'status': 'active'}, False),
        ],
    )
    def test_a_change_of_a_field_is_seen(self, place: Site, conditions: dict, edited: dict, is_met: bool):
        subscribe(NOWHERE, Site, conditions=conditions)
        edit(place, **edited)
        assert dispatched() == ([(UPDATED, place.pk)] if is_met else [])

    def test_a_change_of_tags_is_seen(self, place: Site):
        subscribe(NOWHERE, Site, conditions={'attr': 'tags', 'op': 'changed'})
        edit(place, name='Thun')
        place.tags.add(Tag.objects.create(name='core', slug='core'))
        assert dispatched() == [(UPDATED, place.pk)]
        assert skipped() == [1, 0]

    def test_the_change_is_that_of_the_whole_transaction(self, place: Site):
        subscribe(NOWHERE, Site, conditions={'attr': 'status', 'op': 'changed'})
        with transaction.atomic():
            edit(place, status='active')
            edit(place, name='Thun')
        with transaction.atomic():
            edit(place, status='planned')
            edit(place, status='active')
        assert dispatched() == [(UPDATED, place.pk)]
        assert skipped() == [0, 1]

    def test_creation_and_deletion_change_every_field(self):
        subscribe(NOWHERE, Site, conditions={'attr': 'status', 'op': 'changed'})
        place = site()
        pk = place.pk
        place.delete()
        assert dispatched() == [(CREATED, pk), (DELETED, pk)]

    def test_a_save_that_changed_nothing_is_kept_out(self, place: Site):
        conditions = {'or': [{'attr': name, 'op': 'changed'} for name in ('name', 'status', 'description')]}
        subscribe(NOWHERE, Site, conditions=conditions)
        place.save()
        assert dispatched() == []
        edit(place, description='changed')
        assert dispatched() == [(UPDATED, place.pk)]

    def test_a_change_of_a_relation_is_seen_by_its_id(self):
        machine = device()
        subscribe(NOWHERE, Device, conditions={'attr': 'site', 'op': 'changed'})
        edit(machine, name='renamed')
        edit(machine, site=site())
        assert dispatched() == [(UPDATED, machine.pk)]
        assert skipped() == [1, 0]


def test_the_builtin_decides_the_same(receiver: Receiver, netbox_user, drain):
    """Rules and webhooks get the same conditions and changes."""
    conditions = [
        ACTIVE,
        {'attr': 'status', 'op': 'changed'},
        {'attr': 'name', 'op': 'changed', 'negate': True},
        {'attr': 'snapshots.prechange.status', 'value': 'planned'},
        {'attr': 'tenant.name', 'value': 'x'},
        {'attr': 'tags.slug', 'op': 'contains', 'value': 'core'},
    ]
    for number, condition in enumerate(conditions):
        builtin_rule(Site, payload_url=receiver.url(f'/{number}/builtin'), rule_conditions=condition)
        subscribe(receiver.url(f'/{number}/ours'), Site, conditions=condition)
    with request_by(netbox_user):
        place = site(status='planned')
    for fields in ({'status': 'active'}, {'name': 'Thun'}, {}):
        with request_by(netbox_user):
            place = Site.objects.get(pk=place.pk)
            place.snapshot()
            edit(place, **fields)
    with request_by(netbox_user):
        place = Site.objects.get(pk=place.pk)
        place.snapshot()
        place.tags.add(Tag.objects.create(name='core', slug='core'))
    with request_by(netbox_user):
        place.delete()
    drain()
    work()
    told = [(request.path, request.json()['event']) for request in receiver.requests]
    for number in range(len(conditions)):
        ours = sorted(event for path, event in told if path == f'/{number}/ours')
        theirs = sorted(event for path, event in told if path == f'/{number}/builtin')
        assert ours == theirs, conditions[number]
    assert {path for path, _event in told} > {'/0/ours', '/1/ours', '/2/ours', '/3/ours', '/5/ours'}


class TestIgnoredUsers:
    @pytest.fixture
    def robot(self) -> User:
        return User.objects.create_user(username='robot')

    def test_changes_of_ignored_users_are_not_sent_and_are_counted_as_skipped(self, robot: User, netbox_user):
        subscribe(NOWHERE, Site, ignore_users=[robot])
        subscribe(NOWHERE, Site)
        with request_by(robot):
            ignored = site()
        with request_by(netbox_user):
            place = site()
        assert dispatched() == [(CREATED, ignored.pk), (CREATED, place.pk), (CREATED, place.pk)]
        assert skipped() == [1, 0]

    def test_changes_outside_requests_are_sent(self, robot: User):
        subscribe(NOWHERE, Site, ignore_users=[robot])
        place = site()
        assert dispatched() == [(CREATED, place.pk)]

    def test_a_receiver_that_writes_back_starts_no_loop(self, robot: User, netbox_user, receiver: Receiver):
        subscribe(receiver.url('/'), Site, ignore_users=[robot])
        with request_by(netbox_user):
            place = site()
        work()
        receiver.wait_for(1)
        for _ in range(3):
            with request_by(robot):
                edit(place, description='seen by the receiver')
            work()
        assert len(receiver.requests) == 1


class TestLater:
    def test_a_change_that_did_not_meet_the_conditions_is_not_redelivered(self):
        webhook = subscribe(NOWHERE, Site, conditions=ACTIVE, max_attempts=1)
        site(status='planned')
        assert dispatched() == []
        assert redelivery.redeliver(redelivery.select(webhook)) == 0
        site(status='active')
        assert work() == '1 failed'
        assert redelivery.redeliver(redelivery.select(webhook)) == 1

    def test_conditions_are_those_of_the_moment_of_dispatch(self):
        webhook = subscribe(NOWHERE, Site, conditions=ACTIVE)
        place = site(status='planned')
        Webhook.objects.filter(pk=webhook.pk).update(conditions=None)
        assert dispatched() == [(CREATED, place.pk)]


class TestSlow:
    def test_it_is_not_met_and_stops_no_other(self, caplog: pytest.LogCaptureFixture):
        subscribe(NOWHERE, Site, conditions={'attr': 'comments', 'op': 'regex', 'value': '(a+)+$'})
        quick = subscribe(NOWHERE, Site, conditions={'attr': 'comments', 'op': 'regex', 'value': 'a+!'})
        place = site(comments='a' * 40 + '!')
        assert dispatched() == [(CREATED, place.pk)]
        assert deliveries()[0].webhook == quick
        assert skipped() == [1]
        assert 'it takes more than' in caplog.text

    def test_conditions_are_evaluated_as_before_after_one_that_was_too_slow(self):
        subscribe(NOWHERE, Site, conditions={'attr': 'comments', 'op': 'regex', 'value': '(a+)+$'})
        _slow, place = site(comments='a' * 40 + '!'), site(comments='aaa')
        assert dispatched() == [(CREATED, place.pk)]

    def test_each_change_is_decided_however_slow_earlier_ones_were(self, caplog: pytest.LogCaptureFixture):
        webhook, plain = subscribe(NOWHERE, Site, conditions=WITHOUT_END), subscribe(NOWHERE, Site)
        for comments in (*[SLOW] * 4, 'aaa'):
            site(comments=comments)
        dispatch_all()
        assert caplog.text.count('it takes more than') == 4
        assert skipped() == [1, 1, 1, 1, 0]
        assert [one.webhook for one in deliveries()].count(plain) == 5
        assert [one.webhook for one in deliveries()].count(webhook) == 1

    def test_other_webhooks_get_a_change_before_many_comparisons_are_made(self):
        few, many = (subscribe(NOWHERE, Site, conditions={'or': [ACTIVE] * count}) for count in (20, 21))
        with evaluation_stopped():
            site()
            dispatch_all()
        assert {one.webhook: one.status for one in deliveries()} == {few: 'pending', many: 'undecided'}
        dispatch_all()
        assert {one.status for one in deliveries()} == {'pending'}

    def test_other_webhooks_get_a_change_before_a_regular_expression_is_evaluated(self):
        plain = subscribe(NOWHERE, Site)
        slow = subscribe(NOWHERE, Site, conditions=WITHOUT_END)
        with evaluation_stopped():
            site(comments='aaa')
            dispatch_all()
        assert {one.webhook: one.status for one in deliveries()} == {plain: 'pending', slow: 'undecided'}
        dispatch_all()
        assert {one.webhook: one.status for one in deliveries()} == {plain: 'pending', slow: 'pending'}

    def test_a_later_change_waits_for_an_undecided_one_of_its_object(self, receiver: Receiver):
        webhook = subscribe(receiver.url('/hook'), Site, conditions={**WITHOUT_END, 'value': 'a+$'})
        place = site(comments='aaa')
        with evaluation_stopped():
            dispatch_all()
            edit(webhook, conditions=None)
            edit(place, name='Bern')
            dispatch_all()
            with sender() as (_pk, opened):
                assert not opened.turn()
        assert receiver.requests == []
        assert work() == '2 delivered'
        assert [one.json()['event'] for one in receiver.requests] == [CREATED, UPDATED]

    def test_a_later_change_goes_when_an_undecided_one_is_not_met(self, receiver: Receiver):
        webhook = subscribe(receiver.url('/hook'), Site, conditions={**WITHOUT_END, 'value': 'b'})
        place = site(comments='aaa')
        with evaluation_stopped():
            dispatch_all()
            Webhook.objects.filter(pk=webhook.pk).update(conditions=ACTIVE)
            edit(place, name='Bern')
            dispatch_all()
            with sender() as (_pk, opened):
                assert not opened.turn()
        Webhook.objects.filter(pk=webhook.pk).update(conditions={**WITHOUT_END, 'value': 'b'})
        assert work() == '1 delivered'
        assert [one.json()['event'] for one in receiver.requests] == [UPDATED]

    def test_a_change_set_waits_until_all_of_it_is_decided(self, receiver: Receiver):
        subscribe(receiver.url('/hook'), Site, change_set=True, conditions={**WITHOUT_END, 'value': 'a+$'})
        with transaction.atomic():
            for number, comments in enumerate(('aaa', 'bbb', 'aa')):
                site(name=str(number), slug=str(number), comments=comments)
        with evaluation_stopped(after=1):
            dispatch_batch()
            with sender() as (_pk, opened):
                for _ in range(3):  # one reads its first delivery, the next would form it
                    opened.turn()
        assert receiver.requests == []
        work()
        (request,) = receiver.requests
        assert [one['data']['comments'] for one in request.json()['changes']] == ['aaa', 'aa']

    def test_the_change_sets_of_others_do_not_wait_until_it_is_decided(self, receiver: Receiver):
        subscribe(receiver.url('/hook'), Site, change_set=True)
        subscribe(NOWHERE, Site, change_set=True, conditions={**WITHOUT_END, 'value': 'a+$'})
        with evaluation_stopped():
            site(comments='aaa')
            dispatch_all()
            with sender() as (_pk, opened):
                assert take_turns(opened, lambda: receiver.requests)

    def test_an_undecided_delivery_expires_too(self):
        subscribe(NOWHERE, Site, conditions=WITHOUT_END)
        with evaluation_stopped():
            site(comments='aaa')
            dispatch_all()
            assert backlog.measure().oldest
            Delivery.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
            tidy.expire()
        assert [one.status for one in deliveries()] == ['failed']

    def test_one_that_expired_is_evaluated_when_somebody_redelivers_it(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, conditions={**WITHOUT_END, 'value': 'a+$'})
        with evaluation_stopped():
            met, _unmet = site(comments='aaa'), site(comments='b')
            dispatch_all()
            Delivery.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
            tidy.expire()
        assert redelivery.redeliver(redelivery.select()) == 2
        work()
        assert [request.json()['data']['id'] for request in receiver.requests] == [met.pk]
        assert [one.status for one in deliveries()] == ['delivered']

    def test_a_webhook_that_decides_nothing_keeps_no_other_from_its_turn(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(undecided, 'STEP_SECONDS', 60)
        stuck, _other = [subscribe(NOWHERE, Site, conditions={**WITHOUT_END, 'value': 'b'}) for _ in range(2)]
        with evaluation_stopped():
            site(comments='aaa')
            dispatch_all()
        Health.objects.filter(webhook=stuck).delete()  # nobody can lock its lane
        Undecided().step()
        assert [one.webhook for one in deliveries()] == [stuck]

    def test_webhooks_take_turns(self, monkeypatch: pytest.MonkeyPatch):
        slow, quick = [
            subscribe(NOWHERE, Site, conditions={**WITHOUT_END, 'value': value}) for value in ('(a+)+$', 'a+!')
        ]
        with evaluation_stopped():
            for _ in range(10):
                site(comments=SLOW)
            dispatch_all()
        turns = Undecided()
        monkeypatch.setattr(undecided, 'STEP_SECONDS', 0)
        assert turns.step() and turns.step()
        left = [one.webhook for one in deliveries() if one.status == 'undecided']
        assert left.count(slow) < 10
        assert left.count(quick) < 10

    def test_those_that_are_decided_in_between_go_on(self):
        subscribe(NOWHERE, Site, conditions=WITHOUT_END)
        for comments in (SLOW, SLOW, 'aaa', SLOW, SLOW, 'aaa'):
            site(comments=comments)
        assert len(dispatched()) == 2

    def test_others_need_not_wait_until_a_slice_is_decided(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(loop, 'BATCH_SECONDS', 0)
        subscribe(NOWHERE, Site, conditions=ACTIVE)
        places = [site(status='active') for _ in range(3)]
        assert dispatch_batch() == 3
        assert [one.object_id for one in deliveries()] == [places[0].pk]
        assert dispatched() == [(CREATED, place.pk) for place in places]

    def test_the_time_limit_of_conditions_does_not_count_other_threads(self):
        """The timer measures the whole process, where 64 threads may send."""

        class Busy:
            def __contains__(self, item: object) -> bool:
                thread = threading.Thread(target=burn)
                thread.start()
                thread.join()
                return True

        assert matching.are_met({'attr': 'name', 'op': 'contains', 'value': 'Bern'}, {'name': Busy()})

    def test_a_slow_condition_is_given_up_while_other_threads_work(self):
        burning = threading.Thread(target=burn)
        burning.start()
        clock = time.pthread_getcpuclockid(burning.ident)
        assert wait_until(lambda: time.clock_gettime(clock) > 0.005, timeout=30)
        with pytest.raises(InvalidCondition, match='it takes more than'):
            matching.are_met({'attr': 'name', 'op': 'regex', 'value': '(a+)+$'}, {'name': 'a' * 40 + '!'})
        burning.join()


@contextmanager
def evaluation_stopped(after: int = 0) -> Iterator[None]:
    """No time for conditions that may be slow is left, but for so many deliveries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(undecided, 'TURN_DELIVERIES', after)
        patch.setattr(undecided, 'STEP_SECONDS', 0)
        yield


def burn() -> None:
    """Use processor time, several times the limit, without Python's lock."""
    hashlib.pbkdf2_hmac('sha256', b'', b'', 1_000_000)
