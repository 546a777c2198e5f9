"""Only an object's last waiting change is sent, and tells which it replaces."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Site
from django.utils import timezone
from support.builders import CREATED, DELETED, UPDATED, site, subscribe
from support.cases import first
from support.engine import deliveries, die, dispatch_all, health, hold, pass_retry_waits, suspect, work
from support.log import delivery, event

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.deliver import superseding
from webhooks.models import Delivery, Event, Health, Webhook, Worker
from webhooks.services import preview, redelivery

pytestmark = pytest.mark.usefixtures('committed')

PENDING, _SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, latest_only=True)


@contextmanager
def away() -> Iterator[None]:
    """Changes are dispatched but not sent."""
    Webhook.objects.update(paused=True)
    yield
    dispatch_all()
    Webhook.objects.update(paused=False)


def existing(**fields: Any) -> Site:
    """Return a site whose changes are all sent."""
    place = site(**fields)
    work()
    Delivery.objects.all().delete()
    Event.objects.all().delete()
    return place


def rename(place: Site, name: str) -> None:
    place.snapshot()
    place.name = name
    place.save()


def told(receiver: Receiver) -> list[tuple[str, str]]:
    return [(request.json()['event'], request.json()['data']['name']) for request in receiver.requests]


def statuses() -> list[str]:
    return [one.status for one in deliveries()]


def settle() -> int:
    """Send nothing. Returns how many were closed."""
    objects = [(one.webhook_id, one.object_type_id, one.object_id) for one in deliveries(PENDING)]
    in_hand = [pk for worker in Worker.objects.all() for pk in worker.deliveries]
    with sql.transaction() as now:
        return superseding.supersede(objects, now, in_hand).total()


STEPS = {
    'c': lambda place: place.save(force_insert=True),
    'u': lambda place: place.save(),
    'd': lambda place: Site.objects.get(pk=place.pk).delete(),
}


# tests/unit/engine/test_fold.py has all of them. `--long`: each through a worker.
@pytest.mark.parametrize(
    ('steps', 'expected'),
    first(
        5,
        [
            ('cuu', [(CREATED, '3')]),
            ('uuu', [(UPDATED, '3')]),
            ('ud', [(DELETED, '1')]),
            ('cuud', []),
            # Same primary key: both deletion and creation are sent.
            ('dcu', [(DELETED, '0'), (CREATED, '3')]),
            ('c', [(CREATED, '1')]),
            ('u', [(UPDATED, '1')]),
            ('d', [(DELETED, '0')]),
            ('cd', []),
            ('cdcu', [(CREATED, '4')]),
            ('dcd', [(DELETED, '0')]),
        ],
    ),
)
def test_waiting_changes_of_an_object_become_one_that_says_the_same(webhook, receiver, steps, expected):
    place = Site(name='0', slug='place') if steps[0] == 'c' else existing(name='0', slug='place')
    receiver.clear()
    with away():
        for number, step in enumerate(steps, 1):
            place.name = str(number) if step != 'd' else place.name
            STEPS[step](place)
    assert len(deliveries(PENDING)) == len(steps)
    work()
    assert told(receiver) == expected
    assert sorted(statuses()) == sorted([DELIVERED] * len(expected) + [SUPERSEDED] * (len(steps) - len(expected)))
    assert health(webhook).superseded == len(steps) - len(expected)


class TestOption:
    def test_it_is_off_by_default(self, receiver):
        subscribe(receiver.url(HOOK), Site)
        with away():
            place = site(name='a')
            rename(place, 'b')
        assert work() == '2 delivered'
        assert told(receiver) == [(CREATED, 'a'), (UPDATED, 'b')]

    def test_a_webhook_that_does_not_ask_gets_everything_beside_one_that_does(self, webhook, receiver):
        subscribe(receiver.url('/all'), Site)
        with away():
            place = site(name='a')
            rename(place, 'b')
        assert work() == '3 delivered, 1 replaced'
        assert [request.path for request in receiver.requests].count('/all') == 2

    def test_objects_are_kept_apart(self, webhook, receiver):
        with away():
            places = [site(name=name) for name in 'ab']
            rename(places[0], 'c')
        work()
        assert sorted(told(receiver)) == [(CREATED, 'b'), (CREATED, 'c')]

    def test_nothing_waits_for_it(self, webhook, receiver):
        place = site(name='a')
        assert work() == '1 delivered'
        rename(place, 'b')
        assert work() == '1 delivered'
        assert told(receiver) == [(CREATED, 'a'), (UPDATED, 'b')]

    def test_changes_become_one_without_order_too(self, webhook, receiver):
        Webhook.objects.update(ordered=False)
        with away():
            place = site(name='a')
            for name in 'bcd':
                rename(place, name)
        work()
        assert told(receiver) == [(CREATED, 'd')]

    def test_more_waits_than_one_look_sees(self, webhook, receiver):
        Webhook.objects.update(concurrency=3)
        with away():
            places = [site(name=f'{number}') for number in range(12)]
            for number in range(17):
                for place in places:
                    rename(place, f'{place.pk}-{number}')
        assert work() == '12 delivered, 204 replaced'
        assert sorted(told(receiver)) == sorted((CREATED, f'{place.pk}-16') for place in places)

    @pytest.mark.parametrize('steps', ['uuuuuuuu', 'uuuuuuud'])
    def test_more_waits_for_one_object_than_one_look_sees(self, webhook, receiver, monkeypatch, steps):
        monkeypatch.setattr(superseding, 'DELIVERIES_PER_OBJECT', 3)
        place = existing(name='0', slug='place')
        receiver.clear()
        with away():
            for number, step in enumerate(steps, 1):
                place.name = str(number) if step == 'u' else place.name
                STEPS[step](place)
        assert work() == '1 delivered, 7 replaced'
        assert len(receiver.requests) == 1

    def test_with_a_rate_limit_each_object_is_sent_once(self, webhook, receiver):
        Webhook.objects.update(rate_limit=1)
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        assert told(receiver) == [(CREATED, 'b')]

    def test_an_update_that_does_not_meet_the_conditions_supersedes_nothing(self, webhook, receiver):
        """The earlier accepted change is sent."""
        Webhook.objects.update(conditions={'attr': 'name', 'value': 'no', 'negate': True})
        with away():
            place = site(name='a')
            rename(place, 'b')
            rename(place, 'no')
        assert work() == '1 delivered, 1 replaced'
        assert told(receiver) == [(CREATED, 'b')]

    def test_a_deletion_is_sent_where_the_creation_after_it_does_not_meet_the_conditions(self, webhook, receiver):
        Webhook.objects.update(conditions={'attr': 'name', 'value': 'no', 'negate': True})
        place = existing(name='a')
        receiver.clear()
        with away():
            STEPS['d'](place)
            place.name = 'no'
            STEPS['c'](place)
            rename(place, 'b')
        work()
        assert told(receiver) == [(DELETED, 'a'), (UPDATED, 'b')]

    def test_a_suspended_endpoint_is_probed_with_the_last(self, webhook, receiver):
        with away():
            place = site(name='a')
            rename(place, 'b')
        now = timezone.now()
        Health.objects.update(suspended_since=now, probe_at=now, unreachable=5)
        work()
        assert told(receiver) == [(CREATED, 'b')]
        assert health(webhook).suspended_since is None


class TestInHand:
    """A receiver may have seen a change that is under way."""

    @pytest.fixture
    def place(self, webhook) -> Site:
        place = site(name='a')
        dispatch_all()
        (self.creation,) = deliveries()
        self.worker = hold(self.creation)
        return place

    @pytest.fixture
    def refused(self, webhook, receiver) -> Site:
        receiver.answers(HOOK, 500, 200)
        place = site(name='a')
        assert work() == '1 to retry'
        receiver.clear()
        return place

    def answered(self) -> None:
        Delivery.objects.filter(pk=self.creation.pk).update(state=DELIVERED, attempt_count=1, due_at=None)
        self.worker.end()

    def test_the_last_of_what_waits_behind_it_is_sent(self, place, receiver):
        for name in 'bcd':
            rename(place, name)
        dispatch_all()
        assert settle() == 2
        assert statuses() == [PENDING, SUPERSEDED, SUPERSEDED, PENDING]
        self.answered()
        work()
        assert told(receiver) == [(UPDATED, 'd')]

    def test_a_deletion_is_sent(self, place, receiver):
        rename(place, 'b')
        place.delete()
        dispatch_all()
        assert settle() == 1
        self.answered()
        work()
        assert told(receiver) == [(DELETED, 'b')]
        assert statuses() == [DELIVERED, SUPERSEDED, DELIVERED]

    def test_a_deletion_is_sent_although_the_creation_was_refused(self, refused, receiver):
        """The receiver may have acted on the creation before it failed."""
        refused.delete()
        dispatch_all()
        pass_retry_waits()
        work()
        assert told(receiver) == [(DELETED, 'a')]
        assert statuses() == [SUPERSEDED, DELIVERED]

    def test_a_creation_that_may_not_have_been_seen_is_sent_again(self, refused, receiver):
        rename(refused, 'b')
        assert work() == '1 delivered, 1 replaced'
        assert told(receiver) == [(CREATED, 'b')]

    def test_a_creation_that_may_have_been_seen_counts_as_seen_later_too(self, refused, receiver):
        rename(refused, 'b')
        dispatch_all()
        assert settle() == 1
        refused.delete()
        dispatch_all()
        work()
        assert told(receiver) == [(DELETED, 'b')]

    def test_a_creation_in_hand_that_was_not_begun_is_replaced_with_its_deletion(self, place, receiver):
        self.worker.end()
        place.delete()
        dispatch_all()
        assert work() == '2 replaced'
        assert not receiver.requests

    def test_a_change_that_comes_does_not_wait_for_the_retry_of_one_before(self, refused):
        assert deliveries()[0].due_at > timezone.now()
        rename(refused, 'b')
        assert work() == '1 delivered, 1 replaced'

    def test_nothing_overtakes_what_a_stopped_worker_had_in_hand(self, webhook, receiver):
        """Its request may still arrive: then an earlier state would come last."""
        place = site(name='a')
        dispatch_all()
        die(*deliveries())
        assert deliveries()[0].due_at > timezone.now()
        rename(place, 'b')
        dispatch_all()
        assert settle() == 0
        assert work() == 'nothing to send'
        pass_retry_waits()
        assert work() == '1 delivered, 1 replaced'
        assert told(receiver) == [(CREATED, 'b')]

    def test_an_attempted_change_supersedes_nothing_and_says_the_same_again(self, webhook, receiver):
        """It is repeated under its `webhook-id`, so it supersedes nothing."""
        with away():
            place = site(name='a')
            rename(place, 'b')
        Delivery.objects.filter(event__kind=UPDATED).update(attempt_count=1, error='HTTP 500')
        work()
        assert told(receiver) == [(CREATED, 'a'), (UPDATED, 'b')]
        assert statuses() == [DELIVERED, DELIVERED]

    def test_but_it_is_superseded_by_what_was_not(self, webhook, receiver):
        with away():
            place = site(name='a')
            for name in 'bc':
                rename(place, name)
        second = deliveries()[1]
        Delivery.objects.filter(pk=second.pk).update(attempt_count=1, error='HTTP 500')
        work()
        assert told(receiver) == [(CREATED, 'c')]

    @pytest.mark.parametrize('is_in_hand', [False, True], ids=['delivered', 'in hand'])
    def test_a_deletion_is_sent_where_a_later_change_went_before_the_creation(self, webhook, is_in_hand):
        """As if `ordered` was off before."""
        with away():
            places = [site(name=name) for name in 'ab']
            for place in places:
                rename(place, f'{place.name}*')
            places[0].delete()
        if is_in_hand:
            hold(*deliveries(event__kind=UPDATED))
        else:
            Delivery.objects.filter(event__kind=UPDATED).update(state=DELIVERED, attempt_count=1, due_at=None)
        assert settle() == 1
        assert [one.event.kind for one in deliveries(PENDING) if one.event.kind != UPDATED] == [CREATED, DELETED]

    def test_a_creation_that_only_another_receiver_got_is_replaced_with_its_deletion(self, webhook, receiver):
        subscribe(receiver.url('/all'), Site)
        Webhook.objects.filter(pk=webhook.pk).update(paused=True)
        places = [site(name=name) for name in 'ab']
        for place in places:
            rename(place, f'{place.name}*')
        work()
        for place in places:
            place.delete()
        dispatch_all()
        Webhook.objects.update(paused=False)
        work()
        assert {request.path for request in receiver.requests} == {'/all'}
        assert [one.status for one in deliveries(webhook=webhook)] == [SUPERSEDED] * 6

    def test_a_suspect_is_left_alone(self, place, receiver):
        """A separate process sends it, without knowing later changes."""
        suspect(self.creation)
        self.worker.end()
        for name in 'bc':
            rename(place, name)
        dispatch_all()
        pass_retry_waits()
        work()
        assert told(receiver) == [(CREATED, 'a'), (UPDATED, 'c')]

    def test_switched_on_while_one_waits_behind_another(self, refused, receiver):
        Webhook.objects.update(latest_only=False)
        rename(refused, 'b')
        assert work() == 'nothing to send'
        Webhook.objects.update(latest_only=True)
        pass_retry_waits()
        work()
        assert told(receiver) == [(CREATED, 'b')]
        assert statuses() == [SUPERSEDED, DELIVERED]


class TestSpan:
    """`snapshots` and `differences` span all skipped changes."""

    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url(HOOK), Site, latest_only=True, include_snapshots=True)

    def names(self, receiver: Receiver) -> tuple[str | None, str | None]:
        (request,) = receiver.requests
        before, after = request.json()['snapshots'].values()
        return before and before['name'], after and after['name']

    def test_merged_updates_span_from_the_first_before_to_the_last_after(self, webhook, receiver):
        place = existing(name='a')
        receiver.clear()
        with away():
            for name in 'bcd':
                rename(place, name)
        work()
        assert self.names(receiver) == ('a', 'd')
        assert receiver.requests[0].json()['differences']['changed']['name'] == ['a', 'd']

    def test_a_span_that_grows_step_by_step_shows_the_first_state_before(self, webhook, receiver):
        place = existing(name='a')
        receiver.clear()
        with away():
            for name in 'bcd':
                rename(place, name)
                dispatch_all()
                settle()
        work()
        assert self.names(receiver) == ('a', 'd')

    def test_a_creation_that_takes_in_updates_has_nothing_before_it(self, webhook, receiver):
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        assert self.names(receiver) == (None, 'b')
        body = receiver.requests[0].json()
        assert body['event'] == CREATED
        assert body['differences']['added']['name'] == 'b'

    def test_a_deletion_that_takes_in_updates_begins_before_them(self, webhook, receiver):
        place = existing(name='a')
        receiver.clear()
        with away():
            rename(place, 'b')
            place.delete()
        work()
        assert self.names(receiver) == ('a', None)

    def test_a_deletion_begins_with_the_creation_that_may_have_been_seen(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        place = site(name='a')
        work()
        receiver.clear()
        with away():
            rename(place, 'b')
            place.delete()
        work()
        assert self.names(receiver) == ('a', None)

    def test_a_deletion_merged_step_by_step_begins_with_the_creation_that_may_have_been_seen(self, webhook, receiver):
        """The receiver may know only what was attempted."""
        receiver.answers(HOOK, 500, 200)
        place = site(name='a')
        work()
        receiver.clear()
        with away():
            for name in 'bc':
                rename(place, name)
                dispatch_all()
                settle()
            place.delete()
        work()
        assert self.names(receiver) == ('a', None)

    def wait_unknown(self, place: Site, name: str) -> None:
        Webhook.objects.update(include_snapshots=False)
        rename(place, name)
        dispatch_all()
        Webhook.objects.update(include_snapshots=True)

    def test_a_merged_update_begins_with_the_first_state_that_is_known(self, webhook, receiver):
        place = existing(name='a')
        receiver.clear()
        with away():
            self.wait_unknown(place, 'b')
            rename(place, 'c')
        work()
        assert self.names(receiver) == ('b', 'c')
        assert receiver.requests[0].json()['differences']['changed']['name'] == ['b', 'c']

    def test_a_merged_deletion_begins_with_the_first_state_that_is_known(self, webhook, receiver):
        place = existing(name='a')
        receiver.clear()
        with away():
            self.wait_unknown(place, 'b')
            place.delete()
        work()
        assert self.names(receiver) == ('b', None)

    def test_a_merged_creation_has_nothing_before_it_if_that_is_not_known(self, webhook, receiver):
        Webhook.objects.update(include_snapshots=False)
        with away():
            place = site(name='a')
            self.wait_unknown(place, 'b')
            rename(place, 'c')
        work()
        assert self.names(receiver) == (None, 'c')
        assert receiver.requests[0].json()['event'] == CREATED

    def test_the_sequence_and_the_id_are_those_of_the_last(self, webhook, receiver):
        with away():
            place = site(name='a')
            rename(place, 'b')
        last = Event.objects.order_by('sequence').last()
        work()
        body = receiver.requests[0].json()
        assert (body['id'], body['sequence']) == (str(last.uuid), last.sequence)

    def test_the_format_of_netbox_shows_it_as_a_creation(self, webhook, receiver):
        Webhook.objects.update(payload_format='netbox')
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        assert self.names(receiver) == (None, 'b')
        assert receiver.requests[0].json()['event'] == CREATED

    def test_cloudevents_show_it_as_a_creation(self, webhook, receiver):
        Webhook.objects.update(payload_format='cloudevents')
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        body = receiver.requests[0].json()
        assert body['type'] == 'netbox.dcim.site.created'
        assert body['data']['snapshots']['prechange'] is None

    def test_a_template_sees_it_as_a_creation(self, webhook, receiver):
        Webhook.objects.update(body_template='{{ event }} {{ snapshots.prechange }} {{ data.name }}')
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        assert receiver.requests[0].body == b'created None b'

    def test_the_log_shows_it(self, webhook, receiver):
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        shown = [json.loads(preview.body_of(one)) for one in deliveries()]
        assert [one['event'] for one in shown] == [CREATED, CREATED]
        assert [one['data']['name'] for one in shown] == ['a', 'b']

    def test_another_webhook_gets_the_same_event_unchanged(self, webhook, receiver):
        subscribe(receiver.url('/all'), Site, include_snapshots=True)
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        (last,) = [
            request.json()
            for request in receiver.requests
            if request.path == '/all' and request.json()['data']['name'] == 'b'
        ]
        assert last['event'] == UPDATED
        assert last['snapshots']['prechange']['name'] == 'a'


class TestLeftAlone:
    """These deliveries are sent unmerged."""

    def two(self, webhook: Webhook, **fields: Any) -> None:
        """Two deliveries wait for one object; the fields belong to the second event."""
        place = existing(name='a')
        for number in range(2):
            told = event(place, **(fields if number else {}))
            delivery(told, webhook, 0, status=PENDING, error='', response_status=None, due_at=timezone.now())
        Delivery.objects.update(expires_at=timezone.now() + timedelta(days=1))

    def test_changes_do_take_part(self, webhook):
        self.two(webhook)
        assert settle() == 1

    @pytest.mark.parametrize(
        'fields',
        [{'transaction_id': 0}, {'transaction_id': 0, 'kind': 'deleted'}, {'error': 'it cannot be built', 'data': ''}],
        ids=['a test, or of an event rule', 'a deletion of an event rule, perhaps rolled back', 'not rendered'],
    )
    def test_others_neither_supersede_nor_are_superseded(self, webhook, fields):
        self.two(webhook, **fields)
        assert settle() == 0
        assert statuses() == [PENDING, PENDING]

    def test_a_delivery_that_was_held_behind_a_superseded_one_is_due_at_once(self, webhook):
        place, now = existing(name='a'), timezone.now()
        waiting = {'status': PENDING, 'error': '', 'response_status': None}
        delivery(event(place), webhook, 1, due_at=now + timedelta(hours=1), **waiting)
        delivery(event(place, kind='job_ended', transaction_id=0), webhook, 0, due_at=None, **waiting)
        delivery(event(place), webhook, 0, due_at=None, **waiting)
        assert settle() == 1
        assert [bool(one.due_at) for one in deliveries(PENDING)] == [True, True]


class TestRedelivery:
    def test_a_redelivery_that_a_later_delivery_covers_is_superseded_again(self, webhook, receiver):
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        receiver.clear()
        with away():
            redelivery.redeliver(Delivery.objects.filter(status=SUPERSEDED))
            rename(place, 'c')
        assert work() == '1 delivered, 1 replaced'
        assert told(receiver) == [(CREATED, 'c')]

    def test_a_replay_ends_with_one_request_an_object(self, webhook, receiver):
        place = site(name='a')
        work()
        rename(place, 'b')
        work()
        receiver.clear()
        with away():
            redelivery.redeliver(redelivery.select(webhook))
        work()
        assert told(receiver) == [(CREATED, 'b')]

    def test_a_redelivered_merged_change_says_the_same_again(self, webhook, receiver):
        Webhook.objects.update(include_snapshots=True)
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        redelivery.redeliver(redelivery.select(webhook))
        work()
        first, second = [request.json() for request in receiver.requests]
        assert first == second

    @pytest.mark.parametrize('which', [DELIVERED, SUPERSEDED])
    def test_a_deletion_behind_a_redelivered_creation_is_sent(self, webhook, receiver, which):
        """The receiver knows the object from before."""
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        receiver.clear()
        with away():
            redelivery.redeliver(Delivery.objects.filter(status=which))
            place.delete()
        work()
        assert told(receiver) == [(DELETED, 'b')]

    def test_a_deletion_behind_a_redelivered_creation_is_sent_even_if_the_log_has_no_more(self, webhook, receiver):
        with away():
            place = site(name='a')
            rename(place, 'b')
        work()
        receiver.clear()
        with away():
            redelivery.redeliver(Delivery.objects.filter(status=SUPERSEDED))
            Delivery.objects.filter(status=DELIVERED).delete()
            place.delete()
        work()
        assert told(receiver) == [(DELETED, 'b')]

    def test_a_redelivered_one_that_stands_for_others_has_all_its_attempts(self, webhook, receiver):
        with away():
            place = existing(name='a')
            rename(place, 'b')
            rename(place, 'c')
        Delivery.objects.filter(pk=deliveries()[1].pk).update(state=FAILED)
        receiver.clear()
        receiver.answers(HOOK, 500)
        redelivery.redeliver(Delivery.objects.filter(status=FAILED))
        assert work() == '1 to retry, 1 replaced'
