"""The one sequence that events and subscriptions draw from.

PostgreSQL keeps it apart from the tables. What copies rows alone (logical replication, `loaddata`) leaves it behind the
numbers in use: no subscription covers what draws from it then, and receivers take it for older than what they have.
`mend` sets it forward, and events that have drawn too low a number draw anew. What proves that a number is too low is
time by PostgreSQL's clock: a higher number was known before the event's transaction began.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

logger = logging.getLogger('webhooks.sequence')

SEQUENCE = 'webhooks_event_sequence'

# By indexes, and one row for each subscription. Deliveries are made only after a look here.
LOOK = f"""
    SELECT s.last_value - (NOT s.is_called)::int, greatest(
        (SELECT max(sequence) FROM webhooks_event WHERE dispatched_at IS NULL),
        (SELECT max(sequence) FROM (SELECT sequence FROM webhooks_delivery ORDER BY id DESC LIMIT 100) newest),
        (SELECT max(greatest(since, until)) FROM webhooks_subscription)
    )
    FROM {SEQUENCE} s"""

# The highest number in use, and since when one is known that is higher than the last of the sequence. Reads everything.
SEARCH = """
    SELECT max(sequence), min(known_since) FILTER (WHERE sequence > %(last)s)
    FROM (
        SELECT sequence, coalesce(dispatched_at, transaction_time) AS known_since FROM webhooks_event
        UNION ALL SELECT sequence, created FROM webhooks_delivery
        UNION ALL SELECT since, opened_at FROM webhooks_subscription
        UNION ALL SELECT until, NULL FROM webhooks_subscription
    ) numbers"""

# One at a time: a second one that has looked before would set it back. Others go on drawing meanwhile.
SET_FORWARD = f"""
    SELECT pg_advisory_lock(hashtext('{SEQUENCE}'));
    SELECT last_value FROM {SEQUENCE};
    SELECT setval('{SEQUENCE}', {{highest}}) FROM {SEQUENCE} WHERE last_value < {{highest}};
    SELECT pg_advisory_unlock(hashtext('{SEQUENCE}'))"""

# Whoever holds one of them has matched it by its former number: it loses its lease, and so can write nothing.
DRAW_ANEW = f"""
    WITH low AS (
        SELECT e.id FROM webhooks_event e WHERE e.dispatched_at IS NULL AND {{are_low}}
        ORDER BY e.sequence FOR UPDATE SKIP LOCKED
    ),
    drawn AS MATERIALIZED (SELECT id, nextval('{SEQUENCE}') AS sequence FROM low)
    UPDATE webhooks_event e
    SET sequence = drawn.sequence, first_sequence = NULL, lease = NULL, lease_until = NULL, dispatch_count = 0
    FROM drawn WHERE e.id = drawn.id"""

SINCE = 'e.sequence <= %(last)s AND e.transaction_time > %(known_since)s'

# Of a kind that is subscribed, and has been since before the transaction, by a higher number.
BELOW_SUBSCRIPTION = """
    e.id = ANY(%(ids)s) AND EXISTS (
        SELECT 1 FROM webhooks_subscription s
        WHERE s.object_type_id = e.object_type_id AND s.kind = e.kind AND s.until IS NULL
          AND s.since >= e.sequence AND s.opened_at < e.transaction_time
    )"""
ARE_BELOW = f'SELECT EXISTS (SELECT 1 FROM webhooks_event e WHERE {BELOW_SUBSCRIPTION})'


@dataclass(frozen=True)
class Mended:
    """Where the sequence was and is, and how many events have drawn anew."""

    last: int
    highest: int
    events: int

    def __str__(self) -> str:
        return f'set forward from {self.last} to {self.highest}, {self.events} events drew anew'


def draw() -> int:
    """Return the next value. Values are unique and grow; a transaction that is rolled back leaves a gap."""
    return _fetch('SELECT nextval(%s)', [SEQUENCE])[0]


def mend() -> Mended | None:
    """Set the sequence forward if it is behind the numbers in use. Returns what was done; None: it is not behind."""
    last, highest = _fetch(LOOK)
    if highest is None or highest <= last:
        return None
    with transaction.atomic():
        highest, known_since = _fetch(SEARCH, {'last': last})
        last = _set_forward(highest)
        if last >= highest:
            return None  # somebody else has done it
        mended = Mended(last, highest, _draw_anew(SINCE, {'last': last, 'known_since': known_since}))
    logger.warning('sequence=behind last=%s highest=%s events=%s (%s)', last, highest, mended.events, mended)
    return mended


def keep_low(event_ids: Collection[int]) -> None:
    """Let those of the events draw anew that no subscription covers only because their number is too low.

    They are in nobody's hands then. `mend` has not seen those whose transaction was open.
    """
    if not event_ids or not _fetch(ARE_BELOW, {'ids': list(event_ids)})[0]:
        return
    mend()
    if count := _draw_anew(BELOW_SUBSCRIPTION, {'ids': list(event_ids)}):
        logger.warning('sequence=low events=%s (below the numbers of their subscriptions: drew anew)', count)


def _set_forward(highest: int) -> int:
    """Return the last value before."""
    with connection.cursor() as cursor:
        cursor.execute(SET_FORWARD.format(highest=highest))
        cursor.nextset()  # the first is the lock's
        return cursor.fetchone()[0]


def _draw_anew(are_low: str, parameters: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(DRAW_ANEW.format(are_low=are_low), parameters)
        return cursor.rowcount


def _fetch(statement: str, parameters: Any = None) -> tuple:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()
