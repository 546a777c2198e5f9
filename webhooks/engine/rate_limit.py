"""The rate limit of a webhook: a token bucket in PostgreSQL, so that it holds over all workers and outlives Redis."""

from collections.abc import Mapping

from . import sql

# The time by which a bucket fills: not that of the turn, which may have begun long before it had the lane. So nothing
# that was spent is ahead of it, unless the clock has been set back since: nothing would be sent until it has caught up.
NOW = 'statement_timestamp()'
FILLED_AT = f"CASE WHEN h.tokens_at < {NOW} + interval '1 second' THEN h.tokens_at END"

# What is in the bucket of a webhook `w` with health `h`. It holds a fifth of a second, so that no second sees many more
# than the rate. It is full where nobody knows since when it fills.
TOKENS = f"""
    least(
        greatest(w.rate_limit / 5.0, 1),
        coalesce(h.tokens + w.rate_limit * extract(epoch FROM {NOW} - {FILLED_AT}), w.rate_limit)
    )"""

SPEND = f"""
    UPDATE webhooks_health h SET tokens_at = {NOW}, tokens = {TOKENS} - v.count
    FROM unnest(%(ids)s::bigint[], %(counts)s::int[]) AS v(id, count)
    JOIN webhooks_webhook w ON w.id = v.id AND w.rate_limit IS NOT NULL
    WHERE h.webhook_id = w.id"""


def spend(counts: Mapping[int, int]) -> None:
    """Take tokens out of the buckets of webhooks: {id: how many requests begin}."""
    if counts:
        sql.execute(SPEND, {'ids': list(counts), 'counts': list(counts.values())})
