"""Retention: events and deliveries older than `retention_days` go, what is pending never does."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils import timezone

from .. import conf
from . import lanes, memory, purge, sql

# Events that are looked for at a time, without any lock, and deliveries that go in one slice, which is a transaction.
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

# How many rows go along with an event `e`: one for each delivery, and for a batch one for each of its events.
WEIGHT = '(SELECT coalesce(sum(d.event_count), 1) FROM webhooks_delivery d WHERE d.event_id = e.id)::int'

FIND = f'SELECT e.id, {WEIGHT} FROM webhooks_event e WHERE {CLOSED} ORDER BY e.timestamp LIMIT %(look)s'

# In a statement before the one that looks again: whoever redelivers one of its deliveries locks the event as well.
LOCK = 'SELECT id FROM webhooks_event WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED'

# What belongs to an event goes along in the database.
PRUNE = f'DELETE FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND {CLOSED}'


def cutoff(days: int | None = None) -> datetime:
    """Return the moment before which everything that is closed may go."""
    return timezone.now() - timedelta(days=conf.get().retention_days if days is None else days)


def prune(before: datetime) -> int:
    """Delete closed events from before the moment, with their deliveries and attempts. Returns how many events."""
    return sum(slices(before))


def slices(before: datetime) -> Iterator[int]:
    """Do the same a slice at a time. Yields how many events went with each."""
    while found := _find(before):
        pruned = 0
        while found:
            chunk = first(found, CHUNK)
            found = found[len(chunk) :]
            pruned += (count := _prune(chunk, before))
            yield count
        if not pruned:
            break  # somebody redelivers them
    purge.purge_strays()


class Closed(NamedTuple):
    """An event that may go, and how many rows go along."""

    pk: int
    weight: int


def first(found: Sequence[Closed], most: int) -> Sequence[Closed]:
    """Return the first of the events, as many as weigh `most` together, one at least."""
    return memory.first_within(found, lambda event: event.weight, most)


def _find(before: datetime) -> list[Closed]:
    return [Closed(*row) for row in sql.fetch(FIND, {'before': before, 'look': LOOK})]


def _prune(chunk: Sequence[Closed], before: datetime) -> int:
    """Delete those that are still closed."""
    with lanes.turn():
        locked = sql.fetch_column(LOCK, {'ids': [event.pk for event in chunk]})
        return sql.execute(PRUNE, {'ids': locked, 'before': before})
