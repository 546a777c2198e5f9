"""Reads due deliveries, for turn.py. Makes tried ones due after a save, and when a circuit opens or closes."""

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

from ... import delivery_states as states
from ...models import Delivery
from .. import sql
from . import order
from .lane import Due, ReadRequest
from .verdict import RETRY_AFTER_STATUSES

# Deliveries that RETRY makes due, in all lanes together: a turn has ten seconds. More of them follow in later turns.
MAX_RETRIED = 10_000
# In each lane it makes at least this many due, even if there are thousands of lanes: otherwise a lane would take
# thousands of turns.
MIN_RETRIED_PER_LANE = 20

# The delivery `d` was tried, and waits for its next attempt.
IS_TRIED = "d.status = 'retrying' AND d.backfill IN (false, true) AND d.due_at > %(now)s"

# What a change takes of a body beside the columns below: keys, ids, times, names, extensions, or NetBox's request.
ENVELOPE_BYTES = 500

# How many bytes of a body the event `e` takes, at most as a rule. Snapshots count twice, as `differences` repeats them.
# They count as text: PostgreSQL stores them compressed, to a hundredth if words repeat. It knows the length of a text
# without reading it.
EVENT_BYTES = f"""(octet_length(e.data) + coalesce(2 * octet_length(e.snapshots::text), 0)
        + coalesce(octet_length(e.changelog_message), 0) + {ENVELOPE_BYTES})"""

# How many bytes the event's related objects take, where a delivery shows them in full.
EXPANDED_BYTES = 'coalesce(octet_length(e.expanded), 0)'

# How many bytes of a body the delivery `d` takes, with its event `e`.
DELIVERY_BYTES = f'{EVENT_BYTES} + CASE WHEN d.expanded THEN {EXPANDED_BYTES} ELSE 0 END'

# The last answer to the delivery `d` asked for a wait. A load balancer answers 503 without asking for one.
HAS_ASKED = """EXISTS (
        SELECT FROM webhooks_attempt a CROSS JOIN jsonb_object_keys(a.response_headers) AS name
        WHERE a.delivery_id = d.id AND a.number = d.attempt_count AND lower(name) = 'retry-after'
    )"""

# Make tried deliveries of these lanes due now, except those just `answered`, and those whose last answer has one of the
# `spared` statuses and asked for a wait.
RETRY = f"""
    UPDATE webhooks_delivery SET due_at = %(now)s WHERE status IN ('retrying', '') AND id = ANY(ARRAY(
        SELECT d.id FROM unnest(%(lanes)s::bigint[]) AS l(id) CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_delivery d
            WHERE d.webhook_id = l.id AND {IS_TRIED} AND d.id <> ALL(%(answered)s)
              AND (coalesce(d.response_status, 0) <> ALL(%(spared)s) OR NOT {HAS_ASKED})
            ORDER BY d.due_at LIMIT %(most)s
        ) d
    ))
    RETURNING webhook_id"""

# The delivery `d` is in no change set, or stands for its set: it is the first that waits. While a set has no parts, the
# first delivery with a time stands for all: each statement that adds some gives one a time. Once there are parts, the
# first one stands for the next part.
LEADS_SET = f"""(d.change_set IS NULL OR NOT EXISTS (
        SELECT FROM webhooks_delivery p
        WHERE p.webhook_id = d.webhook_id AND p.change_set = d.change_set AND p.status {states.PENDING}
          AND (p.part, p.id) < (d.part, d.id) AND (p.parts IS NOT NULL OR p.due_at IS NOT NULL)
    ))"""

# Find the due deliveries of the read request `l`, after its mark.
FIND_DUE = f"""
    SELECT d.event_id, d.change_set, d.expanded, d.id, d.webhook_id, d.due_at, d.object_type_id, d.object_id,
        d.backfill, d.lead
    FROM webhooks_delivery d
    WHERE d.webhook_id = l.id AND d.backfill = l.backfill AND (d.due_at, d.id) > (l.since, l.since_id)
      AND d.status {states.TIMED} AND d.due_at <= %(now)s AND d.expires_at > %(now)s
      AND d.id <> ALL(%(held)s::bigint[]) AND {LEADS_SET}"""

# Read the oldest due deliveries of each request, and the newest if there are more: without these, a user's next change
# would wait behind another user's import of thousands.
READ_DUE = f"""
    SELECT d.* FROM unnest(%(lanes)s::bigint[], %(backfill)s::bool[], %(rooms)s::int[], %(newest)s::int[],
        %(since)s::timestamptz[], %(since_id)s::bigint[]) AS l(id, backfill, room, newest, since, since_id)
    CROSS JOIN LATERAL (
        WITH oldest AS MATERIALIZED ({FIND_DUE} ORDER BY d.due_at, d.id LIMIT l.room)
        SELECT * FROM oldest
        UNION
        ({FIND_DUE} AND (SELECT count(*) FROM oldest) >= l.room ORDER BY d.due_at DESC, d.id DESC LIMIT l.newest)
    ) d
    ORDER BY d.due_at, d.id"""

# Read the events of due deliveries, with their bytes and those of their related objects. With old statistics PostgreSQL
# might read the deliveries again for each event if they were joined. So it is a statement of its own.
READ_EVENTS = f"""
    SELECT e.id, {EVENT_BYTES}, {EXPANDED_BYTES}, e.error <> ''
    FROM webhooks_event e WHERE e.id = ANY(%s)"""

# Read the rest of a part, and its size, for each delivery that stands for a part of a change set.
READ_PARTS = f"""
    SELECT f.id, array_remove(array_agg(d.id ORDER BY d.id), f.id), sum({DELIVERY_BYTES})::bigint
    FROM webhooks_delivery f
    JOIN webhooks_delivery d ON d.webhook_id = f.webhook_id AND d.change_set = f.change_set AND d.part = f.part
        AND d.lead = f.lead AND d.status {states.PENDING}
    JOIN webhooks_event e ON e.id = d.event_id
    WHERE f.id = ANY(%(ids)s) GROUP BY f.id"""

# Read pending deliveries.
READ_DELIVERIES = f'SELECT d.* FROM webhooks_delivery d WHERE d.id = ANY(%s) AND d.status {states.PENDING_BY_ID}'

# Read which change sets may still grow: events of the transaction are still to be dispatched, or deliveries to be
# decided. Suspects, and events that components or config contexts cause, never join the set.
READ_GROWING = """
    SELECT s.webhook_id, s.transaction_id
    FROM unnest(%(webhooks)s::bigint[], %(transactions)s::bigint[]) AS s(webhook_id, transaction_id)
    WHERE EXISTS (
        SELECT FROM webhooks_event e
        WHERE e.transaction_id = s.transaction_id AND e.dispatched_at IS NULL AND e.lapses = 0 AND e.caused_by IS NULL
    )
    UNION
    SELECT webhook_id, change_set FROM webhooks_delivery
    WHERE status = 'undecided' AND webhook_id = ANY(%(webhooks)s) AND change_set = ANY(%(transactions)s)"""


def retry(lanes: Collection[int], now: datetime, answered: Collection[int] = ()) -> set[int]:
    """Make tried deliveries of these lanes due now, except the `answered` ids. The caller has locked the lanes.

    Returns the lanes in which more of them may be left: they are for another turn.
    """
    left, room = set(lanes), MAX_RETRIED
    # A lane may need less than its share: the next round gives the rest to other lanes.
    while left and room > 0:
        most = max(room // len(left), MIN_RETRIED_PER_LANE)
        parameters = {'lanes': list(left), 'now': now, 'most': most, 'spared': [], 'answered': list(answered)}
        retried = Counter(sql.fetch_column(RETRY, parameters))
        left = {pk for pk, count in retried.items() if count >= most}
        room -= retried.total()
    return left


def let_probe(lanes: Collection[int], now: datetime) -> None:
    """Make one tried request of each lane due, as the next probe, but none that the endpoint asked to wait.

    The caller has locked the lanes.
    """
    if lanes:
        sql.execute(
            RETRY, {'lanes': list(lanes), 'now': now, 'most': 1, 'spared': list(RETRY_AFTER_STATUSES), 'answered': []}
        )


def read(requests: Collection[ReadRequest], held: Collection[int], now: datetime) -> list[Due]:
    """Return due deliveries, as many as each lane requests, the oldest first, without the `held` ids, which are known.

    A part of a change set comes as its first delivery, with the rest as its companions.
    """
    names = ('lanes', 'backfill', 'rooms', 'newest', 'since', 'since_id')
    columns = dict(zip(names, map(list, zip(*requests, strict=True)), strict=True))
    rows = sql.fetch(READ_DUE, {**columns, 'held': sql.array(held), 'now': now})
    events = {pk: read for pk, *read in sql.fetch(READ_EVENTS, [sql.array(event_id for event_id, *_delivery in rows)])}
    due = [
        Due(*delivery, size + more * is_expanded, is_failed, change_set)
        for event_id, change_set, is_expanded, *delivery in rows
        if event_id in events
        for size, more, is_failed in [events[event_id]]
    ]
    parts = parts_of([one.pk for one in due if one.change_set and one.is_formed])
    return [one._replace(**parts.get(one.pk, {})) for one in due]


def parts_of(pks: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return the fields of Due, by id, for deliveries that stand for a part of a change set: companions and size."""
    rows = sql.fetch(READ_PARTS, {'ids': list(pks)}) if pks else []
    return {pk: {'others': others, 'size': size} for pk, others, size in rows}


def fetch(pks: Collection[int]) -> dict[int, Delivery]:
    """Return the deliveries that may still go, with their events, by id. Closed and blocked ones are missing."""
    if not pks:
        return {}
    # A join would read an event's long columns once for each webhook. So the events are read by themselves.
    deliveries = Delivery.objects.raw(READ_DELIVERIES, [sql.array(pks)]).prefetch_related('event')
    found = {one.pk: one for one in deliveries}
    return {pk: found[pk] for pk in found.keys() - order.blocked(found)}


def growing(sets: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the (webhook id, transaction id) of change sets that may still grow: of these `sets`, or others."""
    if not sets:
        return set()
    webhooks, transactions = map(list, zip(*sets, strict=True))
    return set(sql.fetch(READ_GROWING, {'webhooks': webhooks, 'transactions': transactions}))
