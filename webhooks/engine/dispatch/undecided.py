"""Evaluates conditions that may take long, and filters of lists, in turn for each webhook, beside dispatch.

A regular expression may take 50 ms, as may a hundred comparisons of long texts. If 30 webhooks with one were decided
together with all others, each change would take seconds for everybody. So dispatch makes an undecided delivery. No
sender sees it, but if the webhook is `ordered`, later changes of its object wait for it. When it is its webhook's turn,
it becomes ready or resting, or is deleted. A turn is for one type: a filter that fails stops no other list.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from ...exceptions import reason_of
from ...interruptions import INTERRUPTIONS, Shortage
from ...models import Event, Webhook, querysets
from ...storable import storable
from .. import sql
from ..deliver import order, quiet
from ..each import rest_after
from . import matching, memberships
from .memberships import UPDATED
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

# All webhooks together have at most this time between two batches of events.
STEP_SECONDS = 0.1
# A webhook has this time in its turn, but at least one evaluation. So it reads no more deliveries than that may take.
TURN_SECONDS = 0.02
TURN_DELIVERIES = 50

LONG_BUT_DATA = [name for name in querysets.LONG_COLUMNS if name != 'data']

# Find the next webhook by id that has an undecided delivery.
FIND_NEXT_WEBHOOK = """
    SELECT webhook_id FROM webhooks_delivery WHERE status = 'undecided' AND webhook_id > %s
    ORDER BY webhook_id LIMIT 1"""

# Find the type of a webhook's oldest undecided delivery, without the types that rest.
FIND_TYPE = """
    SELECT object_type_id FROM webhooks_delivery
    WHERE status = 'undecided' AND webhook_id = %s AND object_type_id <> ALL(%s)
    ORDER BY id LIMIT 1"""

# Lock a webhook's oldest undecided deliveries of a type, without those that another dispatcher evaluates.
LOCK_UNDECIDED = """
    SELECT id, event_id FROM webhooks_delivery
    WHERE status = 'undecided' AND webhook_id = %s AND object_type_id = %s
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"""

# A list rests after an error of its filter, and if a table is locked.
ERROR_REST_SECONDS = 60.0
LOCKED_REST_SECONDS = 1.0

# From undecided to ready or resting: deliveries whose conditions are met, or that concern a list. One that reports a
# change of a list does not count as a backfill's any more: no later delivery of its object may replace it.
RELEASE_MET = f"""
    UPDATE webhooks_delivery d SET status = CASE WHEN v.waits_until IS NULL THEN 'pending' ELSE 'resting' END,
        due_at = v.due_at, waits_until = v.waits_until, span = v.span, backfill = d.backfill AND v.span IS NULL
    FROM (
        SELECT d.id, {quiet.DUE_AT} AS due_at, q.latest AS waits_until, o.span
        FROM unnest(%s::bigint[], %s::jsonb[]) AS o(id, span) JOIN webhooks_delivery d ON d.id = o.id
        JOIN webhooks_event e ON e.id = d.event_id JOIN webhooks_webhook w ON w.id = d.webhook_id
        CROSS JOIN LATERAL (SELECT d.change_set, d.created AS since) s LEFT JOIN LATERAL ({quiet.WINDOW}) q ON true
    ) v
    WHERE d.id = v.id AND d.status = 'undecided'"""

# Delete undecided deliveries whose conditions are not met or whose object is in no list. Count them in their events.
REMOVE_UNMET = """
    WITH removed AS (DELETE FROM webhooks_delivery WHERE id = ANY(%s) AND status = 'undecided' RETURNING event_id)
    UPDATE webhooks_event e SET skipped = skipped + 1 FROM removed WHERE e.id = removed.event_id"""

# Keep why a list's filter failed, or that it has just worked (''). Skip the list if somebody is saving its webhook:
# that may take an hour.
NOTE_ERROR = """
    UPDATE webhooks_listwalk SET error = %(error)s WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_listwalk
        WHERE webhook_id = %(webhook)s AND object_type_id = %(type)s AND error <> %(error)s
        FOR UPDATE SKIP LOCKED
    ))"""


class Undecided:
    """Decides undecided deliveries, and remembers whose turn it is. Each dispatcher has its own."""

    def __init__(self) -> None:
        self._last_webhook = 0
        # {(id of a webhook, id of a listed type): end of the list's rest, by time.monotonic()}
        self._rests: dict[tuple[int, int], float] = {}

    def step(self) -> int:
        """Decide deliveries of webhooks in turn, for STEP_SECONDS: each becomes ready, or is deleted. Returns how many.

        Raises OperationalError or InternalError if PostgreSQL ends a transaction: its deliveries stay undecided.
        """
        until = time.monotonic() + STEP_SECONDS
        decided, in_vain = 0, set()
        while (webhook_id := self._next_webhook()) not in {None, *in_vain}:
            count = self._turn(webhook_id)
            decided += count
            # Webhooks that are deleted, rest, or whose lane is locked are not asked twice, and others still get their
            # turn.
            in_vain = set() if count else in_vain | {webhook_id}
            if time.monotonic() > until:
                break
        return decided

    def _next_webhook(self) -> int | None:
        for after in (self._last_webhook, 0):
            if found := sql.fetch_column(FIND_NEXT_WEBHOOK, [after]):
                (self._last_webhook,) = found
                return self._last_webhook
        return None

    def _turn(self, webhook_id: int) -> int:
        """Decide some of a webhook's deliveries, of one type. Returns how many: 0 while all its lists rest."""
        began = time.monotonic()
        resting = [type_id for (pk, type_id), until in self._rests.items() if pk == webhook_id and until > began]
        found = sql.fetch_column(FIND_TYPE, [webhook_id, resting])
        # The deliveries may be left by a deleted webhook with the same id: tidy removes those first.
        webhook = Webhook.objects.filter(pk=webhook_id, health__former_until=None).first() if found else None
        if webhook is None:
            return 0
        (type_id,) = found
        # A type without a filter has conditions, or somebody has removed the filter since.
        if not memberships.is_listed(webhook, type_id):
            return _decide_some(webhook, type_id)
        rest = 0.0
        try:
            return _judge_some(webhook, type_id)
        except INTERRUPTIONS:
            rest = LOCKED_REST_SECONDS
            raise
        except Exception as error:
            # A plugin's filter may raise anything. That must not stop other webhooks, or other lists of this one.
            logger.exception('webhook=%s name=%r a filter failed (it is tried again)', webhook.pk, webhook.name)
            _note_error(webhook.pk, type_id, storable(reason_of(error)))
            rest = ERROR_REST_SECONDS
            return 0
        finally:
            ended = time.monotonic()
            self._rests[webhook_id, type_id] = ended + max(rest, rest_after(ended - began))


def _note_error(webhook_id: int, type_id: int, error: str) -> None:
    """Keep the error of a list's filter for the webhook's page, or '' if it has none."""
    sql.execute(NOTE_ERROR, {'webhook': webhook_id, 'type': type_id, 'error': error})


def _judge_some(webhook: Webhook, type_id: int) -> int:
    """Judge some deliveries of a webhook's list, and record the result. Returns how many were judged.

    0 if another dispatcher does it, or a sender has locked the lane.
    """
    with sql.transaction() as now:
        if not sql.fetch_value(memberships.TRY_LOCK_MEMBERS, [webhook.pk]):
            return 0
        rows = sql.fetch(LOCK_UNDECIDED, [webhook.pk, type_id, TURN_DELIVERIES])
        events = Event.objects.defer(*LONG_BUT_DATA).in_bulk([event_id for _pk, event_id in rows])
        judged = memberships.judge(webhook, type_id, [(pk, events[event_id]) for pk, event_id in rows])
        # Somebody may have removed the type, and left its filter.
        is_taken = type_id in _types(webhook)
        wanted = [one for one in judged if is_taken and _is_sent(webhook, one.kind, one.event)]
        going = {one.pk for one in wanted}
        unwanted = [one.pk for one in judged if one.pk not in going]
        if unwanted and not _remove(webhook.pk, unwanted, now):
            return 0
        # Somebody may be removing the list, in a transaction that stays open.
        sql.set_lock_timeout(sql.TABLE_LOCK_MS)
        # A member whose update is not sent stays as it was sent: its webhook may take updates later.
        memberships.store(webhook, [one for one in judged if one.kind != UPDATED or one.pk in going])
        _note_error(webhook.pk, type_id, '')
        spans = [one.span and json.dumps(one.span) for one in wanted]
        sql.execute(RELEASE_MET, [[one.pk for one in wanted], spans])
        return len(judged)


def _types(webhook: Webhook) -> set[int]:
    return {one.pk for one in webhook.object_types.all()}


def _is_sent(webhook: Webhook, kind: str | None, event: Event) -> bool:
    """Return whether the webhook sends changes of this kind. A filter of a list is asked for every kind.

    A backfill, and somebody who sends it now, send an object in any case. Walks record no such updates.
    """
    return kind in webhook.kinds or (kind == UPDATED and event.backfill)


def _decide_some(webhook: Webhook, type_id: int) -> int:
    """Evaluate a webhook's conditions for TURN_SECONDS, and record that. Returns how many deliveries were decided."""
    with sql.transaction() as now:
        rows = sql.fetch(LOCK_UNDECIDED, [webhook.pk, type_id, TURN_DELIVERIES])
        verdicts = dict(_evaluate(webhook, rows))
        met = [pk for pk, is_met in verdicts.items() if is_met]
        unmet = [pk for pk, is_met in verdicts.items() if not is_met]
        sql.execute(RELEASE_MET, [met, [None] * len(met)])
        return len(met) + _remove(webhook.pk, unmet, now)


def _evaluate(webhook: Webhook, rows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bool]]:
    """Yield (id of a delivery, whether its event meets the conditions), as many as the time allows, at least one."""
    until = time.monotonic() + TURN_SECONDS
    events, types = querysets.events().in_bulk([event_id for _pk, event_id in rows]), _types(webhook)
    for pk, event_id in rows:
        event = events[event_id]
        # Somebody may have put the conditions in the place of a list's filter.
        is_asked = event.object_type_id in types and _is_sent(webhook, event.kind, event)
        try:
            is_met = not webhook.conditions or matching.meets(webhook, Shown.of_dispatched(event))
            yield pk, is_asked and is_met
        except Shortage as error:
            logger.warning(
                'webhook=%s name=%r conditions=undecided reason="%s" (it is tried again)',
                webhook.pk,
                webhook.name,
                error,
            )
            return
        if time.monotonic() > until:
            return


def _remove(webhook_id: int, unmet: Sequence[int], now: datetime) -> int:
    """Remove deliveries, and make the next of their objects due. Returns how many: 0 if a sender has locked the lane.

    If a later delivery of an object was held in that moment, nobody would make it ready. So they stay undecided.
    """
    if not unmet or not order.try_lock_lanes([webhook_id]):
        return 0
    order.release_next(unmet, now)
    return sql.execute(REMOVE_UNMET, [unmet])
