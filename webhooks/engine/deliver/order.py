"""Keeps an object's deliveries in order: for each webhook they go by their sequence, one at a time.

A delivery that has to wait for an earlier one is parked: without a `due_at` no look passes over it. When the earlier
one is closed, the next becomes due. Deliveries are parked, and closed by anybody but the owner, only under the lock of
the lane's row. So none is parked behind a closed one.
"""

from collections.abc import Collection
from datetime import datetime

from .. import sql

# Locks lanes that nobody has locked.
TRY_LOCK_LANES = 'SELECT webhook_id FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) FOR UPDATE SKIP LOCKED'
# Locks lanes, and waits for others. All lock them in the same order, so no two wait for each other.
LOCK_LANES = 'SELECT 1 FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) ORDER BY webhook_id FOR UPDATE'

# `status {IN_PENDING}` is said where a statement names its deliveries otherwise, such as by their ids. No status is '',
# so it means pending. After `status = 'pending'` PostgreSQL may take an index of pending deliveries, and read all.
IN_PENDING = "IN ('pending', '')"
# The delivery `d` of a backfill is untried: no receiver has heard of it, and nobody has asked for it. To be joined with
# a condition on its status.
IS_UNTRIED = 'd.backfill AND d.lapses = 0 AND d.attempt_count = 0 AND d.attempt_limit IS NULL'

# Which deliveries have to wait. An undecided delivery blocks as a pending one does: it may become one.
BLOCKED = f"""
    SELECT d.id FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
    CROSS JOIN LATERAL (
        SELECT FROM webhooks_delivery p
        WHERE p.webhook_id = d.webhook_id AND p.object_type_id = d.object_type_id AND p.object_id = d.object_id
          AND p.status IN ('pending', 'undecided') AND p.sequence < d.sequence
        LIMIT 1
    ) p
    WHERE d.id = ANY(%(ids)s) AND w.ordered
    UNION ALL
    SELECT d.id FROM webhooks_delivery d JOIN webhooks_backfill b ON b.webhook_id = d.webhook_id
    WHERE d.id = ANY(%(ids)s) AND b.state IN ('paused', 'canceled')
      AND d.status = 'pending' AND {IS_UNTRIED}
      AND EXISTS (SELECT FROM webhooks_event e WHERE e.id = d.event_id AND e.backfill_for IS NOT NULL)"""

# Pending deliveries to parked ones. A part of a change set stays due, but later: then it is looked at again, as another
# of its changes may be blocked.
PARK = f"""
    UPDATE webhooks_delivery SET due_at = CASE WHEN parts IS NOT NULL THEN %(now)s + interval '1 second' END
    WHERE id = ANY(%(ids)s) AND status {IN_PENDING}"""

# Make parked deliveries due: after these closed ones, the next of each object, and the next of each change set.
# Suspects stay: they may be in hand. If an event was redelivered, its deliveries have one sequence: the id decides.
UNPARK = f"""
    UPDATE webhooks_delivery SET due_at = %(now)s
    WHERE status {IN_PENDING} AND due_at IS NULL AND lapses = 0 AND id = ANY(ARRAY(
        SELECT n.id FROM webhooks_delivery d CROSS JOIN LATERAL (
            SELECT n.id FROM webhooks_delivery n
            WHERE n.webhook_id = d.webhook_id AND n.object_type_id = d.object_type_id AND n.object_id = d.object_id
              AND n.status = 'pending' AND n.sequence >= d.sequence AND (n.sequence, n.id) > (d.sequence, d.id)
            ORDER BY n.sequence, n.id LIMIT 1
        ) n
        WHERE d.id = ANY(%(ids)s)
        UNION ALL
        SELECT n.id FROM (
            SELECT DISTINCT webhook_id, change_set FROM webhooks_delivery
            WHERE id = ANY(%(ids)s) AND change_set IS NOT NULL
        ) d CROSS JOIN LATERAL (
            SELECT n.id FROM webhooks_delivery n
            WHERE n.webhook_id = d.webhook_id AND n.change_set = d.change_set AND n.status = 'pending'
            ORDER BY n.part, n.id LIMIT 1
        ) n
    ))"""


def try_lock_lanes(webhook_ids: Collection[int]) -> set[int]:
    """Lock the lanes that nobody has locked, until the open transaction ends. Returns their webhooks' ids.

    It waits for nobody.
    """
    return set(sql.fetch_column(TRY_LOCK_LANES, {'lanes': list(webhook_ids)})) if webhook_ids else set()


def lock_lanes(webhook_ids: Collection[int]) -> None:
    """Lock the lanes until the open transaction ends. It waits for others that hold one."""
    sql.fetch(LOCK_LANES, {'lanes': list(webhook_ids)})


def blocked(ids: Collection[int]) -> set[int]:
    """Return which deliveries have to wait: for an earlier one of their object, or as their backfill does not run."""
    return set(sql.fetch_column(BLOCKED, {'ids': list(ids)})) if ids else set()


def park(ids: Collection[int], now: datetime) -> None:
    """Park deliveries that are blocked. The caller locked their lanes before it asked blocked()."""
    if ids:
        sql.execute(PARK, {'ids': list(ids), 'now': now})


def unpark(ids: Collection[int], now: datetime) -> None:
    """Make the next delivery of each object due, after these, which the caller closes in the same transaction."""
    if ids:
        sql.execute(UNPARK, {'ids': list(ids), 'now': now})
