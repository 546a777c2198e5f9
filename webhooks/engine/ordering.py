"""Order: deliveries of one object for one webhook go out one after the other.

A new delivery is due at once. The claim looks whether an earlier one of the same webhook and object is open. If so, the
delivery is parked: without a `due_at` no claim looks at it again. Whenever a delivery is answered, the next one of its
object that is untried or parked becomes due and is looked at anew. So dispatch needs no lock, and what is long parked
costs nothing.

`order_wait`: behind one that is being retried, a delivery is parked for that long only. After it, it may overtake, but
not beside an earlier one that is itself due or under way: that one goes first.

Whoever calls this holds the lanes of the deliveries (lanes.py).
"""

from collections import Counter
from collections.abc import Collection

from . import sql

# The objects of a delivery `d`: its own, or those of its batch.
MEMBERS = """
    SELECT d.webhook_id, d.object_type_id, d.object_id, d.sequence WHERE d.event_count = 1
    UNION ALL
    SELECT i.webhook_id, i.object_type_id, i.object_id, i.sequence
    FROM webhooks_batchitem i WHERE d.event_count > 1 AND i.delivery_id = d.id"""

# Those that a pending one still tells of.
OPEN_MEMBERS = f'{MEMBERS} AND i.open'

# The nearest delivery behind each object of the answered ones that is untried or parked. One that has overtaken and
# failed is parked if it is due again together with the one before it; otherwise it has a time of its own. What is
# behind one that has overtaken may overtake as well. The array: the few deliveries are looked up one by one, whatever
# PostgreSQL's figures say of a table that has just grown.
UNPARK = f"""
    WITH behind AS MATERIALIZED (
        SELECT next.id, min(d.overtake_at) AS overtake_at
        FROM webhooks_delivery d CROSS JOIN LATERAL ({MEMBERS}) m CROSS JOIN LATERAL (
            (SELECT p.id, p.sequence FROM webhooks_delivery p
             WHERE p.webhook_id = m.webhook_id AND p.object_type_id = m.object_type_id AND p.object_id = m.object_id
               AND {sql.pending('p')} AND p.event_count = 1 AND p.sequence > m.sequence
               AND (p.error = '' OR p.due_at IS NULL)
             ORDER BY p.sequence LIMIT 1)
            UNION ALL
            (SELECT p.id, i.sequence FROM webhooks_batchitem i JOIN webhooks_delivery p ON p.id = i.delivery_id
             WHERE i.webhook_id = m.webhook_id AND i.object_type_id = m.object_type_id AND i.object_id = m.object_id
               AND i.open AND i.sequence > m.sequence
               AND p.status = 'pending' AND (p.error = '' OR p.due_at IS NULL)
             ORDER BY i.sequence LIMIT 1)
            ORDER BY sequence LIMIT 1
        ) next
        WHERE d.id = ANY(%(ids)s)
        GROUP BY next.id
    )
    UPDATE webhooks_delivery n
    SET due_at = %(now)s, overtake_at = coalesce(n.overtake_at, behind.overtake_at)
    FROM behind
    WHERE n.id = ANY(ARRAY(SELECT id FROM behind)) AND n.id = behind.id
      AND (n.due_at IS NULL OR n.due_at = n.overtake_at AND n.due_at > %(now)s)"""

# A delivery `d` of a backfill that was not tried yet: no receiver has heard of it, and nobody has asked for it.
UNTRIED = 'd.attempt_count = 0 AND d.attempt_limit IS NULL AND d.lapses = 0'

# An event `e` that shows its object: recorded with a change, or for a backfill, and rendered. No test, and nothing that
# an event rule tells, also of what was rolled back (event_rules.py): these are of no transaction.
SHOWS_OBJECT = "e.transaction_id <> 0 AND e.error = ''"

# What does not show its object replaces nothing. It passes an untried delivery `p` that a paused backfill holds: the
# pause may last for days.
IS_PASSED = f"""
    p.backfill AND p.status = 'pending' AND {UNTRIED.replace('d.', 'p.')} AND d.event_count = 1
    AND EXISTS (SELECT 1 FROM webhooks_backfill b WHERE b.webhook_id = p.webhook_id AND b.state = 'paused')
    AND NOT EXISTS (SELECT 1 FROM webhooks_event e WHERE e.id = d.event_id AND {SHOWS_OBJECT})"""

# The open deliveries `p` that a pending delivery `d` has to wait for.
EARLIER = f"""
    FROM ({OPEN_MEMBERS}) m CROSS JOIN LATERAL (
        SELECT p.status, p.error, p.due_at FROM webhooks_delivery p
        WHERE p.webhook_id = m.webhook_id AND p.object_type_id = m.object_type_id AND p.object_id = m.object_id
          AND p.status IN ('pending', 'sending') AND p.event_count = 1 AND p.sequence < m.sequence AND NOT ({IS_PASSED})
        UNION ALL
        SELECT p.status, p.error, p.due_at FROM webhooks_batchitem i JOIN webhooks_delivery p ON p.id = i.delivery_id
        WHERE i.webhook_id = m.webhook_id AND i.object_type_id = m.object_type_id AND i.object_id = m.object_id
          AND i.open AND i.sequence < m.sequence AND NOT ({IS_PASSED})
    ) p"""

# For the claim, of a due delivery `d`: null where nothing is before it, or all that is may be overtaken by now;
# 'retried' where it has to give that more time; 'first' where what is before it goes first.
HELD_BY = f"""
    CASE
        WHEN NOT EXISTS (SELECT 1 {EARLIER}) THEN NULL
        WHEN EXISTS (
            SELECT 1 {EARLIER} WHERE p.error = '' OR p.status = 'sending' OR p.due_at <= %(now)s
        ) THEN 'first'
        WHEN d.overtake_at <= %(now)s THEN NULL
        ELSE 'retried'
    END"""

# A later open delivery of the object of `{one}`, which shows it as it is now or will be.
LATER = f"""
    EXISTS (
        SELECT 1 FROM webhooks_delivery p JOIN webhooks_event e ON e.id = p.event_id
        WHERE p.webhook_id = {{one}}.webhook_id AND p.object_type_id = {{one}}.object_type_id
          AND p.object_id = {{one}}.object_id AND p.status IN ('pending', 'sending') AND p.event_count = 1
          AND p.sequence > {{one}}.sequence AND {SHOWS_OBJECT}
        UNION ALL
        SELECT 1 FROM webhooks_batchitem p JOIN webhooks_event e ON e.id = p.event_id
        WHERE p.webhook_id = {{one}}.webhook_id AND p.object_type_id = {{one}}.object_type_id
          AND p.object_id = {{one}}.object_id AND p.open AND p.sequence > {{one}}.sequence AND {SHOWS_OBJECT}
    )"""

# A small question before the greater one.
IS_ANY_BACKFILL = """
    SELECT EXISTS (
        SELECT 1 FROM webhooks_delivery
        WHERE webhook_id = ANY(%(lanes)s) AND backfill AND status IN ('pending', 'sending')
    )"""

# Those of webhooks without order: nothing is ever parked in them.
UNORDERED = 'SELECT id FROM webhooks_webhook WHERE id = ANY(%(lanes)s) AND NOT ordered'

# What is untried of backfills goes where there is a later one: whole deliveries, and objects of batches. A batch that
# was parked behind what it tells no more would be found by nobody: it is looked at anew.
REPLACE = f"""
    WITH untried AS MATERIALIZED (
        SELECT d.id, d.event_count FROM webhooks_delivery d
        WHERE d.webhook_id = ANY(%(lanes)s) AND d.backfill AND {sql.pending('d')} AND {UNTRIED}
    ), replaced AS (
        UPDATE webhooks_delivery d SET status = 'superseded', due_at = NULL, finished_at = now()
        FROM untried WHERE d.id = untried.id AND untried.event_count = 1 AND {LATER.format(one='d')}
        RETURNING d.id, d.webhook_id
    ), items AS (
        UPDATE webhooks_batchitem i SET superseded = true, open = false
        FROM untried WHERE i.delivery_id = untried.id AND untried.event_count > 1 AND i.open AND {LATER.format(one='i')}
        RETURNING i.delivery_id
    ), look_anew AS (
        UPDATE webhooks_delivery d SET due_at = %(now)s
        FROM (SELECT DISTINCT delivery_id FROM items) i
        WHERE d.id = i.delivery_id AND (d.due_at IS NULL OR d.due_at = d.overtake_at)
    )
    SELECT id, webhook_id FROM replaced UNION SELECT delivery_id, null FROM items"""

# Of a batch with no object left.
CLOSE_EMPTY = """
    UPDATE webhooks_delivery d SET status = 'superseded', due_at = NULL, finished_at = now()
    WHERE d.id = ANY(%(ids)s) AND d.event_count > 1 AND d.status = 'pending'
      AND NOT EXISTS (SELECT 1 FROM webhooks_batchitem i WHERE i.delivery_id = d.id AND i.open)
    RETURNING d.webhook_id"""

SET_BATCHES_OPEN = """
    UPDATE webhooks_batchitem SET open = %(open)s
    WHERE open <> %(open)s AND NOT superseded AND delivery_id = ANY(%(ids)s)"""


def unpark(ids: Collection[int], now: object) -> None:
    """The deliveries have been answered, or closed otherwise: the next of their objects are looked at anew."""
    _execute(UNPARK, ids, now=now)


def replace(lanes: Collection[int], now: object) -> Counter[int]:
    """Something waits in these lanes, or is sent: not after what is untried of their backfills, which it replaces.

    Returns {id of a webhook: how many deliveries are superseded by it}.
    """
    if not sql.fetch_value(IS_ANY_BACKFILL, {'lanes': list(lanes)}):
        return Counter()
    replaced = sql.fetch(REPLACE, {'lanes': list(lanes), 'now': now})
    ids = [pk for pk, _webhook_id in replaced]
    closed = sql.fetch_column(CLOSE_EMPTY, {'ids': ids})
    unpark(ids, now)
    return Counter([*closed, *(webhook_id for _pk, webhook_id in replaced if webhook_id)])


def replace_unordered(lanes: Collection[int], now: object) -> Counter[int]:
    """Something was claimed in these lanes. In those of webhooks without order it replaces the same."""
    unordered = sql.fetch_column(UNORDERED, {'lanes': list(lanes)})
    return replace(unordered, now) if unordered else Counter()


def close_batches(ids: Collection[int]) -> None:
    """Let later changes of their objects wait no longer for the batches among these deliveries."""
    _execute(SET_BATCHES_OPEN, ids, open=False)


def open_batches(ids: Collection[int]) -> None:
    """Let later changes of their objects wait again for the batches among these deliveries."""
    _execute(SET_BATCHES_OPEN, ids, open=True)


def _execute(statement: str, ids: Collection[int], **parameters: object) -> None:
    if ids:
        sql.execute(statement, {'ids': list(ids), **parameters})
