"""Retention by size: beyond `retention_size` deliveries in the log the oldest go, with their events.

Events go first whose deliveries were all delivered or superseded. Events with a failed delivery go next. An event
with an open delivery never goes. An event goes with all its deliveries, a batch with all its events. The deliveries of
a deleted webhook do not count: purge.py removes them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .. import conf
from ..choices import OPEN_STATUSES, StatusChoices
from . import lanes, retention, sql
from .retention import Closed

# What stays, at first and at last.
KEPT = ((*OPEN_STATUSES, StatusChoices.FAILED), OPEN_STATUSES)

# A delivery `d` that counts.
COUNTS = 'EXISTS (SELECT 1 FROM webhooks_webhook w WHERE w.id = d.webhook_id)'

COUNT = f'SELECT count(*) FROM webhooks_delivery d WHERE {COUNTS}'

# A batch hangs on its last event: an event that is in another one's batch waits until that is gone.
MAY_GO = f"""
    e.dispatched_at IS NOT NULL
    AND EXISTS (SELECT 1 FROM webhooks_delivery d WHERE d.event_id = e.id AND {COUNTS})
    AND NOT EXISTS (SELECT 1 FROM webhooks_delivery d WHERE d.event_id = e.id AND d.status = ANY(%(kept)s))
    AND NOT EXISTS (
        SELECT 1 FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id
        WHERE i.event_id = e.id AND d.event_id <> e.id
    )"""

FIND = f"""
    SELECT e.id, e.timestamp, {retention.WEIGHT}
    FROM webhooks_event e
    WHERE (e.timestamp, e.id) > (%(timestamp)s, %(id)s) AND {MAY_GO}
    ORDER BY e.timestamp, e.id LIMIT %(look)s"""

FELLOWS = """
    SELECT DISTINCT i.event_id FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id
    WHERE d.event_id = ANY(%(ids)s)"""

PRUNE = f"""
    WITH pruned AS (
        DELETE FROM webhooks_delivery WHERE event_id = ANY(ARRAY(
            SELECT e.id FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND {MAY_GO}
        ))
        RETURNING webhook_id
    )
    SELECT count(*) FROM pruned d WHERE {COUNTS}"""

PRUNE_EVENTS = """
    DELETE FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND e.dispatched_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM webhooks_delivery d WHERE d.event_id = e.id)
        AND NOT EXISTS (SELECT 1 FROM webhooks_batchitem i WHERE i.event_id = e.id)"""


class Pruned(NamedTuple):
    deliveries: int
    events: int


def prune_all(days: int | None = None) -> Iterator[int]:
    """Prune by retention_size, then by age, `days` or else retention_days, a slice at a time.

    Yields how many events went with each.
    """
    yield from slices(conf.get().retention_size)
    yield from retention.slices(retention.cutoff(days))


def prune(size: int) -> int:
    """Delete closed deliveries beyond so many in the log; 0: there is no bound. Returns how many events went."""
    return sum(slices(size))


def slices(size: int) -> Iterator[int]:
    """Do the same a slice at a time. Yields how many events went with each."""
    if not size:
        return
    excess = sql.fetch_value(COUNT) - size
    for kept in KEPT:
        looked = _look(kept)
        while excess > 0 and (found := next(looked, None)):
            while excess > 0 and found:
                chunk = retention.first(found, min(retention.CHUNK, excess))
                found = found[len(chunk) :]
                pruned = _prune(chunk, kept)
                excess -= pruned.deliveries
                yield pruned.events


def _look(kept: Sequence[str]) -> Iterator[list[Closed]]:
    """Give what may go, the oldest first, some at a time."""
    after = {'timestamp': '-infinity', 'id': 0}
    while rows := sql.fetch(FIND, {'kept': list(kept), 'look': retention.LOOK, **after}):
        after = {'timestamp': rows[-1][1], 'id': rows[-1][0]}
        yield [Closed(pk, weight) for pk, _timestamp, weight in rows]


def _prune(chunk: Sequence[Closed], kept: Sequence[str]) -> Pruned:
    """Delete those that still may go."""
    ids = [event.pk for event in chunk]
    with lanes.turn():
        fellows = sql.fetch_column(FELLOWS, {'ids': ids})
        locked = sql.fetch_column(retention.LOCK, {'ids': [*ids, *fellows]})
        deliveries = sql.fetch_value(PRUNE, {'ids': [pk for pk in ids if pk in locked], 'kept': list(kept)})
        return Pruned(deliveries, events=sql.execute(PRUNE_EVENTS, {'ids': locked}))
