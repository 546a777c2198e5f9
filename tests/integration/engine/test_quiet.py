"""Changes of an object wait until it is quiet, and go as one. Without quiet time nothing waits."""

from datetime import timedelta

import pytest
from dcim.models import Device, Site
from django.db.models import F
from django.utils import timezone
from support.builders import CREATED, DELETED, UPDATED, device, interface, site, subscribe
from support.engine import (
    deliveries,
    die,
    dispatch_all,
    health,
    hold,
    pass_retry_waits,
    sender,
    take_turns,
    work,
)

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.dispatch import undecided
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import backfill, backlog, redelivery, send_waiting

pytestmark = pytest.mark.usefixtures('committed')

PENDING, DELIVERED, SUPERSEDED = StatusChoices.PENDING, StatusChoices.DELIVERED, StatusChoices.SUPERSEDED
HOOK = '/hook'
# No test takes so long.
QUIET, QUIET_MAX = 1000, 2500
NOTHING = 'nothing to send'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, quiet=QUIET, quiet_max=QUIET_MAX)


def rename(place: Site, *names: str) -> None:
    """Each name is a change of its own, and dispatched."""
    for name in names:
        change(place, name)
        dispatch_all()


def change(place: Site, name: str) -> None:
    place.snapshot()
    place.name = name
    place.save()


def delete(place: Site) -> None:
    Site.objects.get(pk=place.pk).delete()
    dispatch_all()


def new(name: str) -> Site:
    place = site(name=name)
    dispatch_all()
    return place


def existing(name: str = 'old') -> Site:
    """Return a site whose creation is delivered."""
    place = new(name)
    pass_time(QUIET)
    work()
    return place


def pass_time(seconds: float) -> None:
    earlier = timedelta(seconds=seconds)
    waiting = Delivery.objects.filter(status=PENDING)
    waiting.update(created=F('created') - earlier, due_at=F('due_at') - earlier, waits_until=F('waits_until') - earlier)


def save(webhook: Webhook, **fields: object) -> None:
    for name, value in fields.items():
        setattr(webhook, name, value)
    webhook.save()


def dues() -> list[float]:
    """Return in how many seconds each pending delivery is due."""
    return [(one.due_at - timezone.now()).total_seconds() for one in deliveries(PENDING)]


def about(*seconds: float) -> object:
    """Return what `dues()` equals where the test itself took up to 20 seconds."""
    return pytest.approx(seconds, abs=20)


def told(receiver: Receiver) -> list[tuple[str, str]]:
    return [(request.json()['event'], request.json()['data']['name']) for request in receiver.requests]


class TestQuiet:
    def test_changes_before_the_object_is_quiet_are_sent_as_one(self, webhook, receiver):
        rename(new('a'), 'b', 'c', 'd')
        assert work() == NOTHING
        pass_time(QUIET)
        assert work() == '1 delivered, 3 replaced'
        assert told(receiver) == [(CREATED, 'd')]
        assert health(webhook).superseded == 3

    def test_without_it_each_change_goes_at_once(self, receiver):
        subscribe(receiver.url(HOOK), Site)
        rename(new('a'), 'b')
        assert {one.waits_until for one in deliveries()} == {None}
        assert work() == '2 delivered'

    def test_each_change_starts_the_time_anew(self, webhook, receiver):
        place = new('a')
        for name in 'bc':
            pass_time(QUIET * 0.7)
            rename(place, name)
            assert work() == NOTHING
        pass_time(QUIET * 0.7)
        assert work() == NOTHING
        pass_time(QUIET * 0.3)
        work()
        assert told(receiver) == [(CREATED, 'c')]

    def test_no_change_waits_longer_than_the_longest_time(self, webhook, receiver):
        place = new('a')
        for name in 'bcd':
            pass_time(QUIET_MAX / 4)
            rename(place, name)
            assert work() == NOTHING
        pass_time(QUIET_MAX / 4)
        assert work() == '1 delivered, 3 replaced'
        assert told(receiver) == [(CREATED, 'd')]

    def test_a_change_after_the_longest_time_goes_with_the_others(self, webhook, receiver):
        place = new('a')
        for name in 'bcd':
            pass_time(QUIET_MAX / 4)
            rename(place, name)
        pass_time(QUIET_MAX / 4)
        rename(place, 'e')
        work()
        assert told(receiver) == [(CREATED, 'e')]

    def test_a_change_after_it_went_waits_for_a_time_of_its_own(self, webhook, receiver):
        place = existing('a')
        rename(place, 'b')
        (one,) = deliveries(PENDING)
        assert one.waits_until > timezone.now() + timedelta(seconds=QUIET_MAX - 100)
        assert work() == NOTHING
        pass_time(QUIET)
        work()
        assert told(receiver) == [(CREATED, 'a'), (UPDATED, 'b')]

    def test_the_longest_time_is_ten_times_as_long_unless_somebody_says_so(self, webhook):
        Webhook.objects.update(quiet_max=None)
        new('a')
        (one,) = deliveries(PENDING)
        assert abs(one.waits_until - one.created - timedelta(seconds=10 * QUIET)) < timedelta(seconds=1)

    def test_objects_are_kept_apart(self, webhook, receiver):
        first = new('a')
        pass_time(QUIET * 0.7)
        second = new('b')
        rename(second, 'c')
        pass_time(QUIET * 0.3)
        work()
        assert told(receiver) == [(CREATED, 'a')]
        rename(first, 'd')
        pass_time(QUIET * 0.7)
        work()
        assert told(receiver) == [(CREATED, 'a'), (CREATED, 'c')]

    def test_webhooks_are_kept_apart(self, webhook, receiver):
        subscribe(receiver.url('/all'), Site)
        rename(new('a'), 'b')
        assert work() == '2 delivered'
        assert {request.path for request in receiver.requests} == {'/all'}

    def test_one_request_shows_what_was_before_all_changes(self, receiver):
        subscribe(receiver.url(HOOK), Site, include_snapshots=True, quiet=QUIET)
        place = existing('a')
        rename(place, 'b', 'c')
        pass_time(QUIET)
        receiver.clear()
        work()
        (request,) = receiver.requests
        snapshots = request.json()['snapshots']
        assert (snapshots['prechange']['name'], snapshots['postchange']['name']) == ('a', 'c')

    def test_a_deletion_waits_and_replaces_the_changes_before_it(self, webhook, receiver):
        place = existing('a')
        rename(place, 'b')
        delete(place)
        assert work() == NOTHING
        pass_time(QUIET)
        work()
        assert told(receiver) == [(CREATED, 'a'), (DELETED, 'b')]

    def test_nothing_is_sent_of_what_comes_and_goes(self, webhook, receiver):
        place = new('a')
        delete(place)
        pass_time(QUIET)
        assert work() == '2 replaced'
        assert not receiver.requests

    def test_more_changes_than_one_look_sees(self, webhook, receiver):
        Webhook.objects.update(quiet_max=10 * QUIET)
        places = [new(f'{number}') for number in range(10)]
        for number in range(25):
            for place in places:
                change(place, f'{place.pk}-{number}')
            dispatch_all()
        pass_time(QUIET)
        assert work() == '10 delivered, 250 replaced'
        assert sorted(told(receiver)) == sorted((CREATED, f'{place.pk}-24') for place in places)


class TestTurns:
    """What happens between two turns of a worker."""

    def test_a_change_that_has_waited_is_not_put_off_by_one_before_its_request(self, webhook, receiver):
        place = new('a')
        rename(place, 'b')
        pass_time(QUIET)
        with sender() as (_worker, opened):
            assert take_turns(opened, lambda: deliveries(SUPERSEDED))
            rename(place, 'c')
            assert take_turns(opened, lambda: receiver.requests)
        assert [name for _event, name in told(receiver)] in (['b'], ['c'])

    def test_a_change_beside_a_request_waits_for_a_time_of_its_own(self, webhook, receiver):
        place = new('a')
        pass_time(QUIET)
        hold(*deliveries())
        rename(place, 'b')
        first, second = deliveries(PENDING)
        assert second.waits_until > first.waits_until
        assert second.due_at > timezone.now()

    def test_a_retry_is_not_put_off_and_takes_along_what_waits(self, webhook, receiver):
        place = new('a')
        pass_time(QUIET)
        receiver.answers(HOOK, 500, 200)
        assert work() == '1 to retry'
        planned = deliveries(PENDING)[0].due_at
        rename(place, 'b', 'c')
        assert deliveries(PENDING)[0].due_at == planned
        pass_retry_waits(attempt_count=1)
        assert work() == '1 delivered, 2 replaced'
        assert told(receiver) == [(CREATED, 'a'), (CREATED, 'c')]

    def test_a_change_waits_for_the_retry_before_it(self, webhook, receiver):
        place = new('a')
        pass_time(QUIET)
        receiver.answers(HOOK, 500, 200)
        work()
        rename(place, 'b')
        Delivery.objects.filter(attempt_count=0).update(due_at=timezone.now())
        assert work() == NOTHING
        pass_retry_waits(attempt_count=1)
        work()
        assert told(receiver) == [(CREATED, 'a'), (CREATED, 'b')]

    def test_a_delivery_in_hand_of_a_stopped_worker_goes_before_later_changes(self, webhook, receiver):
        place = new('a')
        pass_time(QUIET)
        die(*deliveries())
        rename(place, 'b')
        pass_retry_waits(attempt_count=1)
        work()
        pass_time(QUIET)
        work()
        assert told(receiver)[-1][1] == 'b'
        assert not deliveries(PENDING)

    def test_a_pause_holds_and_then_sends_one(self, webhook, receiver):
        place = new('a')
        Webhook.objects.update(paused=True)
        pass_time(QUIET_MAX)
        rename(place, 'b', 'c')
        assert work() == NOTHING
        Webhook.objects.update(paused=False)
        work()
        assert told(receiver) == [(CREATED, 'c')]

    def test_changes_become_one_without_order_too(self, webhook, receiver):
        Webhook.objects.update(ordered=False)
        place = new('a')
        for name in 'bc':
            pass_time(QUIET * 0.7)
            rename(place, name)
            assert work() == NOTHING
        pass_time(QUIET)
        assert work() == '1 delivered, 2 replaced'
        assert told(receiver) == [(CREATED, 'c')]


class TestOtherTimes:
    """Somebody switches it off, or enters other times, while changes wait."""

    @pytest.mark.parametrize('before', [new, existing], ids=['never attempted', 'attempted before'])
    def test_once_it_is_off_what_waits_keeps_its_time_and_goes_in_order(self, webhook, receiver, api_client, before):
        place = before('a')
        rename(place, 'b')
        sent = {'quiet': None, 'quiet_max': None}
        answer = api_client.patch(f'/api/plugins/webhooks/webhooks/{webhook.pk}/', sent, format='json')
        assert answer.status_code == 200
        rename(place, 'c')
        assert work() == NOTHING
        pass_time(QUIET)
        work()
        assert [name for _event, name in told(receiver)] == ['a', 'b', 'c']
        assert not deliveries(PENDING)

    def test_once_it_is_off_send_waiting_deliveries_sends_what_waits(self, webhook, receiver):
        rename(new('a'), 'b')
        save(webhook, quiet=None, quiet_max=None)
        send_waiting.send(webhook)
        work()
        assert [name for _event, name in told(receiver)] == ['a', 'b']

    @pytest.mark.parametrize('times', [{'quiet': 100}, {'quiet': 2 * QUIET, 'quiet_max': 4 * QUIET}])
    def test_other_times_leave_what_waits_alone(self, webhook, times):
        new('a')
        save(webhook, **times)
        assert work() == NOTHING
        assert dues() == about(QUIET)

    def test_changes_after_a_shorter_time_go_with_what_waits(self, webhook, receiver):
        place = new('a')
        save(webhook, quiet=100)
        rename(place, 'b')
        assert dues() == about(QUIET, 100)
        pass_time(100)
        assert work() == NOTHING
        pass_time(QUIET - 100)
        assert work() == '1 delivered, 1 replaced'
        assert told(receiver) == [(CREATED, 'b')]

    def test_pages_no_longer_say_that_it_waits_for_quiet(self, webhook, admin_pages):
        new('a')
        (one,) = deliveries(PENDING)
        assert 'It waits until its object is quiet' in admin_pages.get(one.get_absolute_url()).content.decode()
        save(webhook, quiet=None, quiet_max=None)
        page = admin_pages.get(one.get_absolute_url()).content.decode()
        assert 'It waits until its object is quiet' not in page
        assert 'It is sent at ' in page

    def test_a_webhook_that_was_saved_with_change_sets_too_sends_change_sets(self, webhook, receiver):
        """Validation refuses the pair, but a database may hold it."""
        place = new('a')
        Webhook.objects.update(change_set=True)
        rename(place, 'b')
        assert work() == NOTHING
        pass_time(QUIET)
        work()
        sets = [[(one['event'], one['data']['name']) for one in r.json()['changes']] for r in receiver.requests]
        assert sets == [[(CREATED, 'a')], [(UPDATED, 'b')]]


class TestBeside:
    """Other options and actions."""

    def test_a_change_with_a_slow_condition_waits_too(self, webhook, receiver):
        Webhook.objects.update(conditions={'attr': 'name', 'op': 'regex', 'value': '^[abc]$'})
        rename(new('a'), 'b', 'no', 'c')
        assert work() == NOTHING
        pass_time(QUIET)
        assert work() == '1 delivered, 2 replaced'
        assert told(receiver) == [(CREATED, 'c')]

    def test_a_slow_condition_lets_no_change_wait_longer(self, webhook, receiver, monkeypatch):
        Webhook.objects.update(conditions={'attr': 'name', 'op': 'regex', 'value': '^[ab]$'})
        monkeypatch.setattr(undecided.Undecided, 'step', lambda _self: 0)
        place = new('a')
        Delivery.objects.update(created=F('created') - timedelta(seconds=QUIET_MAX - 300))
        monkeypatch.undo()
        rename(place, 'b')
        assert work() == NOTHING
        pass_time(300)
        assert work() == '1 delivered, 1 replaced'

    def test_a_feed_publishes_one_when_the_object_is_quiet(self):
        webhook = subscribe('', Site, quiet=QUIET)
        rename(new('a'), 'b')
        assert work() == NOTHING
        pass_time(QUIET)
        assert work() == '1 delivered, 1 replaced'
        assert health(webhook).position == 1

    def test_latest_only_changes_nothing_about_it(self, webhook, receiver):
        Webhook.objects.update(latest_only=True)
        place = new('a')
        pass_time(QUIET * 0.7)
        rename(place, 'b')
        pass_time(QUIET * 0.7)
        assert work() == NOTHING
        pass_time(QUIET * 0.3)
        work()
        assert told(receiver) == [(CREATED, 'b')]

    def test_changes_of_components_go_as_one_update_of_their_device(self, receiver):
        subscribe(receiver.url(HOOK), Device, kinds=(UPDATED,), include_components=True, quiet=QUIET)
        owner = device(name='router')
        for _ in range(3):
            interface(owner)
            dispatch_all()
        assert work() == NOTHING
        pass_time(QUIET)
        work()
        assert told(receiver) == [(UPDATED, 'router')]
        assert receiver.requests[0].json()['data']['interface_count'] == 3

    def test_a_backfill_waits_for_nothing_and_sends_no_change_early(self, webhook, receiver):
        first, _second = existing('a'), existing('b')
        rename(first, 'c')
        receiver.clear()
        backfill.start(webhook, backfill.choose(webhook))
        work()
        assert [name for _event, name in told(receiver)] == ['b']
        pass_time(QUIET)
        work()
        assert [name for _event, name in told(receiver)] == ['b', 'c']
        assert not deliveries(PENDING)

    def test_a_redelivery_does_not_wait_until_the_object_is_quiet(self, webhook, receiver):
        existing('a')
        assert redelivery.redeliver(Delivery.objects.all()) == 1
        assert work() == '1 delivered'
        assert len(receiver.requests) == 2

    def test_a_superseded_one_that_somebody_redelivers_goes_at_once(self, webhook, receiver):
        rename(new('a'), 'b')
        send_waiting.send(webhook, latest_only=True)
        work()
        assert redelivery.redeliver(Delivery.objects.filter(status=SUPERSEDED)) == 1
        work()
        assert [name for _event, name in told(receiver)] == ['b', 'a']

    @pytest.mark.parametrize('latest_only', [False, True])
    def test_send_waiting_deliveries_sends_one_at_once(self, webhook, receiver, latest_only):
        rename(new('a'), 'b', 'c')
        send_waiting.send(webhook, latest_only=latest_only)
        work()
        assert told(receiver) == [(CREATED, 'c')]
        assert not deliveries(PENDING)


class TestShown:
    @pytest.mark.parametrize(
        ('sent', 'field'), [({'quiet': 0}, 'quiet'), ({'quiet_max': 1}, 'quiet_max'), ({'quiet': None}, 'quiet_max')]
    )
    def test_the_api_refuses_times_that_do_not_fit(self, webhook, api_client, sent, field):
        answer = api_client.patch(f'/api/plugins/webhooks/webhooks/{webhook.pk}/', sent, format='json')
        assert answer.status_code == 400
        assert list(answer.json()) == [field]

    def test_the_api_refuses_change_sets_beside_it(self, webhook, api_client):
        answer = api_client.patch(f'/api/plugins/webhooks/webhooks/{webhook.pk}/', {'change_set': True}, format='json')
        assert answer.status_code == 400
        assert list(answer.json()) == ['quiet']

    def test_pages_and_the_api_say_that_it_waits_for_quiet(self, webhook, admin_pages, api_client):
        rename(new('a'), 'b')
        work()
        for one in deliveries(PENDING):
            page = admin_pages.get(one.get_absolute_url()).content.decode()
            assert 'It waits until its object is quiet, at the latest until ' in page
            shown = api_client.get(f'/api/plugins/webhooks/deliveries/{one.pk}/').json()
            assert shown['waiting'].startswith('It waits until its object is quiet')
            assert shown['next_attempt_at']
            admin = admin_pages.get(f'/admin/webhooks/delivery/{one.pk}/change/').content.decode()
            assert 'It waits until its object is quiet' in admin

    def test_a_change_that_waits_for_quiet_is_not_late(self, webhook):
        new('a')
        Event.objects.update(timestamp=timezone.now() - timedelta(hours=1))
        assert backlog.measure().oldest is None
        assert send_waiting.measure(webhook).changes == 1
        pass_time(QUIET_MAX)
        assert backlog.measure().oldest
