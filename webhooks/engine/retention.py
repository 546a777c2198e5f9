"""Retention: events and deliveries older than `retention_days` go, what is pending never does."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import batched

from django.utils import timezone

from .. import conf
from ..models import Webhook
from . import lanes, purge, sql

# Events that are looked for at a time, without any lock, and deliveries that go in one transaction.
LOOK, CHUNK = 5000, 500

CLOSED = """
    e.timestamp < %(before)s AND e.dispatched_at IS NOT NULL
    AND NOT EXISTS (
        SELECT 1 FROM webhooks_delivery d
        WHERE d.event_id = e.id AND (d.status IN ('pending', 'sending') OR d.created >= %(before)s)
    )
    AND NOT EXISTS (
        SELECT 1 FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id
        WHERE i.event_id = e.id AND (d.status IN ('pending', 'sending') OR d.created >= %(before)s)
    )"""

FIND = f'SELECT e.id FROM webhooks_event e WHERE {CLOSED} ORDER BY e.timestamp LIMIT %(look)s'

# In a statement before the one that looks again: whoever redelivers one of its deliveries locks the event as well.
LOCK = 'SELECT id FROM webhooks_event WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED'

# What belongs to an event goes along in the database.
PRUNE = f'DELETE FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND {CLOSED}'


def cutoff(days: int | None = None) -> datetime:
    """Return the moment before which everything that is closed may go."""
    return timezone.now() - timedelta(days=conf.get().retention_days if days is None else days)


def prune(before: datetime) -> int:
    """Delete closed events from before the moment, with their deliveries and attempts. Returns how many events."""
    total = 0
    while found := _find(before):
        pruned = sum(_prune(chunk, before) for chunk in batched(found, chunk_size()))
        if not pruned:
            break  # somebody redelivers them
        total += pruned
    purge.purge_strays()
    return total


def chunk_size() -> int:
    """Return how many events go in one transaction: each may have a delivery for every webhook."""
    return max(CHUNK // max(Webhook.objects.count(), 1), 1)


def _find(before: datetime) -> list[int]:
    return sql.fetch_column(FIND, {'before': before, 'look': LOOK})


def _prune(ids: Sequence[int], before: datetime) -> int:
    """Delete those that are still closed."""
    with lanes.turn():
        locked = sql.fetch_column(LOCK, {'ids': list(ids)})
        return sql.execute(PRUNE, {'ids': locked, 'before': before})
