"""Beyond `retention_size`, the oldest deliveries go, successes before failures."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from core.models import Job
from dcim.models import Site
from django.core.management import call_command
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import deliveries
from support.log import delivery, event
from support.settings import change_settings
from support.writers import Writer

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.tidy import retention
from webhooks.jobs import WebhooksRetentionJob
from webhooks.models import Attempt, Delivery, Event, Webhook
from webhooks.services import redelivery

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


@pytest.fixture
def entry(webhook: Webhook) -> Callable[..., Delivery]:
    """Make a delivery that is so many days old."""
    place = site()
    Event.objects.all().delete()

    def make(days: int, status: str = DELIVERED, to: Webhook = webhook) -> Delivery:
        when = timezone.now() - timedelta(days=days)
        return delivery(event(place, timestamp=when), to, status=status, created=when)

    return make


def prune(size: int) -> int:
    """Returns how many events went."""
    return sum(retention.by_size(size))


def left() -> set[int]:
    return {one.pk for one in deliveries()}


def test_the_oldest_go_with_all_they_have(entry):
    made = [entry(days) for days in (5, 4, 3, 2, 1)]
    assert prune(2) == 3
    assert left() == {one.pk for one in made[-2:]}
    assert (Event.objects.count(), Attempt.objects.count()) == (2, 2)


def test_a_log_within_the_bound_is_left_alone(entry):
    made = {entry(days).pk for days in (5, 4, 3)}
    assert prune(3) == 0
    assert left() == made
    assert prune(2) == 1


def test_zero_is_no_bound(entry):
    made = {entry(days).pk for days in (5, 4, 3)}
    assert prune(0) == 0
    assert left() == made
    prune(1)
    assert left() == {max(made)}


def test_successes_go_before_older_failures(entry):
    failed = [entry(days, FAILED) for days in (9, 8)]
    delivered = [entry(days) for days in (7, 6, 5)]
    prune(3)
    assert left() == {*(one.pk for one in failed), delivered[-1].pk}
    prune(1)
    assert left() == {failed[-1].pk}


@pytest.mark.parametrize('status', [PENDING, SENDING])
def test_open_deliveries_are_never_pruned_for_size(entry, status):
    kept = [entry(days, status) for days in (9, 8, 7)]
    closed = entry(1)
    assert prune(1) == 1
    assert left() == {one.pk for one in kept}
    assert closed.pk not in left()


def test_an_event_stays_with_its_open_delivery(entry, receiver):
    done = entry(9)
    other = subscribe(receiver.url(), Site)
    waiting = delivery(done.event, other, status=PENDING, created=done.created)
    closed = entry(8)
    assert prune(1) == 1
    assert left() == {done.pk, waiting.pk}
    assert closed.pk not in left()


def test_an_event_with_a_failure_goes_after_those_without(entry, receiver):
    failed = entry(9, FAILED)
    done = delivery(failed.event, subscribe(receiver.url(), Site), status=DELIVERED, created=failed.created)
    entry(8)
    prune(2)
    assert left() == {failed.pk, done.pk}


def test_remains_of_a_deleted_webhook_do_not_count_for_the_size_of_the_others(entry, receiver):
    other = subscribe(receiver.url(), Site)
    gone = [entry(days, to=other).pk for days in (9, 8, 7)]
    made = [entry(days).pk for days in (6, 5, 4)]
    shared = entry(3)
    delivery(shared.event, other, status=DELIVERED, created=shared.created)
    other.delete()
    assert prune(4) == 0
    assert prune(3) == 1
    assert left() == {*made[1:], shared.pk}
    assert prune(1) == 2
    assert left() == {shared.pk}
    remains = sql.fetch_column('SELECT id FROM webhooks_delivery WHERE webhook_id <> %s', [shared.webhook_id])
    assert set(gone) < set(remains)


def test_it_goes_in_chunks(entry, monkeypatch):
    monkeypatch.setattr(retention, 'DELIVERIES_PER_TRANSACTION', 2)
    monkeypatch.setattr(retention, 'EVENTS_PER_LOOK', 3)
    made = [entry(days) for days in range(20, 9, -1)]
    assert prune(1) == 10
    assert left() == {made[-1].pk}


def test_the_bound_holds_before_age_is_looked_at(entry, monkeypatch):
    change_settings(monkeypatch, retention_size=2)
    aged, *made = entry(40, FAILED), *(entry(days) for days in (4, 3, 2))
    pruned = retention.slices()
    assert next(pruned) == 2
    assert left() == {aged.pk, made[-1].pk}
    assert list(pruned) == [1]
    assert left() == {made[-1].pk}


def test_a_delivery_that_is_redelivered_meanwhile_is_not_pruned(entry):
    oldest, other = entry(9, FAILED), entry(8, FAILED)
    writer = Writer(lambda: redelivery.redeliver(Delivery.objects.filter(pk=oldest.pk))).has_written()
    assert prune(1) == 1
    assert left() == {oldest.pk}
    writer.finish()
    assert [one.pk for one in deliveries(PENDING)] == [oldest.pk]
    assert other.pk not in left()


@pytest.mark.parametrize(
    'run', [lambda: WebhooksRetentionJob(Job()).run(), lambda: call_command('webhooks_prune')], ids=['job', 'command']
)
def test_the_daily_job_and_the_command_keep_as_many_as_are_set(entry, monkeypatch, run):
    change_settings(monkeypatch, retention_size=2)
    made = [entry(days) for days in (40, 4, 3, 2)]
    run()
    assert left() == {one.pk for one in made[-2:]}
