"""What the owner of lanes asks PostgreSQL: which lanes are free, and what is due in them.

A delivery that has to wait for an earlier one of its object is parked: without a `due_at` no look passes over it. When
the earlier one is closed, the next becomes due again (record.py). Deliveries are parked, and closed by anybody but the
owner, only under the lock of the lane's row: so none is parked behind one that has just been closed.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from ...models import Health, Webhook
from .. import sql
from .due import Due, Wish

# A webhook that may be sent to: one that is suspended at its time, and when somebody has just saved it.
ACTIVE = """
    w.enabled AND NOT w.paused AND (h.gone_at > w.last_updated) IS NOT TRUE AND (
        h.suspended_since IS NULL OR h.probe_at <= %(now)s
        OR w.last_updated > h.last_attempt_at AND w.last_updated <= %(now)s
    )"""

# Nobody's lanes in which something has become due since.
TAKE = f"""
    UPDATE webhooks_health SET owner_id = %(owner)s WHERE webhook_id = ANY(ARRAY(
        SELECT h.webhook_id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
        WHERE h.owner_id IS NULL AND h.webhook_id <> ALL(%(given)s) AND {ACTIVE} AND EXISTS (
            SELECT FROM webhooks_delivery d
            WHERE d.webhook_id = h.webhook_id AND d.status = 'pending' AND d.lapses = 0
              AND d.due_at > %(since)s AND d.due_at <= %(now)s
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

# How many lanes are owned, and how many workers there are that are not frozen: each beats every two seconds.
OWNERS = """
    SELECT (SELECT count(*) FROM webhooks_health WHERE owner_id IS NOT NULL),
        (SELECT count(*) FROM webhooks_worker
         WHERE role = 'send' AND alive_until > clock_timestamp() + interval '6 seconds')"""

# A job event, a test or an error does not show its object. It passes what a paused backfill holds, perhaps for days.
IS_BLOCKED = """
    EXISTS (
        SELECT FROM webhooks_delivery p
        WHERE p.webhook_id = d.webhook_id AND p.object_type_id = d.object_type_id AND p.object_id = d.object_id
          AND p.status = 'pending' AND p.sequence < d.sequence
          AND NOT (
              p.backfill AND p.attempt_count = 0 AND p.attempt_limit IS NULL
              AND EXISTS (SELECT FROM webhooks_backfill b WHERE b.webhook_id = p.webhook_id AND b.state = 'paused')
              AND EXISTS (
                  SELECT FROM webhooks_event e WHERE e.id = d.event_id AND (e.transaction_id = 0 OR e.error <> '')
              )
          )
    )"""

# What was not tried of a backfill that is paused or canceled.
IS_HELD = """
    (d.backfill AND d.attempt_count = 0 AND d.attempt_limit IS NULL AND EXISTS (
        SELECT FROM webhooks_backfill b WHERE b.webhook_id = d.webhook_id AND b.state IN ('paused', 'canceled')
    ))"""

DUE = f"""
    SELECT d.id, d.webhook_id, d.due_at, d.object_type_id, d.object_id, d.backfill, d.batch, d.event_id, d.span,
        l.ordered AND {IS_BLOCKED} AS is_blocked
    FROM webhooks_delivery d
    WHERE d.webhook_id = l.id AND d.backfill = l.backfill AND d.status = 'pending' AND d.lapses = 0
      AND d.due_at <= %(now)s AND (d.due_at, d.id) > (l.since, l.since_id) AND d.id <> ALL(%(held)s)
      AND d.expires_at > %(now)s AND NOT {IS_HELD}"""

# Of these, those that may still go.
READY = f"""
    SELECT d.id FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
    WHERE d.id = ANY(%(ids)s) AND d.status = 'pending' AND d.due_at IS NOT NULL AND NOT (w.ordered AND {IS_BLOCKED})
      AND NOT {IS_HELD}"""

# As READ names what is in a Wish.
COLUMNS = ('lanes', 'backfill', 'rooms', 'newest', 'since', 'since_id')

# Of each lane what is due after a mark, the oldest first, and some of the newest.
READ = f"""
    SELECT d.id, d.webhook_id, d.due_at, d.object_type_id, d.object_id, d.backfill, d.batch, d.event_id, d.is_blocked,
        octet_length(e.data) + 4 * coalesce(pg_column_size(e.snapshots), 0), e.transaction_id,
        coalesce(d.span ->> 'kind', e.kind), e.error <> ''
    FROM (
        SELECT l.*, w.ordered FROM unnest(%(lanes)s::bigint[], %(backfill)s::bool[], %(rooms)s::int[],
            %(newest)s::int[], %(since)s::timestamptz[], %(since_id)s::bigint[])
            AS l(id, backfill, room, newest, since, since_id)
        JOIN webhooks_webhook w ON w.id = l.id JOIN webhooks_health h ON h.webhook_id = l.id
        WHERE {ACTIVE}
    ) l CROSS JOIN LATERAL (
        ({DUE} ORDER BY d.due_at, d.id LIMIT l.room)
        UNION ({DUE} ORDER BY d.due_at DESC, d.id DESC LIMIT l.newest)
    ) d
    JOIN webhooks_event e ON e.id = d.event_id
    ORDER BY d.due_at, d.id"""

# Of these transactions, those of which more is to be dispatched.
UNFINISHED = """
    SELECT DISTINCT transaction_id FROM webhooks_event
    WHERE transaction_id = ANY(%(transactions)s) AND dispatched_at IS NULL AND lapses = 0"""

LOCK = 'SELECT webhook_id FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) FOR UPDATE SKIP LOCKED'
PARK = f"""
    UPDATE webhooks_delivery d SET due_at = NULL
    WHERE d.id = ANY(%(ids)s) AND d.webhook_id = ANY(%(lanes)s) AND d.status = 'pending' AND {IS_BLOCKED}"""


def take(owner: int, since: datetime, most: int, now: datetime, given: Iterable[int] = ()) -> list[int]:
    """Own lanes that are nobody's, in which something has become due since then. Returns the ids of their webhooks.

    `given`: those that others are to have.
    """
    return sql.fetch_column(TAKE, {'owner': owner, 'since': since, 'most': most, 'now': now, 'given': list(given)})


def owned(owner: int) -> set[int]:
    """Return the ids of the webhooks whose lanes a worker owns."""
    return set(sql.fetch_column('SELECT webhook_id FROM webhooks_health WHERE owner_id = %s', [owner]))


def leave(owner: int, lanes: Collection[int]) -> list[int]:
    """Let others have the lanes, but for those that somebody has locked. Returns which."""
    return sql.fetch_column(LEAVE, {'owner': owner, 'lanes': list(lanes)}) if lanes else []


def share(mine: int) -> int:
    """Return how many lanes a worker is to have that has so many: as many as the others, where others are at work."""
    owned, workers = sql.fetch(OWNERS)[0]
    return -(-owned // workers) if workers > 1 else max(owned, mine)


def read(wishes: Iterable[Wish], held: Collection[int], now: datetime) -> list[Due]:
    """Return what is due, the oldest first. What is `held` is known already."""
    names = dict(zip(COLUMNS, map(list, zip(*wishes, strict=True)), strict=True))
    return [Due(*row) for row in sql.fetch(READ, {**names, 'held': list(held), 'now': now})]


def ready(pks: Collection[int]) -> list[int]:
    """Return those that may still go: somebody may have paused, canceled or redelivered meanwhile."""
    return sql.fetch_column(READY, {'ids': list(pks)})


def lock(webhook_ids: Collection[int]) -> set[int]:
    """Lock the lanes that nobody has locked, and return them. Their owner waits for nobody: it may hold deliveries."""
    return set(sql.fetch_column(LOCK, {'lanes': list(webhook_ids)})) if webhook_ids else set()


def park(blocked: Sequence[Due]) -> None:
    """Let no look pass over what has to wait for an earlier delivery of its object."""
    lanes = list(lock({one.webhook_id for one in blocked}))
    if lanes:
        sql.execute(PARK, {'ids': [one.pk for one in blocked], 'lanes': lanes})


def unfinished(transactions: Collection[int]) -> set[int]:
    """Return those of the transactions, by id, of which more is to be dispatched."""
    return set(sql.fetch_column(UNFINISHED, {'transactions': list(transactions)})) if transactions else set()


def ensure_lanes() -> None:
    """Give a lane to webhooks that were made without signals."""
    for webhook in Webhook.objects.filter(health=None):
        Health.objects.get_or_create(webhook=webhook)
