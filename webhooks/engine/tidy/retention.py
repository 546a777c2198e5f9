"""Prunes the log, by number and by age. It deletes events, and their deliveries go with them.

An event with an open delivery of an existing webhook is never pruned. Beyond `retention_size` the oldest events go,
first those without a failed delivery.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from ... import conf
from ...delivery_states import OPEN_STATES, DeliveryState
from ...models.hour import HOUR_RETENTION, Hour
from .. import sql
from ..each import first_within

# Events that are read at a time.
EVENTS_PER_LOOK = 200
# Deliveries that are deleted at a time. An event with more goes alone.
DELIVERIES_PER_TRANSACTION = 500

# The states that keep an event while those with a failed delivery stay too.
OPEN_OR_FAILED = (*OPEN_STATES, DeliveryState.FAILED)

# Count the deliveries of existing webhooks in the log.
COUNT_DELIVERIES = """
    SELECT count(*) FROM webhooks_delivery d
    WHERE EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = d.webhook_id)"""

# Read the next events of the log by age: how many deliveries, how many of existing webhooks, and whether it may go.
READ_OLD = """
    SELECT e.*, d.* FROM (
        SELECT id, timestamp FROM webhooks_event
        WHERE dispatched_at IS NOT NULL AND timestamp < %(before)s AND (timestamp, id) > (%(timestamp)s, %(id)s)
        ORDER BY timestamp, id LIMIT %(look)s
    ) e CROSS JOIN LATERAL (
        SELECT count(*), count(w.id), count(w.id) FILTER (WHERE d.status = ANY(%(kept)s) OR d.created >= %(before)s) = 0
        FROM webhooks_delivery d LEFT JOIN webhooks_webhook w ON w.id = d.webhook_id WHERE d.event_id = e.id
    ) d
    ORDER BY e.timestamp, e.id"""

# Lock events, and skip locked ones. A redelivery locks its event too, so the next statement looks again.
LOCK_EVENTS = 'SELECT id FROM webhooks_event WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED'

# Attach attempts to another of their deliveries, as the events of the present ones may be deleted. So a delivery that
# stays keeps all attempts in which it went out. It skips deliveries that somebody else has locked.
REATTACH = """
    UPDATE webhooks_attempt a SET delivery_id = m.id
    FROM (
        SELECT t.id AS attempt_id, n.id FROM webhooks_delivery d
        JOIN webhooks_attempt t ON t.delivery_id = d.id AND t.members IS NOT NULL
        CROSS JOIN LATERAL (
            SELECT n.id FROM webhooks_delivery n WHERE n.id = ANY(t.members) AND n.event_id <> ALL(%(ids)s)
            LIMIT 1 FOR KEY SHARE SKIP LOCKED
        ) n
        WHERE d.event_id = ANY(%(ids)s)
    ) m
    WHERE a.id = m.attempt_id"""

# Delete events with their deliveries, if no delivery keeps them.
PRUNE = """
    DELETE FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND NOT EXISTS (
        SELECT FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
        WHERE d.event_id = e.id AND (d.status = ANY(%(kept)s) OR d.created >= %(before)s)
    )
    RETURNING e.id"""


class Old(NamedTuple):
    """An event as READ_OLD finds it. `counted`: its deliveries of existing webhooks."""

    pk: int
    timestamp: datetime
    deliveries: int
    counted: int
    may_go: bool


def prune_all(days: int | None = None) -> int:
    """Prune the whole log, as slices(). Returns the number of deleted events."""
    return sum(slices(days))


def slices(days: int | None = None) -> Iterator[int]:
    """Prune old counts, then the log by size, then by age. `days` replaces the settings for the age.

    Yields each transaction's number of deleted events. A caller may stop after any, and prune the rest later.
    """
    Hour.objects.filter(start__lt=timezone.now() - HOUR_RETENTION).delete()
    yield from by_size(conf.get().retention_size)
    settings, now = conf.get(), timezone.now()
    if days is None and settings.retention_days_failed:
        yield from by_age(now - timedelta(days=settings.retention_days), OPEN_OR_FAILED)
        days = settings.retention_days_failed
    yield from by_age(now - timedelta(days=settings.retention_days if days is None else days))


def by_size(size: int) -> Iterator[int]:
    """Delete the oldest events until `size` deliveries are left, first those without a failed one. 0: no bound.

    Yields as slices().
    """
    for kept in (OPEN_OR_FAILED, OPEN_STATES) if size else ():
        yield from _delete(kept, 'infinity', sql.fetch_value(COUNT_DELIVERIES) - size)


def by_age(before: datetime, kept: Sequence[str] = OPEN_STATES) -> Iterator[int]:
    """Delete the events from before that time whose deliveries were all made before it too, and none is in `kept`.

    Yields as slices().
    """
    yield from _delete(kept, before)


def _delete(kept: Sequence[str], before: datetime | str, excess: float = math.inf) -> Iterator[int]:
    """Delete events from before a time without deliveries in the states `kept` or made since, the oldest first.

    `excess`: only until this many deliveries are gone. Yields each transaction's number of events.
    """
    bounds = {'kept': list(kept), 'before': before, 'look': EVENTS_PER_LOOK, 'timestamp': '-infinity', 'id': 0}
    while excess > 0 and (rows := [Old(*row) for row in sql.fetch(READ_OLD, bounds)]):
        going = [one for one in rows if one.may_go and (one.counted or excess == math.inf)]
        chunk = first_within(going, lambda one: max(one.deliveries, 1), int(min(DELIVERIES_PER_TRANSACTION, excess)))
        went = _prune([one.pk for one in chunk], bounds) if chunk else set()
        excess -= sum(one.counted for one in chunk if one.pk in went)
        last = rows[-1] if len(chunk) == len(going) else chunk[-1]
        bounds |= {'timestamp': last.timestamp, 'id': last.pk}
        if went:
            yield len(went)


def _prune(ids: Sequence[int], bounds: Mapping[str, Any]) -> set[int]:
    with sql.transaction():
        locked = sql.fetch_column(LOCK_EVENTS, {'ids': ids})
        sql.execute(REATTACH, {'ids': locked})
        return set(sql.fetch_column(PRUNE, {**bounds, 'ids': locked}))
