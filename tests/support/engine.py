"""The engine, run by hand in this process: a job when the test says so, and a clock that can be put forward."""

import dataclasses
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from devstack.receiver import Received, Receiver
from webhooks import conf
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine import claims, dispatch, lanes, outcomes, runner
from webhooks.engine.claimed import prepare
from webhooks.engine.job_time import ANY_TIME, Span
from webhooks.engine.ledger import Ledger
from webhooks.models import Delivery, Event, Health, Webhook
from webhooks.payload.http_request import Builder
from webhooks.services import failed_jobs
from webhooks.transport.exchange import Outcome


def work() -> str:
    """Do what a drain job does until nothing is due, and return its result."""
    tally = runner.run()
    failed_jobs.publish()
    return str(tally)


def dispatch_all() -> None:
    """Make deliveries of what is recorded, and send none."""
    lease = uuid.uuid4()
    while dispatch.dispatch(lease):
        pass


def claim(
    lease: uuid.UUID | None = None, limit: int = 10, span: Span = ANY_TIME, one_each: Collection[int] = ()
) -> list[Delivery]:
    """Claim what is due, as a worker of its own if no lease is given."""
    with lanes.turn() as now:
        claimed = claims.claim(lease or uuid.uuid4(), (), limit, now, span, one_each)
    return claims.fetch(claimed.pks)


def claim_suspect(lease: uuid.UUID | None = None) -> list[Delivery]:
    """Claim one of those whose worker stopped while it held them, as their own process would."""
    with lanes.turn() as now:
        claimed = claims.claim(lease or uuid.uuid4(), (), 1, now, suspect=True)
    return claims.fetch(claimed.pks)


def record(lease: uuid.UUID, claimed: list[Delivery], outcome: Outcome) -> str:
    """As if the requests of the claimed had come to this outcome."""
    webhooks = Webhook.objects.select_related('health').in_bulk()
    sent = [prepare(one, Builder(webhooks[one.webhook_id]), 0) for one in claimed]
    for one in sent:
        one.outcome = outcome
    with lanes.turn() as now:
        held = lanes.take({one.webhook_id for one in claimed})
        judged = [outcomes.judge(one, now) for one in sent]
        return str(outcomes.record(lease, judged, Ledger(), held, now))


@contextmanager
def working() -> Iterator[threading.Thread]:
    """A drain job beside the test, in a thread with a connection of its own. It has to end by itself."""
    thread = in_thread(work)
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@contextmanager
def open_transaction(prepare: Callable[[], Any]) -> Iterator[None]:
    """Somebody else's transaction that has done `prepare` and goes on until the block ends."""
    is_ready, goes_on = threading.Event(), threading.Event()

    def run() -> None:
        with transaction.atomic():
            prepare()
            is_ready.set()
            goes_on.wait(60)

    thread = in_thread(run)
    assert is_ready.wait(30)
    try:
        yield
    finally:
        goes_on.set()
        thread.join(30)


def is_anybody_blocked() -> bool:
    """Whether a session on this database waits for another's lock."""
    with connection.cursor() as cursor:
        # In a transaction the first look at the sessions is kept, otherwise.
        cursor.execute('SELECT pg_stat_clear_snapshot()')
        cursor.execute(
            'SELECT count(*) FROM pg_stat_activity '
            'WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0'
        )
        return cursor.fetchone()[0] > 0


#
# The clock
#


def pass_retry_waits(**filters: Any) -> None:
    """Whatever waits for a retry is due; what is parked is not."""
    pending = Delivery.objects.filter(status=StatusChoices.PENDING, due_at__isnull=False, **filters)
    pending.update(due_at=timezone.now())
    pending.filter(overtake_at__isnull=False).update(overtake_at=timezone.now())


def pass_leases() -> None:
    """What workers hold is theirs no longer."""
    Delivery.objects.filter(status=StatusChoices.SENDING).update(lease_until=timezone.now() - timedelta(seconds=1))


def pass_event_leases() -> None:
    """Nor what dispatchers hold."""
    undispatched = Event.objects.filter(dispatched_at=None, lease__isnull=False)
    undispatched.update(lease_until=timezone.now() - timedelta(seconds=1))


def pass_probe_interval(webhook: Webhook) -> None:
    Health.objects.filter(webhook=webhook).update(probe_at=timezone.now() - timedelta(seconds=1))


def expire(**filters: Any) -> None:
    open_ones = Delivery.objects.filter(status__in=OPEN_STATUSES, **filters)
    open_ones.update(expires_at=timezone.now() - timedelta(seconds=1))


def change_settings(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    monkeypatch.setattr(conf, '_settings', dataclasses.replace(conf.get(), **values))


#
# What came of it
#


def deliveries(*statuses: str, **filters: Any) -> list[Delivery]:
    """Return the deliveries, of these statuses if given, in the order of the sequence."""
    found = Delivery.objects.filter(**filters).order_by('sequence', 'pk')
    return list(found.filter(status__in=statuses) if statuses else found)


def health(webhook: Webhook) -> Health:
    return Health.objects.get(webhook=webhook)


def arrivals(receiver: Receiver, path: str | None = None) -> list[tuple[int, int]]:
    """Return (object id, sequence) of each request, in the order of arrival."""
    return [
        (request.json()['data']['id'], request.json()['sequence'])
        for request in receiver.matching(lambda request: path is None or request.path == path)
    ]


def sequences(requests: list[Received]) -> list[int]:
    return [request.json()['sequence'] for request in requests]


def disorder(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the arrivals that came after a later one of the same object. A repetition is none."""
    highest: dict[int, int] = {}
    late = []
    for object_id, sequence in pairs:
        if sequence < highest.get(object_id, 0):
            late.append((object_id, sequence))
        highest[object_id] = max(sequence, highest.get(object_id, 0))
    return late
