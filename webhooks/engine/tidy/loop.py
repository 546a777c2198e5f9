"""Tidying: what is left is done a little at a time, by a process that has nothing else to do.

Deleting a webhook deletes its row, and nobody sees its log any more (models/of_webhook.py). What is left is found by
the row of its health, which goes last: so whatever breaks off the work, it is taken up again.
"""

from collections import Counter
from datetime import datetime

from ...choices import StatusChoices
from ...interruptions import BROKEN_OFF
from ...models.hour import KEPT
from .. import sql, transactions
from ..deliver import endpoint, gone, order

# Rows of one transaction, and of one webhook in it: however much one has left, the others have their turn.
PART, EACH = 500, 50

# What could not be delivered within `expire_after`, whatever happened. What a worker has in hand is left to it, and
# what a deleted webhook has left is removed. A test that was never answered ends in the same way.
OVERDUE = """
    SELECT o.id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id CROSS JOIN LATERAL (
        SELECT d.id FROM webhooks_delivery d
        WHERE d.webhook_id = h.webhook_id AND d.status = 'pending' AND d.expires_at < %(now)s
          AND d.id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))
        ORDER BY d.expires_at, d.id LIMIT %(each)s
    ) o
    LIMIT %(part)s
    FOR UPDATE OF h SKIP LOCKED"""

UNANSWERED = "SELECT id FROM webhooks_delivery WHERE status = 'sending' AND expires_at < %(now)s LIMIT %(part)s"

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = CASE WHEN status = 'sending' THEN 'it was cut off before an outcome was recorded'
            WHEN error = '' THEN 'it expired before it could be delivered'
            ELSE 'it expired before it could be delivered; last: ' || error END
    WHERE status IN ('pending', 'sending') AND expires_at < %(now)s AND id = ANY(%(ids)s)
    RETURNING id, webhook_id"""

# Nobody records anything of these any more: who owns a lane leaves it a second after its last answer.
DELETED = """
    SELECT webhook_id FROM webhooks_health h
    WHERE owner_id IS NULL AND NOT EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = h.webhook_id) LIMIT 1
    FOR UPDATE OF h SKIP LOCKED"""

# Attempts go along with their deliveries.
FORGET = """
    DELETE FROM webhooks_delivery WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_delivery WHERE webhook_id = %(webhook)s ORDER BY id DESC LIMIT %(part)s
    ))"""
FORGET_LAST = """
    WITH backfills AS (DELETE FROM webhooks_backfill WHERE webhook_id = %(webhook)s)
    DELETE FROM webhooks_health WHERE webhook_id = %(webhook)s"""

FORGET_HOURS = """
    DELETE FROM webhooks_hour WHERE id = ANY(ARRAY(
        SELECT o.id FROM webhooks_health h CROSS JOIN LATERAL (
            SELECT id FROM webhooks_hour WHERE health_id = h.webhook_id AND start < %(before)s LIMIT %(each)s
        ) o
        LIMIT %(part)s
    ))"""

# What was not tried yet of a webhook's backfill, and no worker has in hand.
UNTRIED = """
    SELECT d.id, d.created FROM webhooks_delivery d
    WHERE d.webhook_id = {webhook} AND d.backfill AND d.status = 'pending'
      AND d.attempt_count = 0 AND d.attempt_limit IS NULL AND d.lapses = 0
      AND d.id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))"""

# What was in hand, or dispatched, while its backfill was canceled. Nobody starts another one meanwhile, nor parks.
LEFT_BEHIND = f"""
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_health h USING (webhook_id)
    WHERE b.state = 'canceled' AND EXISTS ({UNTRIED.format(webhook='b.webhook_id')})
    FOR UPDATE OF b, h SKIP LOCKED"""


def step() -> bool:
    """Do a little of what is left. Returns whether there may be more. It looks at each webhook: once a second, say."""
    try:
        gone.disable()
        return any([expire(), forget_deleted(), take_back(), forget_hours()])
    except BROKEN_OFF as error:
        transactions.recover(error)
        return False


def expire() -> bool:
    """Fail what has expired, some at a time. Returns whether there was any."""
    with transactions.short() as now:
        bounds = {'now': now, 'part': PART, 'each': EACH}
        overdue = sql.fetch_column(OVERDUE, bounds) + sql.fetch_column(UNANSWERED, bounds)
        expired = dict(sql.fetch(EXPIRE, {'now': now, 'ids': overdue})) if overdue else {}
        order.unpark(list(expired), now)
        endpoint.note(StatusChoices.FAILED, Counter(expired.values()), now)
    return bool(expired)


def forget_deleted() -> bool:
    """Remove a part of the log of one deleted webhook. Returns whether there was any."""
    with transactions.short():
        found = sql.fetch_column(DELETED)
        for webhook_id in found:
            bounds = {'webhook': webhook_id, 'part': PART}
            if not sql.execute(FORGET, bounds):
                sql.execute(FORGET_LAST, bounds)
    return bool(found)


def take_back() -> bool:
    """Remove what is left of canceled backfills. Returns whether there was any."""
    with transactions.short() as now:
        found = sql.fetch_column(LEFT_BEHIND)
        for webhook_id in found:
            remove_untried(webhook_id, now)
    return bool(found)


def forget_hours() -> bool:
    """Remove counts that are too old to be shown. Returns whether there were any."""
    with transactions.short() as now:
        return bool(sql.execute(FORGET_HOURS, {'before': now - KEPT, 'each': EACH, 'part': PART}))


def untried(webhook_id: int) -> dict[int, datetime]:
    """Return what was not tried yet of a webhook's backfill: {id: when it was made}."""
    return dict(sql.fetch(UNTRIED.format(webhook='%s'), [webhook_id]))


def remove_untried(webhook_id: int, now: datetime) -> list[datetime]:
    """Remove deliveries of a backfill that were not tried. The caller holds the lane. Returns when they were made."""
    found = untried(webhook_id)
    order.unpark(list(found), now)
    sql.execute('DELETE FROM webhooks_delivery WHERE id = ANY(%s)', [list(found)])
    return list(found.values())
