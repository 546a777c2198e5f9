"""From events to deliveries: render in batches, match, make deliveries, in one transaction a batch.

A worker that dies in its middle leaves the events as they were.
"""

import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Q

from .. import conf, rendering
from ..choices import KindChoices, StatusChoices
from ..interruptions import INTERRUPTIONS
from ..models import Event, Subscription, Webhook
from ..storable import storable
from . import batching, conditions, endpoint_health, locks, ordering

logger = logging.getLogger('webhooks.dispatch')

BATCH = 200
# For a batch, in milliseconds: rendering is Python's work and NetBox's queries, while nobody but dispatchers waits.
BOUNDS = {'idle_in_transaction_session_timeout': 8_000, 'statement_timeout': 30_000, 'lock_timeout': 2_000}
# Seconds between two statements of a batch, as far as that can be foreseen; events of a model that is not known yet.
SLICE_TIME, FIRST_SLICE = 1.0, 25
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class Progress(Enum):
    NOTHING = 'nothing to dispatch'
    BUSY = 'another worker dispatches'
    DONE = 'a batch was dispatched'


@dataclass(frozen=True)
class Candidate:
    """A webhook whose subscription covers an event, and the names of those whose changes it ignores."""

    webhook: Webhook
    ignored: Set[str]


@dataclass
class Shown:
    """An event and what became of rendering it: `data` for conditions, or the reason why there is none."""

    event: Event
    data: dict | None = None
    text: str = ''
    display: str = ''
    error: str = ''
    snapshots: dict | None = None


def batch() -> Progress:
    """Dispatch the oldest events: BATCH of them, or as many as one request may hold where webhooks ask for batches."""
    if not Event.objects.filter(dispatched_at=None).exists():
        return Progress.NOTHING
    while isinstance(progress := _batch(), dict):
        _warm_up(progress)
    return progress


def _batch() -> Progress | dict[type, Event]:
    """Return what was done, or {model: an event of it} for models that this process has never rendered."""
    with transaction.atomic():
        if not locks.try_acquire(locks.DISPATCH, **BOUNDS):
            return Progress.BUSY
        limit = batching.MAX_EVENTS if Webhook.objects.filter(batch=True, enabled=True).exists() else BATCH
        events = list(Event.objects.filter(dispatched_at=None).order_by('sequence')[:limit])
        if cold := _cold(events):
            return cold
        if events:
            _dispatch(events)
    return Progress.DONE if events else Progress.NOTHING


# Models that this process has rendered before.
_warm: set[type] = set()


def _cold(events: Sequence[Event]) -> dict[type, Event]:
    models = {event: ContentType.objects.get_for_id(event.object_type_id).model_class() for event in events}
    return {model: event for event, model in models.items() if model is not None and model not in _warm}


def _warm_up(events: Mapping[type, Event]) -> None:
    """Render an event of each model, for nothing: the first time takes seconds, for which no lock is to be held."""
    for model, event in events.items():
        _warm.add(model)
        try:
            rendering.render(model, [event.snapshot])
        except INTERRUPTIONS:
            raise
        except Exception as error:
            # The event itself says so when its turn comes.
            logger.info('warm_up=failed model=%s reason="%s"', model._meta.label_lower, error)


def _dispatch(events: Sequence[Event]) -> None:
    matches = _match(events)
    _discard(event.pk for event in events if not matches[event.pk])
    asked = {pk for pk, candidates in matches.items() if any(one.webhook.needs_before for one in candidates)}
    wanted = [event for event in events if matches[event.pk]]
    pairs = []
    for start in range(0, len(wanted), BATCH):
        for shown in render(wanted[start : start + BATCH], asked):
            pairs += _pairs(shown, matches[shown.event.pk])
    taken = Counter(pair.event.pk for pair in pairs)
    _count_skipped({event.pk: len(matches[event.pk]) - taken[event.pk] for event in wanted})
    locks.acquire_within(locks.LINE, **BOUNDS)
    deliver(batching.group(pairs))


def _pairs(shown: Shown, candidates: Sequence[Candidate]) -> list[batching.Pair]:
    """Return what the event is delivered to."""
    accepting = [one.webhook for one in candidates if _accepts(one, shown)]
    return [batching.Pair(webhook, shown.event, len(shown.text), bool(shown.error)) for webhook in accepting]


#
# Match
#


def _match(events: Sequence[Event]) -> dict[int, list[Candidate]]:
    """Return {event id: the webhooks whose subscription covers it}."""
    types = {event.object_type_id for event in events}
    oldest = min(event.sequence for event in events)
    covering = Subscription.objects.filter(Q(until=None) | Q(until__gte=oldest), object_type_id__in=types)
    candidates = _candidates({s.webhook_id for s in covering})
    by_change = defaultdict(list)
    for subscription in covering:
        # A webhook may have been deleted since.
        if subscription.webhook_id in candidates:
            by_change[subscription.object_type_id, subscription.kind].append(subscription)
    return {
        event.pk: [
            candidates[s.webhook_id] for s in by_change[event.object_type_id, event.kind] if s.covers(event.sequence)
        ]
        for event in events
    }


def _candidates(webhook_ids: Set[int]) -> dict[int, Candidate]:
    webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk(webhook_ids)
    return {
        pk: Candidate(webhook, {user.username for user in webhook.ignore_users.all()})
        for pk, webhook in webhooks.items()
    }


def _discard(pks: Iterable[int]) -> None:
    """Nobody asked for these: their kind is not subscribed, or they created and deleted in one transaction."""
    Event.objects.filter(pk__in=list(pks)).delete()


def _accepts(candidate: Candidate, shown: Shown) -> bool:
    if shown.event.username in candidate.ignored:
        return False
    webhook = candidate.webhook
    if not webhook.conditions or shown.data is None:
        return True
    try:
        return conditions.are_met(webhook.conditions, {**shown.data, 'snapshots': shown.snapshots})
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # Not only InvalidCondition: a script may have saved conditions that were never checked.
        reason = f'{type(error).__name__}: {error}'
        logger.warning('webhook=%s event=%s conditions="%s"', webhook.pk, shown.event.uuid, reason)
        return False


SKIP = """
    UPDATE webhooks_event e SET skipped = v.count FROM unnest(%s::bigint[], %s::int[]) AS v(id, count)
    WHERE e.id = v.id"""


def _count_skipped(counts: Mapping[int, int]) -> None:
    """Note on the events how many webhooks asked for them and did not take them."""
    some = {pk: count for pk, count in counts.items() if count}
    if not some:
        return
    with connection.cursor() as cursor:
        cursor.execute(SKIP, [list(some), list(some.values())])


#
# Render
#


def render(events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    """Render events and write what they show to them; those in `asked`, by id, with snapshots. Keeps the order."""
    by_type = defaultdict(list)
    for event in events:
        by_type[event.object_type_id].append(event)
    shown = {}
    for object_type_id, group in by_type.items():
        model = ContentType.objects.get_for_id(object_type_id).model_class()
        for part in _slices(model, group):
            shown |= {one.event.pk: one for one in _render_model(model, part, asked)}
    return [shown[event.pk] for event in events]


# {model: seconds that an object took to render}
_pace_of: dict[type | None, float] = {}


def _slices(model: type | None, events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Yield the events in slices, each of which takes SLICE_TIME to render, by what the one before took."""
    start = 0
    while start < len(events):
        size = max(int(SLICE_TIME / _pace_of[model]), 1) if model in _pace_of else FIRST_SLICE
        part = events[start : start + size]
        began = time.monotonic()
        yield part
        _pace_of[model] = (time.monotonic() - began) / len(part)
        start += size


def _render_model(model: type | None, events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    if model is None:
        return _save([Shown(event, error='the model is no longer installed') for event in events])
    try:
        with transaction.atomic():
            return _save(_show(model, events, asked))
    except INTERRUPTIONS:
        raise
    except Exception as error:
        if len(events) == 1:
            logger.exception('event=%s rendering failed', events[0].uuid)
            reason = storable(f'the payload cannot be built: {type(error).__name__}: {error}')
            return _save([Shown(events[0], error=reason)])
        # One of them is to blame: singly, it holds up no other.
        return [one for event in events for one in _render_model(model, [event], asked)]


def _show(model: type, events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    results = rendering.render(model, [event.snapshot for event in events])
    changes = _changes(model, [event for event in events if event.pk in asked])
    return [
        Shown(event, one.data, _dumps(one.data), one.display, snapshots=changes.get(event.pk))
        for event, one in zip(events, results, strict=True)
    ]


def _changes(model: type, events: Sequence[Event]) -> dict[int, dict]:
    """Return {event id: {"prechange": …, "postchange": …}}, as NetBox's change log shows them."""
    before = rendering.change_log(model, [event.prechange for event in events])
    after = [None if event.kind == KindChoices.DELETED else event.snapshot for event in events]
    return {
        event.pk: {'prechange': prechange, 'postchange': postchange}
        for event, prechange, postchange in zip(events, before, rendering.change_log(model, after), strict=True)
    }


#
# Save
#

SAVE = """
    UPDATE webhooks_event e
    SET data = v.data, object_repr = v.display, error = v.error, snapshots = v.snapshots, dispatched_at = now(),
        -- What could not be rendered may be rendered by a later version.
        snapshot = CASE WHEN v.error = '' THEN NULL ELSE e.snapshot END,
        prechange = CASE WHEN v.error = '' THEN NULL ELSE e.prechange END
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::jsonb[])
        AS v(id, data, display, error, snapshots)
    WHERE e.id = v.id"""

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


def _save(shown: list[Shown]) -> list[Shown]:
    with connection.cursor() as cursor:
        cursor.execute(
            SAVE,
            [
                [one.event.pk for one in shown],
                [one.text for one in shown],
                [one.display for one in shown],
                [one.error for one in shown],
                [_dumps(one.snapshots) if one.snapshots else None for one in shown],
            ],
        )
    return shown


def _dumps(value: dict) -> str:
    return ENCODER.encode(value)


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
        endpoint_health.note_failed(failed, made[0][-1])
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
