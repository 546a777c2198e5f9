"""Publishes the due deliveries of a feed, a webhook without a URL: they get the next numbers of their webhook.

The lane's row keeps the last number, and stays locked until the commit. So nobody sees a number before a lower one.
"""

from collections import Counter
from collections.abc import Collection
from datetime import datetime

from ... import delivery_states as states
from ...choices import StatusChoices
from .. import sql
from . import endpoint, order
from .endpoint import Entry

# From what may be in hand to delivered, with the next numbers of their lanes in the given order.
PUBLISH = f"""
    WITH due AS MATERIALIZED (
        SELECT d.id, d.webhook_id, v.n FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS v(id, n)
        JOIN webhooks_delivery d USING (id)
        WHERE d.status {states.IN_HAND} FOR UPDATE OF d SKIP LOCKED
    ), lane AS (
        UPDATE webhooks_health h SET position = h.position + c.count
        FROM (SELECT webhook_id, count(*) FROM due GROUP BY webhook_id) c
        WHERE h.webhook_id = c.webhook_id
        RETURNING h.webhook_id, h.position - c.count AS before
    )
    UPDATE webhooks_delivery d
    SET status = 'delivered', position = before + rank, due_at = NULL, finished_at = %(now)s, error = '',
        response_status = NULL, lead = NULL, part = NULL, parts = NULL, change_count = NULL
    FROM (SELECT *, row_number() OVER (PARTITION BY webhook_id ORDER BY n) AS rank FROM due) r
    JOIN lane USING (webhook_id)
    WHERE d.id = r.id AND d.status {states.IN_HAND}
    RETURNING d.id, d.webhook_id"""


def publish(ids: Collection[int], now: datetime) -> list[Entry]:
    """Publish these deliveries, in this order: each is delivered. Returns the entries for endpoint.write().

    Closed or locked ones are left out. The next of their objects are due. The caller has locked their lanes' rows.
    """
    if not ids:
        return []
    published = sql.fetch(PUBLISH, {'ids': list(ids), 'now': now})
    order.release_next([pk for pk, _webhook_id in published], now)
    return endpoint.entries(StatusChoices.DELIVERED, Counter(webhook_id for _pk, webhook_id in published))
