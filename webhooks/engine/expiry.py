"""Expiry: a delivery that could not be delivered within `expire_after` fails, whatever happened."""

from collections import Counter
from datetime import datetime, timedelta

from .. import conf
from . import lanes, ledger, ordering, sql
from .lanes import PART

OVERDUE = """
    SELECT DISTINCT webhook_id FROM (
        SELECT webhook_id FROM webhooks_delivery
        WHERE status = 'pending' AND expires_at < %(now)s ORDER BY expires_at LIMIT %(part)s
    ) d"""

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = 'it expired before it could be delivered' || CASE WHEN error = '' THEN '' ELSE '; last: ' || error END
    WHERE status = 'pending' AND id = ANY(ARRAY(
        SELECT id FROM (
            SELECT id, event_count, sum(event_count) OVER (ORDER BY expires_at, id) AS events FROM (
                SELECT id, event_count, expires_at FROM webhooks_delivery
                WHERE status = 'pending' AND expires_at < %(now)s AND webhook_id = ANY(%(lanes)s)
                ORDER BY expires_at, id LIMIT %(part)s
            ) d
        ) d
        WHERE events <= %(part)s OR events = event_count
    ))
    RETURNING id, webhook_id"""


def expire() -> bool:
    """Fail what has expired, some at a time. Returns whether there was any."""
    with lanes.turn() as now:
        held = lanes.take(sql.fetch_column(OVERDUE, {'now': now, 'part': PART}))
        if not held:
            return False
        expired = sql.fetch(EXPIRE, {'now': now, 'part': PART, 'lanes': list(held)})
        pks = [pk for pk, _webhook_id in expired]
        ordering.close_batches(pks)
        ordering.unpark(pks, now)
        ledger.note_failed(Counter(webhook_id for _pk, webhook_id in expired), now)
    return bool(expired)


def expiry(now: datetime) -> datetime:
    """Return when a delivery that is made or redelivered now expires."""
    return now + timedelta(seconds=conf.get().expire_after)
