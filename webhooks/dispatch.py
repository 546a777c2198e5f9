"""From events to deliveries: render in batches, match, make deliveries, in one transaction a batch.

A worker that dies in its middle leaves the events as they were.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q
from extras.conditions import ConditionSet, InvalidCondition
from rq.timeouts import BaseTimeoutException

from . import batches, conf, line, locks, rendering
from .choices import KindChoices
from .models import Event, Subscription, Webhook

logger = logging.getLogger('webhooks.dispatch')

BATCH = 200
NOT_THE_EVENTS_FAULT = (OperationalError, InterfaceError, BaseTimeoutException)


class Progress(Enum):
    NOTHING = 'nothing to dispatch'
    BUSY = 'another worker dispatches'
    DONE = 'a batch was dispatched'


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
    with transaction.atomic():
        if not locks.try_acquire(locks.DISPATCH):
            return Progress.BUSY
        limit = batches.MAX_EVENTS if Webhook.objects.filter(batch=True, enabled=True).exists() else BATCH
        events = list(Event.objects.filter(dispatched_at=None).order_by('sequence')[:limit])
        if events:
            _dispatch(events)
    return Progress.DONE if events else Progress.NOTHING


def _dispatch(events: Sequence[Event]) -> None:
    matches = _match(events)
    _discard(event.pk for event in events if not matches[event.pk])
    asked = {pk for pk, webhooks in matches.items() if any(webhook.needs_before for webhook in webhooks)}
    wanted = [event for event in events if matches[event.pk]]
    pairs = []
    for start in range(0, len(wanted), BATCH):
        for shown in render(wanted[start : start + BATCH], asked):
            pairs += _pairs(shown, matches[shown.event.pk])
    locks.acquire(locks.LINE)
    deliver(batches.group(pairs))


def _pairs(shown: Shown, webhooks: Sequence[Webhook]) -> list[batches.Pair]:
    """Return what the event is delivered to, and count on the event those that do not take it."""
    accepting = [webhook for webhook in webhooks if _accepts(webhook, shown)]
    if len(accepting) < len(webhooks):
        Event.objects.filter(pk=shown.event.pk).update(skipped=len(webhooks) - len(accepting))
    return [batches.Pair(webhook, shown.event, len(shown.text), bool(shown.error)) for webhook in accepting]


#
# Match
#


def _match(events: Sequence[Event]) -> dict[int, list[Webhook]]:
    """Return {event id: the webhooks whose subscription covers it}."""
    types = {event.object_type_id for event in events}
    oldest = min(event.sequence for event in events)
    covering = Subscription.objects.filter(Q(until=None) | Q(until__gte=oldest), object_type_id__in=types)
    webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk({s.webhook_id for s in covering})
    by_change = defaultdict(list)
    for subscription in covering:
        by_change[subscription.object_type_id, subscription.kind].append(subscription)
    return {
        event.pk: [
            webhooks[s.webhook_id] for s in by_change[event.object_type_id, event.kind] if s.covers(event.sequence)
        ]
        for event in events
    }


def _discard(pks: Iterable[int]) -> None:
    """Nobody asked for these: their kind is not subscribed, or they created and deleted in one transaction."""
    Event.objects.filter(pk__in=list(pks)).delete()


def _accepts(webhook: Webhook, shown: Shown) -> bool:
    if shown.event.username in {user.username for user in webhook.ignore_users.all()}:
        return False
    if not webhook.conditions or shown.data is None:
        return True
    try:
        return ConditionSet(webhook.conditions).eval({**shown.data, 'snapshots': shown.snapshots})
    except InvalidCondition as error:
        logger.warning('webhook=%s event=%s conditions="%s"', webhook.pk, shown.event.uuid, error)
        return False


#
# Render
#


def render(events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    """Render events and write what they show to them; those in `asked`, by id, with snapshots. Keeps the order."""
    by_type = defaultdict(list)
    for event in events:
        by_type[event.object_type].append(event)
    shown = {}
    for object_type, group in by_type.items():
        for one in _render_model(object_type.model_class(), group, asked):
            shown[one.event.pk] = one
    _save(list(shown.values()))
    return [shown[event.pk] for event in events]


def _render_model(model: type | None, events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    if model is None:
        return [Shown(event, error='the model is no longer installed') for event in events]
    try:
        with transaction.atomic():
            results = rendering.render(model, [event.snapshot for event in events])
            changes = _changes(model, [event for event in events if event.pk in asked])
    except NOT_THE_EVENTS_FAULT:
        raise
    except Exception as error:
        if len(events) == 1:
            logger.exception('event=%s rendering failed', events[0].uuid)
            return [Shown(events[0], error=f'the payload cannot be built: {type(error).__name__}: {error}')]
        # One of them is to blame: singly, it holds up no other.
        return [one for event in events for one in _render_model(model, [event], asked)]
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
    RETURNING id"""

ADD_ITEMS = """
    INSERT INTO webhooks_batchitem (delivery_id, event_id, webhook_id, object_type_id, object_id, sequence, open)
    SELECT d.id, e.id, d.webhook_id, e.object_type_id, e.object_id, e.sequence, true
    FROM unnest(%s::bigint[], %s::bigint[]) AS v(delivery_id, event_id)
    JOIN webhooks_delivery d ON d.id = v.delivery_id
    JOIN webhooks_event e ON e.id = v.event_id"""


def _save(shown: Sequence[Shown]) -> None:
    if not shown:
        return
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


def _dumps(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False)


def deliver(groups: Sequence[batches.Group]) -> None:
    """Make a delivery of each group and line them up. The caller holds locks.LINE."""
    if not groups:
        return
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
        made = [row[0] for row in cursor.fetchall()]
        items = [
            (pk, event_id)
            for pk, group in zip(made, groups, strict=True)
            if len(group.event_ids) > 1
            for event_id in group.event_ids
        ]
        if items:
            cursor.execute(ADD_ITEMS, [list(column) for column in zip(*items, strict=True)])
    line.line_up(made)
