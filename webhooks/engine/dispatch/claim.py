"""Takes the next events in hand. An event waits while another worker has an earlier one of its object in hand."""

import time
from collections.abc import Collection

from ...models import Event, querysets
from .. import sql
from ..each import FullLook
from ..registry import GIVEN_UP, Registration

# Events in a batch of the oldest.
EVENTS_PER_BATCH = 200
# Events in a batch of the newest. A new change waits for all of its batch, so these are few.
NEWEST_EVENTS_PER_BATCH = 20
# A commit may come after others that drew a higher sequence. So a reader begins this many sequences before its mark.
# If a commit lags by more, its events wait for a full look.
LATE_SEQUENCES = 1000

# Let one dispatcher at a time choose events, until its transaction ends.
LOCK_CLAIMS = "SELECT pg_advisory_xact_lock('webhooks_event'::regclass::oid::integer, 0)"

# Find the oldest or the newest undispatched events. An event waits behind one of its object that another worker has in
# hand, or that is a suspect.
FIND_READY_EVENTS = """
    WITH held AS MATERIALIZED (
        SELECT object_type_id, object_id, sequence FROM webhooks_event
        WHERE dispatched_at IS NULL AND id = ANY(ARRAY(SELECT unnest(events) FROM webhooks_worker WHERE id <> %(id)s))
        UNION ALL
        SELECT object_type_id, object_id, sequence FROM webhooks_event
        WHERE dispatched_at IS NULL AND lapses > 0 AND lapses < %(given_up)s
    )
    SELECT e.id, e.sequence FROM webhooks_event e
    WHERE e.dispatched_at IS NULL AND e.sequence > %(since)s AND (e.retry_at IS NULL OR e.retry_at <= now())
      AND NOT EXISTS (
          SELECT FROM held h
          WHERE h.object_type_id = e.object_type_id AND h.object_id = e.object_id AND h.sequence <= e.sequence
      )
    ORDER BY e.sequence {direction} LIMIT %(most)s"""

# Find suspects that are due and that no other worker has in hand, the longest due first.
FIND_SUSPECTS = """
    SELECT id FROM webhooks_event
    WHERE dispatched_at IS NULL AND lapses > 0 AND lapses < %(given_up)s AND retry_at <= now()
      AND id <> ALL(ARRAY(SELECT unnest(events) FROM webhooks_worker WHERE id <> %(id)s))
    ORDER BY retry_at, sequence LIMIT %(most)s"""

# Read the objects of events.
READ_OBJECTS = 'SELECT id, object_type_id, object_id, sequence FROM webhooks_event WHERE id = ANY(%s)'

# Read the first event of each object outside a batch that comes before the end of the batch. One statement asks for all
# objects: with statistics from before an import, PostgreSQL reads everything that is undispatched for it.
READ_FIRST_OF_REST = """
    SELECT object_type_id, object_id, min(sequence) FROM webhooks_event
    WHERE dispatched_at IS NULL AND object_type_id = ANY(%(types)s) AND object_id = ANY(%(objects)s)
      AND id <> ALL(%(ids)s) AND sequence < %(last)s
    GROUP BY object_type_id, object_id"""

# Delete undispatched events that no webhook asks for, or whose object was created and deleted in one transaction.
DISCARD_EVENTS = 'DELETE FROM webhooks_event WHERE id = ANY(%s) AND dispatched_at IS NULL'


class Reading:
    """How far a dispatcher has read the outbox. Each call of take() goes on from there.

    While any transaction stays open, PostgreSQL's index keeps entries of dispatched events. So it does not read from
    the beginning each time.
    """

    def __init__(self) -> None:
        self._since = 0
        self._everything = FullLook()
        self._newest = False

    def take(self, registration: Registration) -> list[Event]:
        """Take a batch of events in hand, and return them by sequence. [] if there is nothing to do.

        Batches of the oldest and of the newest take turns: so a change does not wait for an import. The worker's row
        names them, in the open transaction. Their LONG_COLUMNS are not read. Raises Lost.
        """
        sql.execute(LOCK_CLAIMS)
        # If all of the newest events wait for an earlier one of their object, the oldest are read after all.
        if self._newest:
            newest = _read(registration, self._since, NEWEST_EVENTS_PER_BATCH, 'DESC')
            if events := _take(registration, [pk for pk, _sequence in newest]):
                self._newest = False
                return events
        began = time.monotonic()
        is_full = self._everything.is_due(began)
        found = _read(registration, 0 if is_full else self._since, EVENTS_PER_BATCH, 'ASC')
        if is_full:
            self._everything.note(began, time.monotonic())
            self._since = min(sequence for _id, sequence in found) - LATE_SEQUENCES if found else self._since
        self._newest = len(found) == EVENTS_PER_BATCH
        # All of them may be changes of one object, and wait for an earlier one that is put off. Others may follow.
        while not (events := _take(registration, [pk for pk, _sequence in found])) and len(found) == EVENTS_PER_BATCH:
            found = _read(registration, found[-1][1], EVENTS_PER_BATCH, 'ASC')
        return events


def _read(registration: Registration, since: int, most: int, direction: str) -> list[tuple[int, int]]:
    bounds = {'id': registration.pk, 'since': since, 'most': most, 'given_up': GIVEN_UP}
    return sql.fetch(FIND_READY_EVENTS.format(direction=direction), bounds)


def take_suspects(registration: Registration) -> list[Event]:
    """Take one suspect in hand: an event that was in hand at two deaths in a row, or took too long. Return it
    in a list.

    [] if none is due, or if each of the first EVENTS_PER_BATCH waits for an earlier event of its object.
    """
    sql.execute(LOCK_CLAIMS)
    for pk in _suspects(registration.pk):
        if events := _take(registration, [pk]):
            return events
    return []


def is_any_suspect() -> bool:
    """Whether there is a suspect event that is due, that no worker has in hand, and that is the first of its object."""
    return bool(in_turn(_suspects(0)))


def _suspects(worker: int) -> list[int]:
    return sql.fetch_column(FIND_SUSPECTS, {'id': worker, 'most': EVENTS_PER_BATCH, 'given_up': GIVEN_UP})


def discard(ids: Collection[int]) -> None:
    """Delete these events, which no webhook asks for, except dispatched ones."""
    if ids:
        sql.execute(DISCARD_EVENTS, [list(ids)])


def in_turn(ids: Collection[int]) -> list[int]:
    """Return the ids of events whose object has no earlier undispatched event outside `ids`."""
    mine = sql.fetch(READ_OBJECTS, [list(ids)])
    if not mine:
        return []
    _ids, types, objects, sequences = (list(set(column)) for column in zip(*mine, strict=True))
    columns = {'ids': list(ids), 'types': types, 'objects': objects, 'last': max(sequences)}
    rest = sql.fetch(READ_FIRST_OF_REST, columns)
    first = {(object_type, object_id): sequence for object_type, object_id, sequence in rest}
    return [pk for pk, *key, sequence in mine if sequence <= first.get(tuple(key), sequence)]


def _take(registration: Registration, pks: Collection[int]) -> list[Event]:
    events = list(querysets.events().filter(pk__in=in_turn(pks)).order_by('sequence'))
    registration.beat(events=[event.pk for event in events])
    return events
