"""The questions of a lane's owner to PostgreSQL: which lanes are free, and which deliveries are due."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from ...models import Health, Webhook
from .. import sql
from .lane import Due, Wish
from .order import IS_BLOCKED, IS_PENDING

# A webhook `w` with its health `h` may be sent to. A suspended one: if its probe is due, or somebody has just saved it.
ACTIVE = """
    w.enabled AND NOT w.paused AND (h.gone_at > w.last_updated) IS NOT TRUE AND (
        h.suspended_since IS NULL OR h.probe_at <= %(now)s
        OR w.last_updated > h.last_attempt_at AND w.last_updated <= %(now)s
    )"""

# Of an event `e`: bytes of its payload, about.
SIZE = 'octet_length(e.data) + 4 * coalesce(pg_column_size(e.snapshots), 0)'

# Free lanes with a delivery that became due since then.
TAKE = f"""
    UPDATE webhooks_health SET owner_id = %(owner)s WHERE webhook_id = ANY(ARRAY(
        SELECT h.webhook_id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
        WHERE h.owner_id IS NULL AND h.webhook_id <> ALL(%(given)s) AND {ACTIVE} AND EXISTS (
            SELECT FROM webhooks_delivery d
            WHERE d.webhook_id = h.webhook_id AND d.status = 'pending' AND d.lapses = 0
              AND d.backfill IN (false, true) AND d.due_at > %(since)s AND d.due_at <= %(now)s
        )
        ORDER BY random() LIMIT %(most)s
        FOR UPDATE OF h SKIP LOCKED
    ))
    RETURNING webhook_id"""

LEAVE = """
    UPDATE webhooks_health SET owner_id = NULL WHERE webhook_id = ANY(ARRAY(
        SELECT webhook_id FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) AND owner_id = %(owner)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING webhook_id"""

OWNED = 'SELECT webhook_id FROM webhooks_health WHERE owner_id = %s'

# How many lanes are owned, and how many senders have beaten in the last four seconds.
OWNERS = """
    SELECT (SELECT count(*) FROM webhooks_health WHERE owner_id IS NOT NULL),
        (SELECT count(*) FROM webhooks_worker
         WHERE role = 'send' AND alive_until > clock_timestamp() + interval '6 seconds')"""

# An untried delivery `d` of a backfill that is paused or canceled.
IS_HELD = """
    (d.backfill AND d.attempt_count = 0 AND d.attempt_limit IS NULL AND EXISTS (
        SELECT FROM webhooks_backfill b WHERE b.webhook_id = d.webhook_id AND b.state IN ('paused', 'canceled')
    ))"""

# One delivery `d` stands for a change set that is not formed yet, and then for its next part. The others follow it.
IS_FIRST = """
    (d.change_set IS NULL OR NOT EXISTS (
        SELECT FROM webhooks_delivery p
        WHERE p.webhook_id = d.webhook_id AND p.change_set = d.change_set AND p.status = 'pending'
          AND (p.part, p.id) < (d.part, d.id) AND (p.parts IS NOT NULL OR p.due_at IS NOT NULL)
    ))"""

COLUMNS = f"""
    d.event_id, d.span ->> 'kind' AS kind, d.change_set, d.id, d.webhook_id, d.due_at, d.object_type_id, d.object_id,
    d.backfill, d.batch, l.ordered AND {IS_BLOCKED} AS is_blocked"""

IS_DUE = f"""
    d.status = 'pending' AND d.lapses = 0 AND d.due_at <= %(now)s AND d.id <> ALL(%(held)s)
    AND d.expires_at > %(now)s AND NOT {IS_HELD}"""

DUE = f"""
    SELECT {COLUMNS} FROM webhooks_delivery d
    WHERE d.webhook_id = l.id AND d.backfill = l.backfill AND (d.due_at, d.id) > (l.since, l.since_id)
      AND {IS_DUE} AND {IS_FIRST}"""

# The due deliveries of each lane after a mark, the oldest first, and some of the newest.
READ = f"""
    SELECT d.* FROM (
        SELECT l.*, w.ordered FROM unnest(%(lanes)s::bigint[], %(backfill)s::bool[], %(rooms)s::int[],
            %(newest)s::int[], %(since)s::timestamptz[], %(since_id)s::bigint[])
            AS l(id, backfill, room, newest, since, since_id)
        JOIN webhooks_webhook w ON w.id = l.id JOIN webhooks_health h ON h.webhook_id = l.id
        WHERE {ACTIVE}
    ) l CROSS JOIN LATERAL (
        ({DUE} ORDER BY d.due_at, d.id LIMIT l.room)
        UNION ({DUE} ORDER BY d.due_at DESC, d.id DESC LIMIT l.newest)
    ) d
    ORDER BY d.due_at, d.id"""

# The rest of these batches: a retry says the same as before, however many others are due.
REST = f"""
    SELECT {COLUMNS} FROM webhooks_delivery d JOIN webhooks_webhook l ON l.id = d.webhook_id
    WHERE d.batch = ANY(%(batches)s) AND {IS_DUE} ORDER BY d.id"""

# Asked by themselves: joined to the above, with old statistics PostgreSQL may read the deliveries again for each event.
EVENTS = f"SELECT e.id, {SIZE}, e.transaction_id, e.kind, e.error <> '' FROM webhooks_event e WHERE e.id = ANY(%s)"

# Each of these stands for a part of a change set: its other deliveries, the size of the part, whether one is blocked.
PARTS = f"""
    SELECT f.id, array_remove(array_agg(d.id ORDER BY d.id), f.id), sum({SIZE})::bigint,
        bool_or(w.ordered AND {IS_BLOCKED})
    FROM webhooks_delivery f JOIN webhooks_webhook w ON w.id = f.webhook_id
    JOIN webhooks_delivery d ON d.webhook_id = f.webhook_id AND d.change_set = f.change_set AND d.part = f.part
        AND d.batch = f.batch AND d.status = 'pending'
    JOIN webhooks_event e ON e.id = d.event_id
    WHERE f.id = ANY(%(ids)s) GROUP BY f.id"""

BATCH = """
    UPDATE webhooks_delivery d SET batch = v.batch
    FROM unnest(%s::bigint[], %s::bigint[]) AS v(id, batch) WHERE d.id = v.id"""

# The deliveries that may still go.
READY = f"""
    SELECT d.id FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
    WHERE d.id = ANY(%(ids)s) AND d.{IS_PENDING} AND (d.due_at IS NOT NULL OR d.parts IS NOT NULL)
      AND NOT (w.ordered AND {IS_BLOCKED}) AND NOT {IS_HELD}"""

# The transactions with events that are still to be dispatched. The event of a component's owner may be put off for
# long: somebody holds the owner's row.
UNFINISHED = """
    SELECT t.id FROM unnest(%s::bigint[]) AS t(id) WHERE EXISTS (
        SELECT FROM webhooks_event e
        WHERE e.transaction_id = t.id AND e.dispatched_at IS NULL AND e.lapses = 0
          AND (e.caused_by IS NULL OR e.retry_at IS NULL)
    )"""


def take(owner: int, since: datetime, most: int, now: datetime, given: Iterable[int] = ()) -> list[int]:
    """Own free lanes with a delivery that became due since then. Returns their webhooks' ids.

    `given`: lanes for others.
    """
    return sql.fetch_column(TAKE, {'owner': owner, 'since': since, 'most': most, 'now': now, 'given': list(given)})


def owned(owner: int) -> set[int]:
    """Return the ids of the webhooks whose lanes a worker owns."""
    return set(sql.fetch_column(OWNED, [owner]))


def leave(owner: int, lanes: Collection[int]) -> list[int]:
    """Let others have the lanes. Returns which: not those that somebody has locked."""
    return sql.fetch_column(LEAVE, {'owner': owner, 'lanes': list(lanes)}) if lanes else []


def share(mine: int) -> int:
    """Return how many lanes a worker with `mine` lanes is to have: as many as each other worker."""
    lanes, workers = sql.fetch(OWNERS)[0]
    return -(-lanes // workers) if workers > 1 else max(lanes, mine)


def read(wishes: Iterable[Wish], held: Collection[int], now: datetime) -> list[Due]:
    """Return due deliveries, the oldest first, but for the `held` ones, which are known."""
    names = ('lanes', 'backfill', 'rooms', 'newest', 'since', 'since_id')
    columns = dict(zip(names, map(list, zip(*wishes, strict=True)), strict=True))
    rows = sql.fetch(READ, {**columns, 'held': list(held), 'now': now})
    rows += _rest(rows, held, now)
    events = {pk: told for pk, *told in sql.fetch(EVENTS, [[event_id for event_id, *_delivery in rows]])}
    due = [
        Due(*delivery, size, transaction_id, kind or event_kind, is_failed, change_set)
        for event_id, kind, change_set, *delivery in rows
        if event_id in events
        for size, transaction_id, event_kind, is_failed in [events[event_id]]
    ]
    parts = parts_of([one.pk for one in due if one.change_set and one.is_formed])
    return [one._replace(**parts.get(one.pk, {})) for one in due]


def _rest(rows: Collection[tuple], held: Collection[int], now: datetime) -> list[tuple]:
    """Return the rows of the deliveries that went with these once, and that no lane had room for."""
    batches = {batch for _event, _kind, change_set, *_others, batch, _blocked in rows if batch and not change_set}
    known = [*held, *(pk for _event, _kind, _set, pk, *_others in rows)]
    return sql.fetch(REST, {'batches': list(batches), 'held': known, 'now': now}) if batches else []


def parts_of(pks: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return the fields of Due that tell of the part of a change set that a delivery stands for, by its id."""
    rows = sql.fetch(PARTS, {'ids': list(pks)}) if pks else []
    return {pk: {'others': others, 'size': size, 'is_blocked': is_blocked} for pk, others, size, is_blocked in rows}


def note_batches(batches: Collection[tuple[int, int]]) -> None:
    """Note the batch of each delivery, given as (id, batch)."""
    if batches:
        sql.execute(BATCH, [list(column) for column in zip(*batches, strict=True)])


def ready(pks: Collection[int]) -> list[int]:
    """Return the deliveries that may still go: somebody may have paused, canceled or redelivered."""
    return sql.fetch_column(READY, {'ids': list(pks)})


def unfinished(transactions: Collection[int]) -> set[int]:
    """Return the ids of the transactions with events that are still to be dispatched."""
    return set(sql.fetch_column(UNFINISHED, [list(transactions)])) if transactions else set()


def ensure_lanes() -> None:
    """Give a lane to webhooks that were made without signals."""
    for webhook in Webhook.objects.filter(health=None):
        Health.objects.get_or_create(webhook=webhook)
