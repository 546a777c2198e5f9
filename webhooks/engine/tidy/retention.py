"""Bounds the log by number and by age. Deliveries go with their event. Pending deliveries never go.

Beyond `retention_size` the oldest events go, first those without a failed delivery.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils import timezone

from ... import conf
from ...choices import OPEN_STATUSES, StatusChoices
from ...models.hour import KEPT, Hour
from .. import sql, transactions
from ..each import first_within

# Events in one look; deliveries in one transaction.
LOOK, CHUNK = 5000, 500

NOT_FAILED = (*OPEN_STATUSES, StatusChoices.FAILED)

COUNT = """
    SELECT count(*) FROM webhooks_delivery d
    WHERE EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = d.webhook_id)"""

# Deliveries of deleted webhooks do not count.
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

# A redelivery locks the event too. So the next statement looks again.
LOCK = 'SELECT id FROM webhooks_event WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED'

PRUNE = """
    DELETE FROM webhooks_event e WHERE e.id = ANY(%(ids)s) AND NOT EXISTS (
        SELECT FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
        WHERE d.event_id = e.id AND (d.status = ANY(%(kept)s) OR d.created >= %(before)s)
    )
    RETURNING e.id"""


class Old(NamedTuple):
    pk: int
    timestamp: datetime
    deliveries: int
    counted: int
    may_go: bool


def prune_all(days: int | None = None) -> int:
    """`days` replaces `retention_days`. Returns the number of deleted events."""
    return sum(slices(days))


def slices(days: int | None = None) -> Iterator[int]:
    Hour.objects.filter(start__lt=timezone.now() - KEPT).delete()
    yield from by_size(conf.get().retention_size)
    yield from by_age(timezone.now() - timedelta(days=conf.get().retention_days if days is None else days))


def by_size(size: int) -> Iterator[int]:
    """Keep so many deliveries; 0: no bound."""
    for kept in (NOT_FAILED, OPEN_STATUSES) if size else ():
        yield from _delete(kept, 'infinity', sql.fetch_value(COUNT) - size)


def by_age(before: datetime) -> Iterator[int]:
    yield from _delete(OPEN_STATUSES, before)


def _delete(kept: Sequence[str], before: datetime | str, excess: float = math.inf) -> Iterator[int]:
    """Delete events without deliveries in the statuses `kept` or made since `before`.

    `excess`: only until so many deliveries are gone. Yields each slice's number of events.
    """
    for old in _find(kept, before) if excess > 0 else ():
        rest = [one for one in old if one.counted] if excess < math.inf else old
        while excess > 0 and rest:
            chunk = first_within(rest, lambda one: max(one.deliveries, 1), int(min(CHUNK, excess)))
            rest = rest[len(chunk) :]
            went = _prune(chunk, kept, before)
            excess -= sum(one.counted for one in chunk if one.pk in went)
            yield len(went)
        if excess <= 0:
            return


def _find(kept: Sequence[str], before: datetime | str) -> Iterator[list[Old]]:
    after = {'timestamp': '-infinity', 'id': 0}
    bounds = {'kept': list(kept), 'before': before, 'look': LOOK}
    while rows := [Old(*row) for row in sql.fetch(READ, {**bounds, **after})]:
        after = {'timestamp': rows[-1].timestamp, 'id': rows[-1].pk}
        yield [one for one in rows if one.may_go]


def _prune(chunk: Sequence[Old], kept: Sequence[str], before: datetime | str) -> set[int]:
    with transactions.short():
        locked = sql.fetch_column(LOCK, {'ids': [one.pk for one in chunk]})
        return set(sql.fetch_column(PRUNE, {'ids': locked, 'kept': list(kept), 'before': before}))
