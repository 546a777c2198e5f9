"""Retention: the log stays bounded, by number and by age. What is pending never goes.

Beyond `retention_size` deliveries the oldest go: first those of events of which all was delivered, or superseded, then
those of events of which a delivery failed. What is older than `retention_days` goes in any case. An event goes with all
its deliveries and their attempts. What a deleted webhook has left does not count: it is not in the log any more.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils import timezone

from ... import conf
from ...choices import OPEN_STATUSES, StatusChoices
from .. import memory, sql, transactions

# Events that are looked at together, without any lock; and deliveries that go in one transaction.
LOOK, CHUNK = 5000, 500

NOT_FAILED = (*OPEN_STATUSES, StatusChoices.FAILED)

COUNT = """
    SELECT count(*) FROM webhooks_delivery d
    WHERE EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = d.webhook_id)"""

# The next events, the oldest first, with how many deliveries each has, how many of these count, and whether it may go.
READ = """
    SELECT e.*, d.* FROM (
        SELECT id, timestamp FROM webhooks_event
        WHERE dispatched_at IS NOT NULL AND timestamp < %(before)s AND (timestamp, id) > (%(timestamp)s, %(id)s)
        ORDER BY timestamp, id LIMIT %(look)s
    ) e CROSS JOIN LATERAL (
        SELECT count(*), count(w.id), count(w.id) FILTER (WHERE d.status = ANY(%(kept)s) OR d.created >= %(before)s) = 0
        FROM webhooks_delivery d LEFT JOIN webhooks_webhook w ON w.id = d.webhook_id WHERE d.event_id = e.id
    ) d
    ORDER BY e.timestamp, e.id"""

# In a statement before the one that looks again: who redelivers one of its deliveries locks the event as well.
LOCK = 'SELECT id FROM webhooks_event WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED'

PRUNE = """
    DELETE FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND NOT EXISTS (
        SELECT FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
        WHERE d.event_id = e.id AND (d.status = ANY(%(kept)s) OR d.created >= %(before)s)
    )
    RETURNING e.id"""


class Old(NamedTuple):
    """An event, with how many deliveries it has, and how many of these count."""

    pk: int
    timestamp: datetime
    deliveries: int
    counted: int
    may_go: bool


def prune_all(days: int | None = None) -> int:
    """Delete all that is beyond the bounds; `days` instead of `retention_days`. Returns how many events went."""
    return sum(slices(days))


def slices(days: int | None = None) -> Iterator[int]:
    """Do the same a slice at a time, so that the caller may stop between two. Yields how many events went with each."""
    yield from by_size(conf.get().retention_size)
    yield from by_age(timezone.now() - timedelta(days=conf.get().retention_days if days is None else days))


def by_size(size: int) -> Iterator[int]:
    """Delete the oldest deliveries beyond so many; 0: no bound. Yields how many events went with each slice."""
    for kept in (NOT_FAILED, OPEN_STATUSES) if size else ():
        excess = sql.fetch_value(COUNT) - size
        found = _find(kept, 'infinity')
        while excess > 0 and (old := next(found, None)) is not None:
            left = [one for one in old if one.counted]
            while excess > 0 and left:
                chunk, left = _cut(left, min(CHUNK, excess))
                gone = _prune(chunk, kept, 'infinity')
                excess -= sum(one.counted for one in chunk if one.pk in gone)
                yield len(gone)


def by_age(before: datetime) -> Iterator[int]:
    """Delete events from before the moment of which nothing was made since. Yields how many went with each slice."""
    for old in _find(OPEN_STATUSES, before):
        left = old
        while left:
            chunk, left = _cut(left, CHUNK)
            yield len(_prune(chunk, OPEN_STATUSES, before))


def _find(kept: Sequence[str], before: datetime | str) -> Iterator[list[Old]]:
    """Give what may go of all events, the oldest first, some at a time."""
    after = {'timestamp': '-infinity', 'id': 0}
    bounds = {'kept': list(kept), 'before': before, 'look': LOOK}
    while rows := [Old(*row) for row in sql.fetch(READ, {**bounds, **after})]:
        after = {'timestamp': rows[-1].timestamp, 'id': rows[-1].pk}
        yield [one for one in rows if one.may_go]


def _cut(old: list[Old], most: int) -> tuple[list[Old], list[Old]]:
    """Return the first of them, as many as have so many deliveries together, one at least; and the others."""
    first = memory.first_within(old, lambda one: max(one.deliveries, 1), most)
    return first, old[len(first) :]


def _prune(chunk: Sequence[Old], kept: Sequence[str], before: datetime | str) -> set[int]:
    """Delete those that still may go. Returns their ids."""
    with transactions.short():
        locked = sql.fetch_column(LOCK, {'ids': [one.pk for one in chunk]})
        return set(sql.fetch_column(PRUNE, {'ids': locked, 'kept': list(kept), 'before': before}))
