"""Tidies a little at a time, between batches of the dispatcher."""

from collections import Counter
from datetime import datetime

from ...choices import StatusChoices
from .. import notifications, sql, transactions
from ..deliver import endpoint, gone, order

# Rows in a transaction, and for each webhook in it.
PART, EACH = 500, 50

OVERDUE = """
    SELECT o.id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id CROSS JOIN LATERAL (
        SELECT d.id FROM webhooks_delivery d
        WHERE d.webhook_id = h.webhook_id AND d.status = 'pending' AND d.expires_at < %(now)s
        ORDER BY d.expires_at, d.id LIMIT %(each)s
    ) o
    LIMIT %(part)s
    FOR UPDATE OF h SKIP LOCKED"""

# Tests whose process died, and deliveries of a worker of 1.0.0.
UNANSWERED = "SELECT id FROM webhooks_delivery WHERE status = 'sending' AND expires_at < %(now)s LIMIT %(part)s"

# Not those in hand, which is known under the lanes' locks only.
EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = CASE WHEN status = 'sending' THEN 'it was cut off before an outcome was recorded'
            WHEN error = '' THEN 'it expired before it could be delivered'
            ELSE 'it expired before it could be delivered; last: ' || error END
    WHERE status IN ('pending', 'sending') AND expires_at < %(now)s AND id = ANY(%(ids)s)
      AND id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))
    RETURNING id, webhook_id"""

# Nobody records these any more: a lane is left a second after its last answer.
DELETED = """
    SELECT webhook_id FROM webhooks_health h
    WHERE owner_id IS NULL AND NOT EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = h.webhook_id) LIMIT 1
    FOR UPDATE OF h SKIP LOCKED"""

FORGET_LOG = """
    DELETE FROM webhooks_delivery WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_delivery WHERE webhook_id = %(webhook)s ORDER BY id DESC LIMIT %(part)s
    ))"""
# Last: an interrupted removal goes on.
FORGET_LAST = """
    WITH backfills AS (DELETE FROM webhooks_backfill WHERE webhook_id = %(webhook)s)
    DELETE FROM webhooks_health WHERE webhook_id = %(webhook)s"""

# Parked before `ordered` was switched off. A later part of a change set goes after the earlier one.
LET_PASS = """
    UPDATE webhooks_delivery SET due_at = %(now)s WHERE status = 'pending' AND due_at IS NULL AND id = ANY(ARRAY(
        SELECT d.id FROM webhooks_webhook w JOIN webhooks_health h ON h.webhook_id = w.id CROSS JOIN LATERAL (
            SELECT id FROM webhooks_delivery
            WHERE webhook_id = w.id AND NOT backfill AND status = 'pending' AND due_at IS NULL
              AND lapses = 0 AND parts IS NULL
            LIMIT %(each)s
        ) d
        WHERE NOT w.ordered LIMIT %(part)s
        FOR UPDATE OF h SKIP LOCKED
    ))"""

UNTRIED = """
    SELECT id, created FROM webhooks_delivery
    WHERE webhook_id = %s AND id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))
      AND backfill AND status = 'pending' AND lapses = 0 AND attempt_count = 0 AND attempt_limit IS NULL"""

# Deliveries that were in hand or dispatched during a cancel. Nobody parks or starts a backfill meanwhile.
LEFT_BEHIND = """
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_health h USING (webhook_id)
    WHERE b.state = 'canceled' AND EXISTS (
        SELECT FROM webhooks_delivery d
        WHERE d.webhook_id = b.webhook_id AND d.id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))
          AND d.backfill AND d.status = 'pending' AND d.lapses = 0 AND d.attempt_count = 0 AND d.attempt_limit IS NULL
    )
    FOR UPDATE OF b, h SKIP LOCKED"""


def step() -> bool:
    """Returns whether there may be more."""
    with transactions.may_break_off():
        gone.disable()
        more = any([expire(), forget_deleted(), take_back(), let_pass()])
        return notifications.tell_rules() or more
    return False


def expire() -> bool:
    with transactions.short() as now:
        bounds = {'now': now, 'part': PART, 'each': EACH}
        overdue = sql.fetch_column(OVERDUE, bounds) + sql.fetch_column(UNANSWERED, bounds)
        expired = dict(sql.fetch(EXPIRE, {'now': now, 'ids': overdue})) if overdue else {}
        order.unpark(list(expired), now)
        endpoint.note(StatusChoices.FAILED, Counter(expired.values()), now)
    return bool(expired)


def forget_deleted() -> bool:
    with transactions.short():
        found = sql.fetch_column(DELETED)
        for webhook_id in found:
            bounds = {'webhook': webhook_id, 'part': PART}
            if not sql.execute(FORGET_LOG, bounds):
                sql.execute(FORGET_LAST, bounds)
    return bool(found)


def take_back() -> bool:
    with transactions.short() as now:
        found = sql.fetch_column(LEFT_BEHIND)
        for webhook_id in found:
            remove_untried(webhook_id, now)
    return bool(found)


def let_pass() -> bool:
    with transactions.short() as now:
        return bool(sql.execute(LET_PASS, {'now': now, 'part': PART, 'each': EACH}))


def remove_untried(webhook_id: int, now: datetime) -> list[datetime]:
    """Returns when each was created. Needs the lane's lock."""
    found = dict(sql.fetch(UNTRIED, [webhook_id]))
    order.unpark(list(found), now)
    sql.execute('DELETE FROM webhooks_delivery WHERE id = ANY(%s)', [list(found)])
    return list(found.values())
