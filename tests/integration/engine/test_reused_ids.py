"""Fixtures and restored changes may bring the id of a deleted webhook. Nothing of that one's log is the new one's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import deliveries, dispatch_all, health, hold, in_thread, sender, take_turns, work
from support.writers import before_statement

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import BackfillStateChoices, StatusChoices
from webhooks.engine import sql
from webhooks.engine.deliver import lanes
from webhooks.engine.dispatch.loop import make_deliveries
from webhooks.engine.registry import DISPATCH
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Backfill, Delivery, Event, Health, Hour, ListMember, Webhook
from webhooks.services import backfill as backfills

pytestmark = pytest.mark.usefixtures('committed')

PENDING, DELIVERED = StatusChoices.PENDING, StatusChoices.DELIVERED
OLD, NEW = '/old', '/new'
WAITING = 3


@pytest.fixture
def old(receiver: Receiver) -> Webhook:
    webhook = subscribe(receiver.url(OLD), Site, paused=True)
    for _ in range(WAITING):
        site()
    dispatch_all()
    assert len(deliveries(PENDING)) == WAITING
    return webhook


def told(webhook: Webhook) -> str:
    """Return the webhook as a fixture, unpaused, and with another URL."""
    text = serializers.serialize('json', [webhook])
    return text.replace(OLD, NEW).replace('"paused": true', '"paused": false')


def restore(text: str) -> Webhook:
    """As when a deletion is undone."""
    with transaction.atomic():
        (restored,) = serializers.deserialize('json', text)
        restored.save()
    return restored.object


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Webhook]:
    def load(text: str) -> Webhook:
        fixture = tmp_path / 'webhooks.json'
        fixture.write_text(text)
        call_command('loaddata', fixture, verbosity=0)
        return Webhook.objects.get()

    return load


def in_thread_to_end(function: Callable[[], object]) -> Callable[[], None]:
    return lambda: in_thread(function).join(60)


def tidy_all() -> None:
    while tidy.step():
        pass


@pytest.mark.parametrize('is_fixture', [False, True], ids=['restored', 'fixture'])
@pytest.mark.parametrize('is_tidied', [False, True], ids=['at once', 'later'])
def test_a_webhook_with_the_id_of_a_deleted_one_sends_its_own_changes_alone(old, receiver, load, is_fixture, is_tidied):
    text = told(old)
    old.delete()
    if is_tidied:
        tidy_all()
    webhook = load(text) if is_fixture else restore(text)
    own = site()
    work()
    assert work() == 'nothing to send'
    assert [(request.path, request.json()['data']['id']) for request in receiver.requests] == [(NEW, own.pk)]
    assert [one.object_id for one in Delivery._base_manager.all()] == [own.pk]
    assert (health(webhook).delivered, health(webhook).former_until) == (1, None)


def test_the_log_and_counts_of_the_deleted_one_are_not_shown_as_its_own(old):
    Health.objects.filter(pk=old.pk).update(delivered=7, last_error='HTTP 500', suspended_since=timezone.now())
    Hour.objects.count_all({old.pk: {DELIVERED: 7}}, timezone.now())
    text = told(old)
    old.delete()
    webhook = restore(text)
    assert Delivery._base_manager.count() == WAITING
    assert (list(Delivery.objects.all()), list(webhook.deliveries.all())) == ([], [])
    found = health(webhook)
    assert (found.delivered, found.last_error, found.suspended_since) == (0, '', None)
    assert not Hour.objects.exists()
    own = site()
    dispatch_all()
    assert [one.object_id for one in webhook.deliveries.all()] == [own.pk]


def test_a_delivery_that_was_matched_before_the_deletion_is_not_sent_to_a_restored_webhook(old, receiver):
    """A dispatcher renders it meanwhile, and makes its deliveries afterwards."""
    place = site()
    event = Event.objects.get(dispatched_at=None)
    dispatcher = hold(event, role=DISPATCH)
    text = told(old)
    old.delete()
    tidy_all()
    webhook = restore(text)
    tidy_all()
    assert health(webhook).former_until
    make_deliveries([(webhook.pk, event.pk)])
    Event.objects.filter(pk=event.pk).update(dispatched_at=timezone.now())
    assert Delivery._base_manager.filter(status=PENDING, object_id=place.pk).exists()
    dispatcher.end()
    work()
    assert work() == 'nothing to send'
    assert not receiver.requests
    assert not Delivery._base_manager.exists()


def test_a_backfill_of_the_deleted_one_does_not_go_on(old, receiver):
    backfills.start(old, backfills.choose(old))
    assert Backfill.objects.get().state == BackfillStateChoices.RUNNING
    text = told(old)
    old.delete()
    restore(text)
    work()
    work()
    assert not Backfill._base_manager.exists()
    assert not receiver.requests


@pytest.mark.parametrize('is_tidied', [False, True], ids=['at once', 'later'])
def test_the_receiver_of_the_new_one_has_nothing_of_the_deleted_ones_list(receiver, is_tidied):
    old = subscribe(receiver.url(OLD), Site, filters={'dcim.site': 'status=active'})
    known = site()
    work()
    assert [one.object_id for one in ListMember.objects.all()] == [known.pk]
    text = told(old).replace('status=active', 'status=retired')
    old.delete()
    if is_tidied:
        tidy_all()
    receiver.clear()
    webhook = restore(text)
    own = site(status='retired')
    work()
    work()
    assert [(request.path, request.json()['data']['id']) for request in receiver.requests] == [(NEW, own.pk)]
    assert [(one.webhook_id, one.object_id) for one in ListMember.objects.all()] == [(webhook.pk, own.pk)]


def test_what_was_still_to_be_judged_for_the_list_of_the_deleted_one_enters_no_list(receiver):
    old = subscribe(receiver.url(OLD), Site, filters={'dcim.site': 'status=active'})
    text = told(old)
    Webhook.objects.filter(pk=old.pk).update(filters={'dcim.site': 'cf_gone=1'})
    one = site(status='retired')
    work()
    assert len(deliveries('undecided')) == 1
    Webhook.objects.get(pk=old.pk).delete()
    restore(text)
    one.status = 'active'
    one.save()
    work()
    work()
    assert [(request.path, request.json()['event']) for request in receiver.requests] == [(NEW, 'created')]


def test_a_worker_that_was_sending_for_the_deleted_one_goes_on_with_the_new_one(receiver):
    old = subscribe(receiver.url(OLD), Site, concurrency=1, timeout=5)
    receiver.answers(OLD, Answer(manner=Manner.HANG))
    site()
    site()
    dispatch_all()
    with sender() as (_pk, its):
        assert take_turns(its, lambda: receiver.requests)
        text = told(old)
        old.delete()
        webhook = restore(text)
        receiver.closing.set()
        assert take_turns(its, lambda: health(webhook).owner_id is None)
        tidy_all()
        own = site()
        dispatch_all()
        assert take_turns(its, lambda: len(receiver.requests) > 1)
    assert [request.path for request in receiver.requests] == [OLD, NEW]
    assert [(one.object_id, one.status) for one in deliveries()] == [(own.pk, DELIVERED)]


@pytest.fixture
def unsignalled(old) -> Webhook:
    """Return a webhook that was made as by SQL, with the id of a deleted one. Its lane is made a second later."""
    found = Webhook.objects.get(pk=old.pk)
    old.delete()
    tidy_all()
    found.payload_url, found.paused = found.payload_url.replace(OLD, NEW), False
    (made,) = Webhook.objects.bulk_create([found])
    made.object_types.set([ContentType.objects.get_for_model(Site)])
    assert not Health.objects.exists()
    return made


def test_one_that_is_made_without_signals_sends_what_came_before_its_lane(unsignalled, receiver):
    own = site()
    dispatch_all()
    lanes.ensure_lanes()
    assert health(unsignalled).former_until is None
    tidy_all()
    work()
    assert [(request.path, request.json()['data']['id']) for request in receiver.requests] == [(NEW, own.pk)]
    assert [(one.object_id, one.status) for one in deliveries()] == [(own.pk, DELIVERED)]


def test_several_senders_may_make_its_lane_at_once(unsignalled, receiver):
    own = site()
    dispatch_all()
    with before_statement('INSERT INTO "webhooks_health"', in_thread_to_end(lanes.ensure_lanes)):
        lanes.ensure_lanes()
    assert health(unsignalled).former_until is None
    work()
    assert [request.json()['data']['id'] for request in receiver.requests] == [own.pk]


def test_a_lane_with_an_id_that_nobody_had_is_free_at_once(receiver):
    webhook = subscribe(receiver.url(NEW), Site)
    assert health(webhook).former_until is None


def test_a_deleted_ones_log_goes_when_no_dispatcher_can_add_to_it(old):
    site()
    dispatcher = hold(Event.objects.get(dispatched_at=None), role=DISPATCH)
    old.delete()
    tidy_all()
    assert sql.fetch_value('SELECT count(*) FROM webhooks_delivery') == WAITING
    dispatcher.end()
    assert wait_until(lambda: tidy.step() or not Health._base_manager.exists(), timeout=30)
    assert not Delivery._base_manager.exists()
