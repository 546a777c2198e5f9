from datetime import timedelta

import pytest
from core.choices import JobStatusChoices
from core.models import Job
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from django_rq import get_queue
from netbox.registry import registry
from rq.registry import FailedJobRegistry
from support.builders import site, subscribe
from support.engine import deliveries, pass_retry_waits, work
from support.log import delivery, event
from support.settings import change_settings
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.tidy import loop as tidy
from webhooks.engine.tidy import retention
from webhooks.jobs import WebhooksRetentionJob
from webhooks.models import Attempt, Delivery, Event, Health, Webhook
from webhooks.services import redelivery

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
OLD, CUTOFF, NEW = (timezone.now() - timedelta(days=days) for days in (40, 30, 20))


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def prune() -> int:
    """Returns how many events went."""
    return sum(retention.by_age(CUTOFF))


def entry(webhook: Webhook, when, status: str = DELIVERED) -> Delivery:
    return delivery(event(site(), timestamp=when), webhook, status=status, created=when)


@pytest.mark.parametrize('status', [DELIVERED, FAILED])
def test_an_old_closed_delivery_is_pruned_with_its_event_and_attempts(webhook, status):
    entry(webhook, OLD, status)
    Event.objects.filter(dispatched_at=None).delete()
    assert prune() == 1
    assert [model.objects.count() for model in (Event, Delivery, Attempt)] == [0, 0, 0]


def test_failed_deliveries_can_be_kept_longer_but_not_for_ever(webhook, monkeypatch):
    change_settings(monkeypatch, retention_days=30, retention_days_failed=60)
    entry(webhook, OLD)
    failed = entry(webhook, OLD, FAILED)
    entry(webhook, OLD - timedelta(days=30), FAILED)
    Event.objects.filter(dispatched_at=None).delete()
    assert retention.prune_all() == 2
    assert deliveries() == [failed]
    assert retention.prune_all(days=30) == 1


@pytest.mark.parametrize('status', [PENDING, SENDING])
def test_an_old_open_delivery_is_not_pruned(webhook, status):
    kept = entry(webhook, OLD, status)
    prune()
    assert deliveries() == [kept]
    assert kept.attempts.exists()


def test_a_new_delivery_is_not_pruned(webhook):
    kept = entry(webhook, NEW)
    prune()
    assert deliveries() == [kept]


def test_an_event_stays_with_its_last_delivery(webhook, receiver):
    done = entry(webhook, OLD)
    waiting = delivery(done.event, subscribe(receiver.url(), Site), status=PENDING, created=OLD)
    prune()
    assert deliveries() == [done, waiting]


def test_a_delivery_that_was_sent_again_lately_stays(webhook):
    done = entry(webhook, OLD)
    again = delivery(done.event, webhook, status=DELIVERED, created=NEW)
    prune()
    assert deliveries() == [done, again]


def test_an_event_that_waits_to_be_dispatched_stays(webhook):
    site()
    Event.objects.update(timestamp=OLD)
    assert prune() == 0
    assert work() == '1 delivered'


def test_an_event_that_nobody_wanted_goes(webhook):
    event(site(), timestamp=OLD)
    Event.objects.filter(dispatched_at=None).delete()
    assert prune() == 1


def test_it_goes_in_chunks(webhook, monkeypatch):
    monkeypatch.setattr(retention, 'DELIVERIES_PER_TRANSACTION', 2)
    for _ in range(5):
        entry(webhook, OLD)
    kept = entry(webhook, NEW)
    assert prune() == 5
    assert deliveries() == [kept]


def test_a_chunk_is_as_large_as_its_events_whatever_webhooks_there_are(webhook, receiver, monkeypatch):
    monkeypatch.setattr(retention, 'DELIVERIES_PER_TRANSACTION', 6)
    for number in range(5):
        subscribe(receiver.url(f'/{number}'), Tenant)
    shared = [entry(webhook, OLD) for _ in range(4)]
    for one in shared[2:]:
        delivery(one.event, webhook, status=DELIVERED, created=OLD)
        delivery(one.event, webhook, status=DELIVERED, created=OLD)
    Event.objects.filter(dispatched_at=None).delete()
    assert list(retention.by_age(CUTOFF)) == [3, 1]


def test_an_old_delivery_that_waits_for_a_retry_survives_pruning_and_is_sent(webhook, receiver):
    receiver.answers(HOOK, 500, 200)
    place = site()
    place.save()
    work()
    Event.objects.update(timestamp=OLD)
    Delivery.objects.update(created=OLD)
    prune()
    pass_retry_waits(attempt_count__gt=0)
    assert work() == '2 delivered'


def test_an_old_change_set_is_pruned(receiver):
    subscribe(receiver.url(HOOK), Site, change_set=True)
    with transaction.atomic():
        for _ in range(3):
            site()
    assert work() == '3 delivered'
    Event.objects.update(timestamp=OLD)
    Delivery.objects.update(created=OLD)
    assert prune() == 3
    assert not Delivery.objects.exists()


def test_all_events_of_an_open_change_set_stay(receiver):
    subscribe(receiver.url(HOOK), Site, change_set=True)
    receiver.answers(HOOK, 500, 200)
    with transaction.atomic():
        for _ in range(3):
            site()
    assert work() == '3 to retry'
    Event.objects.update(timestamp=OLD)
    Delivery.objects.update(created=OLD)
    prune()
    assert Event.objects.count() == 3
    pass_retry_waits()
    assert work() == '3 delivered'
    assert len(receiver.requests[-1].json()['changes']) == 3


def test_the_status_page_keeps_in_step(receiver):
    subscribe(receiver.url(HOOK), Site, max_attempts=1)
    receiver.answers(HOOK, 500)
    site()
    work()
    listed = FailedJobRegistry(queue=get_queue('low'))
    assert len(listed) == 1
    Event.objects.update(timestamp=OLD)
    Delivery.objects.update(created=OLD)
    prune()
    work()
    assert len(listed) == 0


def test_a_delivery_that_is_sent_again_meanwhile_is_not_pruned(webhook):
    """It was closed when chosen, and is open now."""
    failed = entry(webhook, OLD, FAILED)
    redelivery.redeliver(Delivery.objects.filter(pk=failed.pk))
    prune()
    assert [one.pk for one in deliveries(PENDING)] == [failed.pk]


def test_the_daily_job_keeps_as_many_days_as_are_set(webhook, monkeypatch):
    change_settings(monkeypatch, retention_days=35)
    for days in (34, 36):
        entry(webhook, timezone.now() - timedelta(days=days))
    Event.objects.filter(dispatched_at=None).delete()
    WebhooksRetentionJob(Job()).run()
    assert Event.objects.count() == 1


def test_the_daily_job_goes_on_in_another_one_when_its_time_is_over(webhook, monkeypatch, drain):
    monkeypatch.setattr(retention, 'DELIVERIES_PER_TRANSACTION', 2)
    monkeypatch.setattr('webhooks.jobs.JOB_SECONDS', 0)
    for _ in range(5):
        entry(webhook, OLD)
    kept = entry(webhook, NEW)
    Event.objects.filter(dispatched_at=None).delete()
    WebhooksRetentionJob.enqueue()
    drain()
    assert deliveries() == [kept]
    ended = Job.objects.filter(name=WebhooksRetentionJob.name)
    assert ended.count() > 1
    assert {one.status for one in ended} == {JobStatusChoices.STATUS_COMPLETED}


def test_netbox_runs_it_every_day():
    assert registry['system_jobs'][WebhooksRetentionJob] == {'interval': 24 * 60}


def test_a_webhook_that_is_deleted_takes_its_failures_off_the_status_page(receiver):
    webhook = subscribe(receiver.url(HOOK), Site, max_attempts=1)
    receiver.answers(HOOK, 500)
    site()
    work()
    listed = FailedJobRegistry(queue=get_queue('low'))
    assert len(listed) == 1
    webhook.delete()
    while tidy.step():
        pass
    work()
    assert len(listed) == 0


def test_a_delivery_that_was_made_while_its_webhook_was_deleted_is_pruned(webhook):
    """It has neither webhook nor health."""
    entry(webhook, OLD, PENDING)
    Event.objects.filter(dispatched_at=None).delete()
    webhook.delete()
    Health._base_manager.all().delete()
    assert prune() == 1
    assert not Delivery._base_manager.exists()
