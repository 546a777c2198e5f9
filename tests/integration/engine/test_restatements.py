"""A restatement never replaces a change: what somebody did is told with its user, message, request and kind.

Backfills, *Send now*, redeliveries and changes of other objects restate an object.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Device, Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from extras.models import ConfigContext
from support.builders import CREATED, UPDATED, device, forget_events, interface, site, subscribe
from support.cases import first
from support.engine import deliveries, dispatch_all, dispatching, work

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import backfill, redelivery, send_now, send_waiting

pytestmark = pytest.mark.usefixtures('committed')

PENDING, DELIVERED, SUPERSEDED = StatusChoices.PENDING, StatusChoices.DELIVERED, StatusChoices.SUPERSEDED
HOOK = '/hook'
SITES = '/api/dcim/sites/'
TICKET = 'ticket 4711'
# No test takes so long.
QUIET = 1000
# How a webhook lets only the last of several changes go.
WAYS = [{'quiet': QUIET}, {'latest_only': True}]


@pytest.fixture(params=WAYS, ids=lambda way: next(iter(way)))
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def webhook(receiver: Receiver, way: dict[str, Any]) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, include_snapshots=True, **way)


def existing(name: str) -> Site:
    """Return a site that the receiver knows."""
    place = site(name=name)
    send_all()
    return place


def save(api_client: Any, place: Site, name: str) -> None:
    """Change the site by the REST API, with a message."""
    answer = api_client.patch(f'{SITES}{place.pk}/', {'name': name, 'changelog_message': TICKET}, format='json')
    assert answer.status_code == 200, answer.content
    dispatch_all()


def hold() -> None:
    """What comes now waits, and is dispatched."""
    Webhook.objects.update(paused=True)


def send_all() -> None:
    dispatch_everything()
    Webhook.objects.update(paused=False)
    earlier = timedelta(seconds=QUIET)
    waiting = Delivery.objects.filter(status=PENDING)
    waiting.update(created=F('created') - earlier, due_at=F('due_at') - earlier, waits_until=F('waits_until') - earlier)
    work()


def dispatch_everything() -> None:
    """Dispatch events, and record the slices of backfills and of changed config contexts."""
    with dispatching() as dispatcher:
        while dispatcher.step() is not None:
            pass


def start_backfill(webhook: Webhook, _place: Site) -> None:
    Webhook.objects.update(paused=False)
    backfill.start(webhook, backfill.choose(webhook))
    dispatch_everything()
    Webhook.objects.update(paused=True)


def send_object_now(webhook: Webhook, place: Site) -> None:
    webhook.refresh_from_db()
    webhook.paused = False
    chosen = send_now.choose(webhook, ContentType.objects.get_for_model(place), [place.pk])
    assert send_now.send(chosen) == 1
    dispatch_all()


def redeliver(_webhook: Webhook, place: Site) -> None:
    assert redelivery.redeliver(Delivery.objects.filter(object_id=place.pk, status=DELIVERED)) == 1


# Each way and each restatement once. `--long`: all pairs.
QUIETLY, LATEST = WAYS
PAIRS = [(QUIETLY, send_object_now), (LATEST, start_backfill), (QUIETLY, start_backfill), (LATEST, send_object_now)]
RESTATE = pytest.mark.parametrize(('way', 'restate'), first(2, PAIRS))
RESTATE_OR_REDELIVER = pytest.mark.parametrize(
    ('way', 'restate'), first(3, [*PAIRS[:2], (QUIETLY, redeliver), *PAIRS[2:], (LATEST, redeliver)])
)
Restate = Callable[[Webhook, Site], None]


def is_the_change(body: dict[str, Any]) -> bool:
    return (
        (body['username'], body.get('changelog_message')) == ('admin', TICKET)
        and body['request_id'] is not None
        and not {'backfill', 'caused_by'} & body.keys()
    )


@RESTATE_OR_REDELIVER
@pytest.mark.parametrize('is_first', [False, True], ids=['after the change', 'before the change'])
def test_a_change_goes_and_its_restatement_does_not(api_client, webhook, receiver, restate: Restate, is_first):
    place = existing('a')
    receiver.clear()
    hold()
    if is_first:
        restate(webhook, place)
    save(api_client, place, 'b')
    if not is_first:
        restate(webhook, place)
    send_all()
    (request,) = receiver.requests
    body = request.json()
    assert is_the_change(body)
    assert (body['event'], body['data']['name']) == (UPDATED, 'b')
    assert body['snapshots']['prechange']['name'] == 'a'
    by_event = {Event.objects.get(pk=one.event_id).changelog_message: one.status for one in deliveries()[1:]}
    assert by_event == {TICKET: DELIVERED, None: SUPERSEDED}


@RESTATE
def test_a_restatement_goes_where_no_change_waits(webhook, receiver, restate: Restate):
    place = existing('a')
    receiver.clear()
    hold()
    restate(webhook, place)
    send_all()
    assert [request.json()['backfill'] for request in receiver.requests] == [True]


@RESTATE
def test_a_creation_stays_one(api_client, webhook, receiver, restate: Restate):
    hold()
    answer = api_client.post(SITES, {'name': 'a', 'slug': 'a', 'changelog_message': TICKET}, format='json')
    assert answer.status_code == 201
    dispatch_all()
    restate(webhook, Site.objects.get())
    send_all()
    (request,) = receiver.requests
    assert is_the_change(request.json())
    assert request.json()['event'] == CREATED


@RESTATE
def test_a_restatement_that_shows_something_newer_goes_after_the_change(api_client, webhook, receiver, restate):
    """An import by SQL brings no event."""
    place = existing('a')
    receiver.clear()
    hold()
    save(api_client, place, 'b')
    Site.objects.filter(pk=place.pk).update(facility='new')
    restate(webhook, place)
    send_all()
    change, restated = (request.json() for request in receiver.requests)
    assert is_the_change(change)
    assert (restated['backfill'], restated['data']['facility']) == (True, 'new')


@RESTATE
def test_changes_before_and_after_a_restatement_go_as_one(api_client, webhook, receiver, restate: Restate):
    place = existing('a')
    receiver.clear()
    hold()
    save(api_client, place, 'b')
    restate(webhook, place)
    save(api_client, place, 'c')
    send_all()
    (request,) = receiver.requests
    assert is_the_change(request.json())
    assert request.json()['differences']['changed']['name'] == ['a', 'c']


@RESTATE
def test_send_waiting_deliveries_keeps_the_change_too(api_client, webhook, receiver, restate: Restate):
    Webhook.objects.update(latest_only=False, quiet=None)
    place = existing('a')
    receiver.clear()
    hold()
    save(api_client, place, 'b')
    restate(webhook, place)
    Webhook.objects.update(paused=False)
    send_waiting.send(webhook, latest_only=True)
    work()
    (request,) = receiver.requests
    assert is_the_change(request.json())


def test_a_change_is_not_repeated_by_a_restatement_while_it_is_retried(api_client, webhook, receiver):
    """The receiver may have got it, and may ignore a second request under the same id."""
    place = existing('a')
    receiver.clear()
    receiver.answers(HOOK, 500, 200, 200)
    save(api_client, place, 'b')
    send_all()
    send_object_now(webhook, place)
    Delivery.objects.filter(attempt_count=1, status=PENDING).update(due_at=timezone.now())
    work()
    first, second, third = (request.json() for request in receiver.requests)
    assert is_the_change(first)
    assert is_the_change(second)
    assert third['backfill']


@pytest.mark.parametrize(
    ('way', 'is_first'), first(2, [(QUIETLY, False), (LATEST, True), (QUIETLY, True), (LATEST, False)])
)
def test_another_config_context_replaces_no_change(api_client, receiver, way, is_first):
    owner = device()
    subscribe(receiver.url(HOOK), Device, kinds=(UPDATED,), include_config_contexts=True, **way)
    work()
    hold()

    def change() -> None:
        sent = {'description': 'moved', 'changelog_message': TICKET}
        assert api_client.patch(f'/api/dcim/devices/{owner.pk}/', sent, format='json').status_code == 200
        dispatch_all()

    def add_context() -> None:
        with transaction.atomic():
            ConfigContext.objects.create(name='ntp', data={'ntp': 'new'})
        dispatch_everything()

    for step in (add_context, change) if is_first else (change, add_context):
        step()
    send_all()
    bodies = [request.json() for request in receiver.requests]
    assert [is_the_change(body) for body in bodies] == ([True] if is_first else [True, False])
    assert bodies[-1]['data']['config_context'] == {'ntp': 'new'}
    assert bodies[-1]['data']['description'] == 'moved'


def test_a_change_of_a_component_replaces_no_change_of_its_device(api_client, receiver, way):
    owner = device()
    forget_events()
    subscribe(receiver.url(HOOK), Device, kinds=(UPDATED,), include_components=True, **way)
    hold()
    sent = {'description': 'moved', 'changelog_message': TICKET}
    assert api_client.patch(f'/api/dcim/devices/{owner.pk}/', sent, format='json').status_code == 200
    dispatch_all()
    interface(owner)
    send_all()
    change, restated = (request.json() for request in receiver.requests)
    assert is_the_change(change)
    assert (restated['caused_by'], restated['data']['interface_count']) == (['dcim.interface'], 1)


class TestInOneTransaction:
    """Code of a plugin may do both."""

    def restate_and_save(self, webhook: Webhook, place: Site, *, is_first: bool) -> None:
        chosen = send_now.choose(webhook, ContentType.objects.get_for_model(place), [place.pk])
        with transaction.atomic():
            if is_first:
                send_now.send(chosen)
            place.snapshot()
            place.name, place._changelog_message = 'b', TICKET
            place.save()
            if not is_first:
                send_now.send(chosen)

    @pytest.mark.parametrize('is_first', [False, True], ids=['after the change', 'before the change'])
    def test_every_webhook_gets_the_change(self, receiver, is_first):
        place = site(name='a')
        forget_events()
        webhook = subscribe(receiver.url(HOOK), Site, include_snapshots=True)
        subscribe(receiver.url('/other'), Site, include_snapshots=True)
        self.restate_and_save(webhook, place, is_first=is_first)
        work()
        assert sorted(request.path for request in receiver.requests) == [HOOK, '/other']
        for request in receiver.requests:
            body = request.json()
            assert (body['event'], body['changelog_message'], 'backfill' in body) == (UPDATED, TICKET, False)
            assert body['differences']['changed']['name'] == ['a', 'b']


def test_a_redelivery_leaves_the_wait_for_quiet_and_the_differences_of_a_change(api_client, receiver):
    webhook = subscribe(receiver.url(HOOK), Site, include_snapshots=True, quiet=QUIET)
    place = existing('a')
    place.snapshot()
    place.name = 'b'
    place.save()
    send_all()
    receiver.clear()
    save(api_client, place, 'c')
    redelivery.redeliver(Delivery.objects.filter(status=DELIVERED))
    work()
    assert not receiver.requests
    send_all()
    (request,) = receiver.requests
    assert request.json()['differences']['changed']['name'] == ['b', 'c']
    assert is_the_change(request.json())
    assert not deliveries(PENDING, webhook_id=webhook.pk)
