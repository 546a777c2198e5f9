"""Expiry: a delivery that could not be delivered within `expire_after` fails, whatever happened.

It is looked for webhook by webhook, in those whose lanes are free: however much of one has expired whose lane somebody
holds, it keeps none of the others from it.
"""

from collections import Counter
from datetime import datetime, timedelta

from .. import conf
from . import lanes, ledger, ordering, sql
from .lanes import PART

# Of a webhook with the health `h`, the first: it is looked up in its own index. What a deleted webhook has left is
# purged.
IS_OVERDUE = """
    (SELECT true FROM webhooks_delivery d
     WHERE d.webhook_id = h.webhook_id AND d.status = 'pending' AND d.expires_at < {now}
     ORDER BY d.expires_at, d.id LIMIT 1)"""

TAKE = f"""
    SELECT h.webhook_id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
    WHERE {IS_OVERDUE.format(now='%(now)s')} LIMIT %(part)s
    FOR UPDATE OF h SKIP LOCKED"""

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = 'it expired before it could be delivered' || CASE WHEN error = '' THEN '' ELSE '; last: ' || error END
    WHERE status = 'pending' AND id = ANY(ARRAY(
        SELECT id FROM (
            SELECT d.id, event_count, sum(event_count) OVER (ORDER BY expires_at, d.id) AS events
            FROM unnest(%(lanes)s::bigint[]) AS lane(id) CROSS JOIN LATERAL (
                SELECT id, event_count, expires_at FROM webhooks_delivery
                WHERE status = 'pending' AND expires_at < %(now)s AND webhook_id = lane.id
                ORDER BY expires_at, id LIMIT %(each)s
            ) d
        ) d
        WHERE events <= %(part)s OR events = event_count
    ))
    RETURNING id, webhook_id"""


def expire() -> bool:
    """Fail what has expired, some at a time. Returns whether there was any."""
    with lanes.turn() as now:
        held = sql.fetch_column(TAKE, {'now': now, 'part': PART})
        if not held:
            return False
        expired = sql.fetch(EXPIRE, {'now': now, 'part': PART, 'lanes': held, 'each': -(-PART // len(held))})
        pks = [pk for pk, _webhook_id in expired]
        ordering.close_batches(pks)
        ordering.unpark(pks, now)
        ledger.note_failed(Counter(webhook_id for _pk, webhook_id in expired), now)
    return bool(expired)


def expiry(now: datetime) -> datetime:
    """Return when a delivery that is made or redelivered now expires."""
    return now + timedelta(seconds=conf.get().expire_after)
