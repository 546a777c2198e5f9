"""From events to deliveries: render in batches, match, make deliveries, in one transaction a batch.

A worker that dies in its middle leaves the events as they were.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

from django.db import connection, transaction

from .. import conf
from ..choices import StatusChoices
from ..models import Event, Webhook
from . import batching, event_rendering, ledger, locks, ordering
from .event_rendering import Shown
from .matching import Candidate, accepts, match

BATCH = 200
# For a batch, in milliseconds: rendering is Python's work and NetBox's queries, while nobody but dispatchers waits.
_bounds = {'idle_in_transaction_session_timeout': 8_000, 'statement_timeout': 30_000, 'lock_timeout': 2_000}
LONGEST_IDLE = 300_000
# Seconds without a statement after which one is sent.
SILENCE = 1.0


class Progress(Enum):
    NOTHING = 'nothing to dispatch'
    BUSY = 'another worker dispatches'
    DONE = 'a batch was dispatched'


# Of a failed event the deliveries are failed as well, with its reason: they are seen, and can be tried again.
DELIVER = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, event_count,
        status, error, created, due_at, expires_at, finished_at, attempt_count, listed)
    SELECT gen_random_uuid(), v.webhook_id, e.id, e.object_type_id, e.object_id, e.sequence, v.event_count,
        CASE WHEN e.error = '' THEN 'pending' ELSE 'failed' END, e.error,
        now(), CASE WHEN e.error = '' THEN now() END, now() + make_interval(secs => %s),
        CASE WHEN e.error <> '' THEN now() END, 0, false
    FROM unnest(%s::bigint[], %s::bigint[], %s::int[]) WITH ORDINALITY AS v(webhook_id, event_id, event_count, position)
    JOIN webhooks_event e ON e.id = v.event_id
    ORDER BY v.position
    RETURNING id, webhook_id, status, created"""

ADD_ITEMS = """
    INSERT INTO webhooks_batchitem (delivery_id, event_id, webhook_id, object_type_id, object_id, sequence, open)
    SELECT d.id, e.id, d.webhook_id, e.object_type_id, e.object_id, e.sequence, true
    FROM unnest(%s::bigint[], %s::bigint[]) AS v(delivery_id, event_id)
    JOIN webhooks_delivery d ON d.id = v.delivery_id
    JOIN webhooks_event e ON e.id = v.event_id"""


SKIP = """
    UPDATE webhooks_event e SET skipped = v.count FROM unnest(%s::bigint[], %s::int[]) AS v(id, count)
    WHERE e.id = v.id"""


def batch() -> Progress:
    """Dispatch the oldest events: BATCH of them, or as many as one request may hold where webhooks ask for batches."""
    if not Event.objects.filter(dispatched_at=None).exists():
        return Progress.NOTHING
    while isinstance(progress := _batch(), dict):
        event_rendering.warm_up(progress)
    return progress


def _batch() -> Progress | dict[type, Event]:
    """Return what was done, or {model: an event of it} for models that this process has never rendered."""
    with transaction.atomic():
        if not locks.try_acquire(locks.DISPATCH, **_bounds):
            return Progress.BUSY
        limit = batching.MAX_EVENTS if Webhook.objects.filter(batch=True, enabled=True).exists() else BATCH
        events = list(Event.objects.filter(dispatched_at=None).order_by('sequence')[:limit])
        if cold := event_rendering.cold(events):
            return cold
        if events:
            _dispatch(events)
    return Progress.DONE if events else Progress.NOTHING


def _dispatch(events: Sequence[Event]) -> None:
    matches = match(events)
    _discard(event.pk for event in events if not matches[event.pk])
    asked = {pk for pk, candidates in matches.items() if any(one.webhook.needs_before for one in candidates)}
    wanted = [event for event in events if matches[event.pk]]
    pairs, spoken_at = [], time.monotonic()
    for start in range(0, len(wanted), BATCH):
        for shown in event_rendering.render(wanted[start : start + BATCH], asked):
            pairs += _pairs(shown, matches[shown.event.pk])
            if time.monotonic() - spoken_at > SILENCE:
                _say_something()
                spoken_at = time.monotonic()
    taken = Counter(pair.event.pk for pair in pairs)
    _count_skipped({event.pk: len(matches[event.pk]) - taken[event.pk] for event in wanted})
    locks.acquire_within(locks.LINE, **_bounds)
    _hold_webhooks({pair.webhook.pk for pair in pairs})
    deliver(batching.group(pairs))


def _hold_webhooks(pks: Collection[int]) -> None:
    """Take now what the foreign key asks for at the commit, and wait for nobody: meanwhile all deliveries would wait.

    Raises OperationalError where an open transaction has renamed or deleted one of them.
    """
    with connection.cursor() as cursor:
        cursor.execute('SELECT id FROM webhooks_webhook WHERE id = ANY(%s) FOR KEY SHARE NOWAIT', [list(pks)])


def be_more_patient() -> None:
    """Called when PostgreSQL has broken off a batch: a model may take longer to render than the bound allows."""
    idle = _bounds['idle_in_transaction_session_timeout']
    _bounds['idle_in_transaction_session_timeout'] = min(2 * idle, LONGEST_IDLE)


def _say_something() -> None:
    """Conditions take no statement, and up to a twentieth of a second each: PostgreSQL is not to think us frozen."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT 1')


def _pairs(shown: Shown, candidates: Sequence[Candidate]) -> list[batching.Pair]:
    """Return what the event is delivered to."""
    accepting = [one.webhook for one in candidates if accepts(one, shown)]
    return [batching.Pair(webhook, shown.event, len(shown.text), bool(shown.error)) for webhook in accepting]


def _discard(pks: Iterable[int]) -> None:
    """Nobody asked for these: their kind is not subscribed, or they created and deleted in one transaction."""
    Event.objects.filter(pk__in=list(pks)).delete()


def _count_skipped(counts: Mapping[int, int]) -> None:
    """Note on the events how many webhooks asked for them and did not take them."""
    some = {pk: count for pk, count in counts.items() if count}
    if not some:
        return
    with connection.cursor() as cursor:
        cursor.execute(SKIP, [list(some), list(some.values())])


def deliver(groups: Sequence[batching.Group]) -> list[int]:
    """Make a delivery of each group, line them up, and return their ids. The caller holds locks.LINE."""
    groups = _still_wanted(groups)
    if not groups:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            DELIVER,
            [
                conf.get().expire_after,
                [group.webhook_id for group in groups],
                [group.event_ids[-1] for group in groups],
                [len(group.event_ids) for group in groups],
            ],
        )
        made = cursor.fetchall()
    ids = [pk for pk, *_ in made]
    _add_items(ids, groups)
    ordering.line_up(ids)
    failed = Counter(webhook_id for _pk, webhook_id, status, _created in made if status == StatusChoices.FAILED)
    if failed:
        ledger.note_failed(failed, made[0][-1])
    return ids


def _still_wanted(groups: Sequence[batching.Group]) -> list[batching.Group]:
    """Leave out those of webhooks that were deleted since: under the lock, which whoever deletes one holds as well."""
    there = set(Webhook.objects.filter(pk__in={group.webhook_id for group in groups}).values_list('pk', flat=True))
    return [group for group in groups if group.webhook_id in there]


def _add_items(ids: Sequence[int], groups: Sequence[batching.Group]) -> None:
    items = [
        (pk, event_id)
        for pk, group in zip(ids, groups, strict=True)
        if len(group.event_ids) > 1
        for event_id in group.event_ids
    ]
    if not items:
        return
    with connection.cursor() as cursor:
        cursor.execute(ADD_ITEMS, [list(column) for column in zip(*items, strict=True)])
