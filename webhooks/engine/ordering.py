"""The line: deliveries of one object for one webhook go out one after the other.

A delivery that has an earlier open one before it gets a Wait on it and no `due_at`, so that no claim sees it. When the
earlier one is closed the next becomes due; when it goes to its first retry, the next becomes due after `order_wait`
all the same. Even then it does not go out beside an earlier one that is due itself: the claim looks at the Waits.
Every function here is called in a transaction that holds locks.LINE.
"""

from collections.abc import Sequence

from django.db import connection

from .. import conf

# The objects of some deliveries: its own, or those of its batch.
MEMBERS = """
    SELECT d.id, d.webhook_id, d.object_type_id, d.object_id, d.sequence FROM webhooks_delivery d
    WHERE d.id = ANY(%(ids)s) AND d.event_count = 1
    UNION ALL
    SELECT i.delivery_id, i.webhook_id, i.object_type_id, i.object_id, i.sequence FROM webhooks_batchitem i
    WHERE i.delivery_id = ANY(%(ids)s)"""

# The open delivery next to a member m in its line, on the side and in the order that are filled in.
NEIGHBOUR = """
    SELECT n.id, n.error FROM (
        (SELECT p.id, p.error, p.sequence FROM webhooks_delivery p
         WHERE p.webhook_id = m.webhook_id AND p.object_type_id = m.object_type_id AND p.object_id = m.object_id
           AND p.status IN ('pending', 'sending') AND p.event_count = 1 AND p.sequence {side} m.sequence
         ORDER BY p.sequence {order} LIMIT 1)
        UNION ALL
        (SELECT p.id, p.error, i.sequence
         FROM webhooks_batchitem i JOIN webhooks_delivery p ON p.id = i.delivery_id
         WHERE i.webhook_id = m.webhook_id AND i.object_type_id = m.object_type_id AND i.object_id = m.object_id
           AND i.open AND i.sequence {side} m.sequence
         ORDER BY i.sequence {order} LIMIT 1)
    ) n ORDER BY n.sequence {order} LIMIT 1"""

LINE_UP = f"""
    WITH members AS ({MEMBERS}), found AS (
        SELECT DISTINCT m.id, p.id AS blocker_id, p.error <> '' AS failing
        FROM members m
        JOIN webhooks_webhook w ON w.id = m.webhook_id AND w.ordered
        CROSS JOIN LATERAL ({NEIGHBOUR.format(side='<', order='DESC')}) p
    ), waits AS (
        INSERT INTO webhooks_wait (delivery_id, blocker_id) SELECT id, blocker_id FROM found ON CONFLICT DO NOTHING
    )
    UPDATE webhooks_delivery d
    SET due_at = CASE WHEN f.failing THEN now() + make_interval(secs => %(order_wait)s) END
    FROM (SELECT id, bool_and(failing) AS failing FROM found GROUP BY id) f WHERE d.id = f.id"""

# The arrays and OFFSET 0 below: the few deliveries are looked up one by one. PostgreSQL's figures are old when a table
# has just grown, and by them it would read all that wait.
STEP_UP = """
    WITH gone AS (
        DELETE FROM webhooks_wait WHERE blocker_id = ANY(%(ids)s) OR delivery_id = ANY(%(ids)s)
        RETURNING delivery_id, blocker_id
    ), inherited AS (
        -- A delivery whose blocker went out early inherits that one's blockers.
        INSERT INTO webhooks_wait (delivery_id, blocker_id)
        SELECT behind.delivery_id, before.blocker_id
        FROM gone before JOIN gone behind ON behind.blocker_id = before.delivery_id
        WHERE NOT before.blocker_id = ANY(%(ids)s) AND NOT behind.delivery_id = ANY(%(ids)s)
        ON CONFLICT DO NOTHING
    )
    UPDATE webhooks_delivery d SET due_at = now()
    WHERE d.id = ANY(ARRAY(SELECT delivery_id FROM gone)) AND d.status = 'pending'
      AND (d.due_at IS NULL OR d.error = '')
      AND NOT EXISTS (
          SELECT 1 FROM webhooks_wait w WHERE w.delivery_id = d.id AND NOT w.blocker_id = ANY(%(ids)s)
          OFFSET 0
      )
    RETURNING d.id"""

LIMIT_WAIT_BEHIND = """
    UPDATE webhooks_delivery d SET due_at = now() + make_interval(secs => %(order_wait)s)
    WHERE d.id = ANY(ARRAY(SELECT w.delivery_id FROM webhooks_wait w WHERE w.blocker_id = ANY(%(ids)s)))
      AND d.status = 'pending' AND d.due_at IS NULL
      AND NOT EXISTS (
          SELECT 1 FROM webhooks_wait o
          WHERE o.delivery_id = d.id AND (SELECT b.error = '' FROM webhooks_delivery b WHERE b.id = o.blocker_id)
          OFFSET 0
      )"""

HOLD_BACK = f"""
    WITH members AS ({MEMBERS}), behind AS (
        SELECT DISTINCT p.id AS delivery_id, m.id AS blocker_id
        FROM members m
        JOIN webhooks_webhook w ON w.id = m.webhook_id AND w.ordered
        CROSS JOIN LATERAL ({NEIGHBOUR.format(side='>', order='ASC')}) p
        WHERE p.error = ''
    ), held AS (
        UPDATE webhooks_delivery d SET due_at = NULL FROM behind
        WHERE d.id = behind.delivery_id AND d.status = 'pending' RETURNING d.id
    )
    INSERT INTO webhooks_wait (delivery_id, blocker_id)
    SELECT behind.delivery_id, behind.blocker_id
    FROM behind JOIN (SELECT DISTINCT id FROM held) h ON h.id = behind.delivery_id
    ON CONFLICT DO NOTHING"""

SET_BATCHES_OPEN = 'UPDATE webhooks_batchitem SET open = %(open)s WHERE open <> %(open)s AND delivery_id = ANY(%(ids)s)'


def line_up(ids: Sequence[int]) -> None:
    """Let new deliveries wait for the open ones of the same object before them."""
    _execute(LINE_UP, ids)


def rejoin(ids: Sequence[int]) -> None:
    """The deliveries are open again: they wait for what is before them, and what is behind and untried for them."""
    _execute(SET_BATCHES_OPEN, ids, open=True)
    _execute(LINE_UP, ids)
    hold_back(ids)


def hold_back(ids: Sequence[int]) -> None:
    """Let what is behind the deliveries and was not tried yet wait for them."""
    _execute(HOLD_BACK, ids)


def step_up(ids: Sequence[int]) -> None:
    """The deliveries are closed: those that waited for them become due."""
    _execute(SET_BATCHES_OPEN, ids, open=False)
    _execute(STEP_UP, ids)


def close_up(ids: Sequence[int]) -> None:
    """The deliveries are closed, although others before them may be open: what is behind them waits for those."""
    _execute(SET_BATCHES_OPEN, ids, open=False)
    _execute(LINE_UP, [pk for (pk,) in _execute(STEP_UP, ids, returning=True)])


def limit_wait_behind(ids: Sequence[int]) -> None:
    """The deliveries go to their first retry: those behind them wait for `order_wait` from now at most."""
    _execute(LIMIT_WAIT_BEHIND, ids)


def _execute(statement: str, ids: Sequence[int], returning: bool = False, **parameters: object) -> list[tuple]:
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(statement, {'ids': list(ids), 'order_wait': conf.get().order_wait, **parameters})
        return cursor.fetchall() if returning else []
