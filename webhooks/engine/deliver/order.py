"""Keeps an object's deliveries in order: for each webhook they go by their sequence, one at a time.

A delivery that has to wait for an earlier one is held: then searches for due deliveries do not read it. When the
earlier one is closed, the next is ready. Deliveries are held, and closed by anybody but the owner, only under the lock
of the lane's row. So none is held behind a closed one.
"""

from collections.abc import Collection
from datetime import datetime

from ... import delivery_states as states
from .. import sql

# Lock those lanes that are not locked.
TRY_LOCK_LANES = 'SELECT webhook_id FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) FOR UPDATE SKIP LOCKED'
# Lock lanes, and wait for others. All lock them in the same order, so no two wait for each other.
LOCK_LANES = 'SELECT 1 FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) ORDER BY webhook_id FOR UPDATE'

# The delivery `d` of a backfill is untried: no receiver has heard of it. To be joined with a condition on its state.
IS_UNTRIED = 'd.backfill AND d.attempt_count = 0'

# Find earlier deliveries of the object of `d` that wait. An undecided one counts: it may be sent.
FIND_EARLIER = f"""
    SELECT FROM webhooks_delivery p
    WHERE p.webhook_id = d.webhook_id AND p.object_type_id = d.object_type_id AND p.object_id = d.object_id
      AND p.status {states.WAITING_BY_ID} AND p.sequence < d.sequence"""

# Find deliveries that have to wait.
FIND_BLOCKED = f"""
    SELECT d.id FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
    CROSS JOIN LATERAL ({FIND_EARLIER} LIMIT 1) p
    WHERE d.id = ANY(%(ids)s) AND w.ordered
    UNION ALL
    SELECT d.id FROM webhooks_delivery d JOIN webhooks_backfill b ON b.webhook_id = d.webhook_id
    WHERE d.id = ANY(%(ids)s) AND b.state IN ('paused', 'canceled')
      AND d.status {states.QUEUED_BY_ID} AND {IS_UNTRIED}
      AND EXISTS (SELECT FROM webhooks_event e WHERE e.id = d.event_id AND e.backfill_for IS NOT NULL)"""

# From waiting for their time to held.
HOLD = f"""
    UPDATE webhooks_delivery SET status = 'held', due_at = NULL
    WHERE id = ANY(%(ids)s) AND status {states.TIMED_BY_ID}"""

# Put off parts of change sets by a second. If a change is blocked that is not the first of its part, the end of what
# blocks it would not make the part due.
PUT_OFF_PARTS = f"""
    UPDATE webhooks_delivery SET due_at = %(now)s + interval '1 second'
    WHERE id = ANY(%(ids)s) AND status {states.TIMED_BY_ID}"""

# From held to ready: after these closed ones, the next of each object, and the next of each change set. If an event was
# redelivered, its deliveries have one sequence: the id decides.
RELEASE_NEXT = f"""
    UPDATE webhooks_delivery SET status = 'pending', due_at = %(now)s
    WHERE status IN ('held', '') AND id = ANY(ARRAY(
        SELECT n.id FROM webhooks_delivery d CROSS JOIN LATERAL (
            SELECT n.id FROM webhooks_delivery n
            WHERE n.webhook_id = d.webhook_id AND n.object_type_id = d.object_type_id AND n.object_id = d.object_id
              AND n.status = (SELECT 'held') AND n.sequence >= d.sequence AND (n.sequence, n.id) > (d.sequence, d.id)
            ORDER BY n.sequence, n.id LIMIT 1
        ) n
        WHERE d.id = ANY(%(ids)s)
        UNION ALL
        SELECT n.id FROM (
            SELECT DISTINCT webhook_id, change_set FROM webhooks_delivery
            WHERE id = ANY(%(ids)s) AND change_set IS NOT NULL
        ) d CROSS JOIN LATERAL (
            SELECT n.id FROM webhooks_delivery n
            WHERE n.webhook_id = d.webhook_id AND n.change_set = d.change_set AND n.status {states.QUEUED}
            ORDER BY n.part, n.id LIMIT 1
        ) n
    ))"""


def try_lock_lanes(webhook_ids: Collection[int]) -> set[int]:
    """Lock those lanes that are not locked, until the open transaction ends. Returns their webhooks' ids.

    It never waits.
    """
    return set(sql.fetch_column(TRY_LOCK_LANES, {'lanes': list(webhook_ids)})) if webhook_ids else set()


def lock_lanes(webhook_ids: Collection[int]) -> None:
    """Lock the lanes until the open transaction ends. It waits for others that hold one."""
    sql.fetch(LOCK_LANES, {'lanes': list(webhook_ids)})


def blocked(ids: Collection[int]) -> set[int]:
    """Return which deliveries have to wait: for an earlier one of their object, or for their backfill to go on."""
    return set(sql.fetch_column(FIND_BLOCKED, {'ids': sql.array(ids)})) if ids else set()


def hold(ids: Collection[int], parts: Collection[int], now: datetime) -> None:
    """Hold deliveries that are blocked, and put off those that stand for a blocked part of a change set.

    The caller locked their lanes before it asked blocked().
    """
    if ids:
        sql.execute(HOLD, {'ids': list(ids)})
    if parts:
        sql.execute(PUT_OFF_PARTS, {'ids': list(parts), 'now': now})


def release_next(ids: Collection[int], now: datetime) -> None:
    """Make the next delivery of each object ready, after these, which the caller closes in the same transaction."""
    if ids:
        sql.execute(RELEASE_NEXT, {'ids': sql.array(ids), 'now': now})
