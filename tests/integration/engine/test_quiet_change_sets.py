"""With quiet time, everything that came in it goes as one change set."""

from datetime import timedelta

import pytest
from dcim.models import Site
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import deliveries, dispatch_all, health, pass_retry_waits, work

from devstack.receiver import Received, Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine.deliver import lane, superseding
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import redelivery, send_waiting

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SUPERSEDED = StatusChoices.PENDING, StatusChoices.SUPERSEDED
HOOK = '/hook'
# No test takes so long.
QUIET, QUIET_MAX = 1000, 2500
NOTHING = 'nothing to send'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, change_set=True, quiet=QUIET, quiet_max=QUIET_MAX)


def new(*names: str) -> list[Site]:
    """Make sites in one transaction."""
    with transaction.atomic():
        places = [site(name=name) for name in names]
    dispatch_all()
    return places


def rename(place: Site, *names: str) -> None:
    """Each name is a transaction."""
    for name in names:
        place.name = name
        place.save()
        dispatch_all()


def pass_time(seconds: float) -> None:
    earlier = timedelta(seconds=seconds)
    waiting = Delivery.objects.filter(status=PENDING)
    waiting.update(due_at=F('due_at') - earlier, waits_until=F('waits_until') - earlier)


def told(request: Received) -> list[tuple[str, str]]:
    return [(change['event'], change['data']['name']) for change in request.json()['changes']]


def test_several_transactions_go_as_one_set_with_the_last_change_of_each_object(webhook, receiver):
    _first, second = new('a', 'b')
    new('c')
    rename(second, 'd', 'e')
    assert work() == NOTHING
    pass_time(QUIET)
    assert work() == '3 delivered, 2 replaced'
    (request,) = receiver.requests
    assert told(request) == [('created', 'a'), ('created', 'c'), ('created', 'e')]
    assert (request.json()['part'], request.json()['parts'], request.json()['transaction']['count']) == (1, 1, 3)
    assert health(webhook).superseded == 2


def test_a_set_of_several_transactions_names_one_of_them(webhook, receiver):
    new('a')
    new('b')
    ids = {str(event.transaction_id) for event in Event.objects.all()}
    pass_time(QUIET)
    work()
    (request,) = receiver.requests
    shown = request.json()['transaction']
    assert shown['id'] in ids
    assert [shown[name] for name in ('username', 'request_id', 'message')] == [None] * 3


def test_each_change_of_the_webhook_starts_the_time_anew(webhook, receiver):
    new('a')
    for name in 'bc':
        pass_time(QUIET * 0.7)
        new(name)
        assert work() == NOTHING
    pass_time(QUIET)
    assert work() == '3 delivered'
    assert len(receiver.requests) == 1


def test_no_set_waits_longer_than_the_longest_time(webhook, receiver):
    new('a')
    for name in 'bcd':
        pass_time(QUIET_MAX / 4)
        new(name)
        assert work() == NOTHING
    pass_time(QUIET_MAX / 4)
    assert work() == '4 delivered'
    assert len(receiver.requests) == 1


def test_changes_after_a_quiet_set_are_a_set_of_their_own(webhook, receiver):
    (place,) = new('a')
    pass_time(QUIET)
    work()
    rename(place, 'b', 'c')
    assert work() == NOTHING
    pass_time(QUIET)
    work()
    assert [told(request) for request in receiver.requests] == [[('created', 'a')], [('updated', 'c')]]


def test_it_comes_in_parts_if_it_is_large(webhook, receiver, monkeypatch):
    monkeypatch.setattr(lane, 'BATCH_DELIVERIES', 2)
    for name in 'abc':
        new(name)
    pass_time(QUIET)
    assert work() == '3 delivered'
    bodies = [request.json() for request in receiver.requests]
    assert [(body['part'], body['parts']) for body in bodies] == [(1, 2), (2, 2)]
    assert len({body['transaction']['id'] for body in bodies}) == 1


def test_more_changes_than_are_read_together(webhook, receiver, monkeypatch):
    monkeypatch.setattr(superseding, 'DELIVERIES_PER_OBJECT', 3)
    monkeypatch.setattr(superseding, 'OBJECTS_PER_READ', 1)
    places = new('a', 'b')
    for place in places:
        rename(place, *(f'{place.pk}-{number}' for number in range(8)))
    pass_time(QUIET)
    assert work() == '2 delivered, 16 replaced'
    assert told(receiver.requests[0]) == [('created', f'{place.pk}-7') for place in places]


def test_a_set_waits_for_the_retry_of_an_earlier_one_and_takes_along_what_comes(webhook, receiver):
    first, second = new('a', 'b')
    pass_time(QUIET)
    receiver.answers(HOOK, 500, 200)
    assert work() == '2 to retry'
    rename(first, 'c')
    pass_time(QUIET)
    Delivery.objects.filter(attempt_count=1, due_at__isnull=False).update(due_at=timezone.now() + timedelta(hours=1))
    assert work() == NOTHING
    rename(second, 'd')
    pass_retry_waits(attempt_count=1)
    work()
    pass_time(QUIET)
    work()
    changes = [change for request in receiver.requests for change in told(request)]
    assert changes[:4] == [('created', 'a'), ('created', 'b')] * 2
    assert sorted(changes[4:]) == [('updated', 'c'), ('updated', 'd')]
    assert not deliveries(*OPEN_STATUSES)


def test_sets_that_change_the_same_objects_in_another_order_do_not_wait_for_each_other(webhook, receiver):
    first, second = new('a', 'b')
    pass_time(QUIET)
    work()
    rename(first, 'c')
    rename(second, 'd')
    with transaction.atomic():
        rename(second, 'e')
        rename(first, 'f')
    dispatch_all()
    pass_time(QUIET)
    work()
    assert told(receiver.requests[-1]) == [('updated', 'e'), ('updated', 'f')]
    assert not deliveries(*OPEN_STATUSES)


def test_an_object_that_is_deleted_and_made_anew_goes_in_two_sets(webhook, receiver):
    (place,) = new('a')
    pass_time(QUIET)
    work()
    pk = place.pk
    Site.objects.get(pk=pk).delete()
    dispatch_all()
    Site(pk=pk, name='b', slug='b').save(force_insert=True)
    dispatch_all()
    pass_time(QUIET)
    work()
    assert [told(request) for request in receiver.requests[1:]] == [[('deleted', 'a')], [('created', 'b')]]


def test_no_change_goes_before_one_of_a_transaction_that_is_still_dispatched(webhook, receiver):
    (place,) = new('a')
    with transaction.atomic():
        other = site(name='x')
        place.name = 'b'
        place.save()
    Event.objects.filter(object_id=other.pk).update(retry_at=timezone.now() + timedelta(hours=1))
    dispatch_all()
    rename(place, 'c')
    pass_time(QUIET_MAX)
    work()
    assert [told(request) for request in receiver.requests] == [[('created', 'a')]]
    Event.objects.update(retry_at=None)
    dispatch_all()
    pass_time(QUIET_MAX)
    work()
    assert told(receiver.requests[-1]) == [('created', 'x'), ('updated', 'c')]
    assert not deliveries(*OPEN_STATUSES)


def test_an_object_that_comes_and_goes_before_quiet_is_not_sent(webhook, receiver):
    (place,) = new('a')
    Site.objects.get(pk=place.pk).delete()
    dispatch_all()
    pass_time(QUIET)
    assert work() == '2 replaced'
    assert not receiver.requests


def test_the_rest_of_a_set_goes_whose_first_change_comes_to_nothing(webhook, receiver):
    (other,) = new('other')
    pass_time(QUIET)
    work()
    (place,) = new('a')
    with transaction.atomic():
        Site.objects.get(pk=place.pk).delete()
        other.name = 'renamed'
        other.save()
    dispatch_all()
    pass_time(QUIET)
    work()
    assert [told(request) for request in receiver.requests] == [[('created', 'other')], [('updated', 'renamed')]]


def test_slow_conditions_are_waited_for(webhook, receiver):
    Webhook.objects.update(conditions={'attr': 'name', 'op': 'regex', 'value': '^[abc]$'})
    for name in ('a', 'no', 'b', 'c'):
        new(name)
    assert work() == NOTHING
    pass_time(QUIET)
    assert work() == '3 delivered'
    assert len(receiver.requests) == 1


def test_send_waiting_deliveries_sends_one_set_at_once(webhook, receiver):
    (place,) = new('a')
    rename(place, 'b')
    new('c')
    send_waiting.send(webhook)
    work()
    assert [told(request) for request in receiver.requests] == [[('created', 'b'), ('created', 'c')]]


def test_a_redelivery_of_a_set_does_not_wait_for_quiet(webhook, receiver):
    new('a')
    new('b')
    pass_time(QUIET)
    work()
    assert redelivery.redeliver(Delivery.objects.all()) == 2
    work()
    assert sorted(change for request in receiver.requests[1:] for change in told(request)) == [
        ('created', 'a'),
        ('created', 'b'),
    ]


def test_without_the_option_what_waits_goes_as_its_transactions(webhook, receiver):
    (place,) = new('a')
    rename(place, 'b')
    assert work() == NOTHING
    webhook.quiet = webhook.quiet_max = None
    webhook.save()
    work()
    assert [told(request) for request in receiver.requests] == [[('created', 'a')], [('updated', 'b')]]


def test_pages_say_that_it_waits(webhook, admin_pages):
    new('a', 'b')
    for one in deliveries(PENDING):
        page = admin_pages.get(one.get_absolute_url()).content.decode()
        assert 'It waits until no more changes come, at the latest until ' in page
