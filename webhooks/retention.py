"""Retention: events and deliveries older than `retention_days` go, what is pending never does."""

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from . import conf

CHUNK = 5000

# In chunks of their own transactions: a chunk locks nothing that anybody waits for. What belongs to an event goes along
# in the database.
PRUNE = """
    DELETE FROM webhooks_event WHERE id IN (
        SELECT e.id FROM webhooks_event e
        WHERE e.timestamp < %(before)s AND e.dispatched_at IS NOT NULL
          AND NOT EXISTS (
              SELECT 1 FROM webhooks_delivery d
              WHERE d.event_id = e.id AND (d.status IN ('pending', 'sending') OR d.created >= %(before)s)
          )
          AND NOT EXISTS (
              SELECT 1 FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id
              WHERE i.event_id = e.id AND (d.status IN ('pending', 'sending') OR d.created >= %(before)s)
          )
        ORDER BY e.timestamp LIMIT %(chunk)s
    )"""


def cutoff(days: int | None = None) -> datetime:
    """Return the moment before which everything that is closed may go."""
    return timezone.now() - timedelta(days=conf.get().retention_days if days is None else days)


def prune(before: datetime) -> int:
    """Delete closed events from before the moment, with their deliveries and attempts. Returns how many events."""
    total = 0
    while gone := _prune_chunk(before):
        total += gone
    return total


def _prune_chunk(before: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute(PRUNE, {'before': before, 'chunk': CHUNK})
        return cursor.rowcount
