"""A feed is a webhook without a URL. Its due deliveries are published: they get the next numbers of their webhook.

The row of the lane is locked from the number to the commit. So nobody sees a number before a lower one.
"""

from collections import Counter
from collections.abc import Collection
from datetime import datetime

from ...choices import StatusChoices
from .. import sql
from . import order, queue
from .endpoint import Entry

# In the given order. The webhook may have had a URL: its endpoint is in no trouble any more.
PUBLISH = """
    WITH due AS MATERIALIZED (
        SELECT d.id, d.webhook_id, v.n FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS v(id, n)
        JOIN webhooks_delivery d ON d.id = v.id
        WHERE d.status IN ('pending', 'sending') FOR UPDATE OF d SKIP LOCKED
    ), numbered AS (
        SELECT id, webhook_id, row_number() OVER (PARTITION BY webhook_id ORDER BY n) AS n FROM due
    ), counted AS (
        SELECT webhook_id, count(*) AS count FROM due GROUP BY webhook_id
    ), lane AS (
        UPDATE webhooks_health h
        SET position = h.position + c.count, last_success_at = %(now)s,
            last_error = '', suspended_since = NULL, probe_at = NULL, unreachable = 0
        FROM counted c WHERE h.webhook_id = c.webhook_id
        RETURNING h.webhook_id, h.position - c.count AS before
    )
    UPDATE webhooks_delivery d
    SET status = 'delivered', position = l.before + n.n, due_at = NULL, finished_at = %(now)s, error = ''
    FROM numbered n JOIN lane l USING (webhook_id)
    WHERE d.id = n.id
    RETURNING d.id, d.webhook_id"""


def publish(ids: Collection[int], now: datetime) -> list[Entry]:
    """Publish what may go of these deliveries, in this order. Returns the entries for endpoint.py.

    The caller has locked the rows of their lanes.
    """
    may_go = set(queue.ready(ids)) if ids else set()
    return publish_at_once([pk for pk in ids if pk in may_go], now)


def publish_at_once(ids: Collection[int], now: datetime) -> list[Entry]:
    """The same, whatever goes before them."""
    if not ids:
        return []
    published = sql.fetch(PUBLISH, {'ids': list(ids), 'now': now})
    order.unpark([pk for pk, _webhook_id in published], now)
    counts = Counter(webhook_id for _pk, webhook_id in published)
    return [Entry(webhook_id, StatusChoices.DELIVERED, count) for webhook_id, count in counts.items()]
