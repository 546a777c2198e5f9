"""The rate limit of a webhook: a token bucket in PostgreSQL, so that it holds over all workers and outlives Redis."""

from collections.abc import Mapping
from datetime import datetime

from . import sql

# A turn that began a moment before the last one to spend goes by an earlier time. Further ahead is only the time of a
# clock that has been set back since: nothing would be sent until it has caught up.
FILLED_AT = "CASE WHEN h.tokens_at < %(now)s + interval '1 second' THEN h.tokens_at END"

# What is in the bucket of a webhook `w` with health `h`. It holds a fifth of a second, so that no second sees many more
# than the rate. It is full where nobody knows since when it fills.
TOKENS = f"""
    least(
        greatest(w.rate_limit / 5.0, 1),
        coalesce(h.tokens + w.rate_limit * extract(epoch FROM %(now)s - {FILLED_AT}), w.rate_limit)
    )"""

SPEND = f"""
    UPDATE webhooks_health h SET tokens_at = %(now)s, tokens = {TOKENS} - v.count
    FROM unnest(%(ids)s::bigint[], %(counts)s::int[]) AS v(id, count)
    JOIN webhooks_webhook w ON w.id = v.id AND w.rate_limit IS NOT NULL
    WHERE h.webhook_id = w.id"""


def spend(counts: Mapping[int, int], now: datetime) -> None:
    """Take tokens out of the buckets of webhooks: {id: how many requests begin}."""
    if counts:
        sql.execute(SPEND, {'now': now, 'ids': list(counts), 'counts': list(counts.values())})
