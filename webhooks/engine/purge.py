"""Purge: the log of a deleted webhook is removed, a little at a time.

Deleting a webhook deletes its row, and nobody sees its log any more (models/of_webhook.py). What is left is found by
the row of its health, which goes last: so whatever breaks off the work, it is taken up again.
"""

from . import lanes, sql
from .lanes import PART

# One whose lane is free.
TAKE = """
    SELECT webhook_id FROM webhooks_health h
    WHERE NOT EXISTS (SELECT 1 FROM webhooks_webhook w WHERE w.id = h.webhook_id) LIMIT 1
    FOR UPDATE OF h SKIP LOCKED"""

# Attempts and batch items go along with their deliveries.
PURGE = """
    DELETE FROM webhooks_delivery WHERE id = ANY(ARRAY(
        SELECT id FROM (
            SELECT id, event_count, sum(event_count) OVER (ORDER BY id DESC) AS events FROM (
                SELECT id, event_count FROM webhooks_delivery
                WHERE webhook_id = %(webhook)s ORDER BY id DESC LIMIT %(part)s
            ) d
        ) d
        WHERE events <= %(part)s OR events = event_count
    ))"""

# A delivery that was made while its webhook was deleted, and seen by nobody since: the row of the health was gone.
STRAYS = """
    WITH RECURSIVE step AS (
        (SELECT webhook_id FROM webhooks_delivery ORDER BY webhook_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.webhook_id FROM webhooks_delivery d WHERE d.webhook_id > step.webhook_id
                ORDER BY d.webhook_id LIMIT 1)
        FROM step WHERE step.webhook_id IS NOT NULL
    )
    SELECT webhook_id FROM step
    WHERE webhook_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM webhooks_webhook w WHERE w.id = step.webhook_id)"""


def purge() -> bool:
    """Remove a part of the log of one deleted webhook. Returns whether there was any."""
    with lanes.turn():
        held = sql.fetch_column(TAKE)
        for webhook_id in held:
            if not _remove(webhook_id):
                sql.execute('DELETE FROM webhooks_backfill WHERE webhook_id = %s', [webhook_id])
                sql.execute('DELETE FROM webhooks_health WHERE webhook_id = %s', [webhook_id])
    return bool(held)


def purge_strays() -> None:
    """Remove what belongs to no webhook and to no health. Reads one row for each webhook in the log."""
    for webhook_id in sql.fetch_column(STRAYS):
        while _remove(webhook_id):
            pass


def _remove(webhook_id: int) -> int:
    return sql.execute(PURGE, {'webhook': webhook_id, 'part': PART})
