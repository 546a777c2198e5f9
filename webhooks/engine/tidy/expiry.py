"""Expiry: a delivery that could not be delivered within `expire_after` fails, whatever happened.

It is looked for webhook by webhook, in those whose lanes nobody has locked: however much of one has expired, it keeps
none of the others from it. A test that was never answered ends in the same way.
"""

from collections import Counter

from ...choices import StatusChoices
from .. import sql, transactions
from ..deliver import endpoint, order

# Deliveries that fail in one transaction, and of one webhook.
PART, EACH = 500, 50

# What a worker has in hand is left to it, and what a deleted webhook has left is removed.
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


def expire() -> bool:
    """Fail what has expired, some at a time. Returns whether there was any."""
    with transactions.short() as now:
        bounds = {'now': now, 'part': PART, 'each': EACH}
        overdue = sql.fetch_column(OVERDUE, bounds) + sql.fetch_column(UNANSWERED, bounds)
        expired = dict(sql.fetch(EXPIRE, {'now': now, 'ids': overdue})) if overdue else {}
        order.unpark(list(expired), now)
        endpoint.note(StatusChoices.FAILED, Counter(expired.values()), now)
    return bool(expired)
