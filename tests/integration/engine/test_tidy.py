from datetime import timedelta

import pytest
from dcim.models import Site
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    deliveries,
    dispatch_all,
    dispatching,
    expire,
    health,
    hold,
    in_thread,
    open_transaction,
    work,
)
from support.log import delivery, event
from support.writers import before_statement

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.engine.deliver import order
from webhooks.engine.process import dispatcher
from webhooks.engine.registry import SEND, Registration
from webhooks.engine.tidy import loop as tidy
from webhooks.engine.tidy import retention
from webhooks.models import Backfill, Delivery, Health, Hour, Webhook
from webhooks.models.hour import HOUR_RETENTION
from webhooks.services import trial

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site)


def tidy_all() -> None:
    while tidy.step():
        pass


def test_beside_events_it_goes_on_after_its_interval_and_without_events_at_once(receiver, monkeypatch):
    monkeypatch.setattr(tidy, 'ROWS_PER_TRANSACTION', 1)
    monkeypatch.setattr(dispatcher, 'TIDY_SECONDS', 60)
    place = site()
    deleted = subscribe(receiver.url('/old'), Site)
    for _ in range(3):
        delivery(event(place), deleted)
    deleted_id = deleted.pk
    deleted.delete()
    subscribe(receiver.url('/hook'), Site)
    left = []
    with dispatching() as its:
        for is_busy in (True, True, False, False):
            if is_busy:
                site()
            assert its.step() == is_busy
            left.append(Delivery._base_manager.filter(webhook_id=deleted_id).count())
    assert left == [2, 2, 1, 0]


def test_failures_are_listed_while_changes_keep_coming(webhook):
    listed: list[None] = []
    with dispatching(lambda: listed.append(None)) as its:
        for _ in range(3):
            site()
            assert its.work()
    assert listed


def test_a_test_from_a_host_whose_clock_is_late_does_not_expire(webhook, receiver, monkeypatch):
    receiver.answers('/hook', Answer(delay=150))
    late = timezone.now() - timedelta(hours=1)
    with monkeypatch.context() as host:
        host.setattr(timezone, 'now', lambda: late)
        testing = in_thread(lambda: trial.send_test(webhook))
        receiver.wait_for(1)
    tidy_all()
    receiver.closing.set()
    testing.join(60)
    assert [(one.status, one.error) for one in deliveries()] == [(DELIVERED, '')]


def test_a_delivery_that_a_worker_takes_in_hand_meanwhile_does_not_expire(webhook):
    one = delivery(event(site()), webhook, status=PENDING, error='', expires_at=timezone.now() - timedelta(hours=1))

    def begin() -> None:
        registration = Registration('owner', SEND)
        registration.begin()
        registration.beat(deliveries=[one.pk])

    with before_statement("SET status = 'failed'", begin):
        tidy.expire()
    assert deliveries(PENDING)


def test_an_expired_delivery_fails_and_the_next_change_of_its_object_is_sent(webhook, receiver):
    place = site()
    place.save()
    dispatch_all()
    first, second = deliveries(PENDING)
    Delivery.objects.filter(pk=second.pk).update(state=DeliveryState.HELD, due_at=None)
    expire(pk=first.pk)
    tidy_all()
    assert [(one.status, one.error) for one in deliveries()] == [
        (FAILED, 'it expired before it could be delivered'),
        (PENDING, ''),
    ]
    assert health(webhook).failed == 1
    work()
    assert [request.json()['sequence'] for request in receiver.requests] == [second.sequence]


def test_the_last_error_is_kept(webhook):
    delivery(event(site()), webhook, status=PENDING, error='HTTP 500', expires_at=timezone.now() - timedelta(hours=1))
    tidy_all()
    assert deliveries(FAILED)[0].error == 'it expired before it could be delivered; last: HTTP 500'


def test_a_delivery_in_hand_of_a_worker_does_not_expire(webhook):
    site()
    dispatch_all()
    (held,) = deliveries(PENDING)
    registration = hold(held)
    expire()
    assert not tidy.step()
    assert deliveries(PENDING) == [held]
    registration.end()
    assert tidy.step()
    assert deliveries(FAILED) == [held]


def test_a_delivery_that_was_redelivered_meanwhile_does_not_expire(webhook, monkeypatch):
    site()
    dispatch_all()
    monkeypatch.setattr(tidy, 'FIND_OVERDUE', 'SELECT id FROM webhooks_delivery')
    assert not tidy.expire()
    assert deliveries(PENDING)


def test_a_test_that_was_cut_off_fails(webhook):
    tested = delivery(event(site(), test=True), webhook, attempts=0, status=SENDING)
    tidy_all()
    assert deliveries(SENDING) == [tested]
    expire()
    tidy_all()
    assert [one.error for one in deliveries(FAILED)] == ['it was cut off before an outcome was recorded']
    assert not Health.objects.get(webhook=webhook).failed
    assert not Hour.objects.filter(failed__gt=0).exists()


def test_a_lane_that_somebody_has_locked_keeps_no_other_from_it(webhook, receiver):
    other = subscribe(receiver.url('/other'), Site)
    site()
    dispatch_all()
    expire()
    with open_transaction(lambda: order.lock_lanes([webhook.pk])):
        tidy_all()
        assert [one.webhook_id for one in deliveries(PENDING)] == [webhook.pk]
    tidy_all()
    assert {one.webhook_id for one in deliveries(FAILED)} == {webhook.pk, other.pk}


def test_in_a_lane_that_somebody_has_locked_nothing_passes(webhook):
    place = site()
    place.save()
    dispatch_all()
    Webhook.objects.update(ordered=False)
    _first, second = deliveries(PENDING)
    Delivery.objects.filter(pk=second.pk).update(state=DeliveryState.HELD, due_at=None)
    with open_transaction(lambda: order.lock_lanes([webhook.pk])):
        assert not tidy.release_unordered()
    assert tidy.release_unordered()


def test_the_log_of_a_deleted_webhook_goes_a_part_at_a_time(webhook, receiver, monkeypatch):
    monkeypatch.setattr(tidy, 'ROWS_PER_TRANSACTION', 2)
    kept = delivery(event(site()), subscribe(receiver.url('/other'), Site))
    for _ in range(5):
        delivery(event(site()), webhook)
    webhook.delete()
    assert tidy.step()
    assert Delivery._base_manager.count() == 4
    tidy_all()
    assert list(Delivery._base_manager.all()) == [kept]
    assert Health._base_manager.count() == 1
    assert not Backfill._base_manager.exists()


def test_counts_of_old_hours_go(webhook):
    old, new = (timezone.now() - HOUR_RETENTION + timedelta(hours=hours) for hours in (-1, 1))
    Hour.objects.bulk_create([Hour(health_id=webhook.pk, start=start) for start in (old, new)])
    retention.prune_all()
    assert Hour.objects.get().start == new
