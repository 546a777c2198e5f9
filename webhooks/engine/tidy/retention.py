"""Bounds the log by number and by age. Deliveries go with their event. Pending deliveries never go.

Beyond `retention_size` the oldest events go, first those without a failed delivery.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from ... import conf
from ...choices import OPEN_STATUSES, StatusChoices
from ...models.hour import KEPT, Hour
from .. import sql, transactions
from ..each import first_within

# Events in one look; deliveries in one transaction.
EVENTS_PER_LOOK, DELIVERIES_PER_TRANSACTION = 200, 500

OPEN_OR_FAILED = (*OPEN_STATUSES, StatusChoices.FAILED)

COUNT_DELIVERIES = """
    SELECT count(*) FROM webhooks_delivery d
    WHERE EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = d.webhook_id)"""

# Deliveries of deleted webhooks do not count.
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

# A redelivery locks the event too. So the next statement looks again.
LOCK_EVENTS = 'SELECT id FROM webhooks_event WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED'

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
    for kept in (OPEN_OR_FAILED, OPEN_STATUSES) if size else ():
        yield from _delete(kept, 'infinity', sql.fetch_value(COUNT_DELIVERIES) - size)


def by_age(before: datetime) -> Iterator[int]:
    yield from _delete(OPEN_STATUSES, before)


def _delete(kept: Sequence[str], before: datetime | str, excess: float = math.inf) -> Iterator[int]:
    """Delete events without deliveries in the statuses `kept` or made since `before`.

    `excess`: only until so many deliveries are gone. Yields each transaction's number of events.
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
    with transactions.short():
        locked = sql.fetch_column(LOCK_EVENTS, {'ids': ids})
        return set(sql.fetch_column(PRUNE, {**bounds, 'ids': locked}))
