"""Tidying: what is left is done a little at a time, by a process that has nothing else to do.

Deleting a webhook deletes its row, and nobody sees its log any more (models/of_webhook.py). What is left is found by
the row of its health, which goes last: so whatever breaks off the work, it is taken up again.
"""

from datetime import datetime

from ...interruptions import BROKEN_OFF
from ...models.hour import KEPT
from .. import notifications, sql, transactions
from ..deliver import gone, order
from .expiry import expire

# Rows that are removed in one transaction, and what is too old of one webhook at a time.
PART, HOURS = 500, 24

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

FORGET_HOURS = """
    DELETE FROM webhooks_hour WHERE id = ANY(ARRAY(
        SELECT o.id FROM webhooks_health h CROSS JOIN LATERAL (
            SELECT id FROM webhooks_hour WHERE health_id = h.webhook_id AND start < %(before)s LIMIT %(hours)s
        ) o
        LIMIT %(part)s
    ))"""

# What was not tried yet of a webhook's backfill, and no worker has in hand.
UNTRIED = f"""
    SELECT d.id, d.created FROM webhooks_delivery d
    WHERE d.webhook_id = {{webhook}} AND d.backfill AND {sql.pending('d')}
      AND d.attempt_count = 0 AND d.attempt_limit IS NULL AND d.lapses = 0
      AND d.id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))"""
UNTRIED_OF_ONE = UNTRIED.format(webhook='%s')

REMOVE = 'DELETE FROM webhooks_delivery WHERE id = ANY(%s)'

# Nobody starts a backfill of these meanwhile, nor parks anything.
LEFT_BEHIND = f"""
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_health h USING (webhook_id)
    WHERE b.state = 'canceled' AND EXISTS ({UNTRIED.format(webhook='b.webhook_id')})
    FOR UPDATE OF b, h SKIP LOCKED"""


def step() -> bool:
    """Do a little of what is left. Returns whether there may be more. It looks at each webhook: once a second, say."""
    try:
        more = any([expire(), forget_deleted(), take_back(), forget_hours(), gone.disable()])
        return notifications.tell_rules() or more
    except BROKEN_OFF as error:
        transactions.recover(error)
        return False


def forget_deleted() -> bool:
    """Remove a part of the log of one deleted webhook. Returns whether there was any."""
    with transactions.short():
        held = sql.fetch_column(DELETED)
        for webhook_id in held:
            if not sql.execute(FORGET, {'webhook': webhook_id, 'part': PART}):
                sql.execute('DELETE FROM webhooks_backfill WHERE webhook_id = %s', [webhook_id])
                sql.execute('DELETE FROM webhooks_health WHERE webhook_id = %s', [webhook_id])
    return bool(held)


def forget_hours() -> bool:
    """Remove counts that are too old to be shown. Returns whether there were any."""
    with transactions.short() as now:
        return bool(sql.execute(FORGET_HOURS, {'before': now - KEPT, 'hours': HOURS, 'part': PART}))


def take_back() -> bool:
    """Remove what was dispatched, or in hand, while its backfill was canceled. Returns whether there was any."""
    with transactions.short() as now:
        held = sql.fetch_column(LEFT_BEHIND)
        for webhook_id in held:
            remove_untried(webhook_id, now)
    return bool(held)


def remove_untried(webhook_id: int, now: datetime) -> list[datetime]:
    """Remove deliveries of a backfill that were not tried. The caller holds the lane. Returns when they were made."""
    untried = dict(sql.fetch(UNTRIED_OF_ONE, [webhook_id]))
    order.unpark(list(untried), now)
    sql.execute(REMOVE, [list(untried)])
    return list(untried.values())


def look_behind_untried(webhook_id: int, now: datetime) -> None:
    """Look anew at what waits for deliveries that were not tried: they are held now. The caller holds the lane."""
    order.unpark([pk for pk, _created in sql.fetch(UNTRIED_OF_ONE, [webhook_id])], now)
