"""Takes the next events in hand. An event waits while an earlier one of its object is in other hands."""

import time
from collections.abc import Collection, Iterable

from ...models import Event, querysets
from .. import sql
from ..full_look import FullLook
from ..registry import GIVEN_UP, Member

# Events in a batch of the oldest, and in one of the newest: a new change waits for all of its batch.
EVENTS_PER_BATCH, NEWEST_EVENTS_PER_BATCH = 200, 20
# Events whose commit lags by more sequences wait for a full look.
LATE_SEQUENCES = 1000

LOCK_CLAIMS = "SELECT pg_advisory_xact_lock('webhooks_event'::regclass::oid::integer, 0)"

# The oldest and the newest events. An object's events wait behind one in other hands, or a suspect.
READY_EVENTS = """
    WITH held AS MATERIALIZED (
        SELECT object_type_id, object_id, sequence FROM webhooks_event
        WHERE dispatched_at IS NULL AND id = ANY(ARRAY(SELECT unnest(events) FROM webhooks_worker WHERE id <> %(id)s))
        UNION ALL
        SELECT object_type_id, object_id, sequence FROM webhooks_event
        WHERE dispatched_at IS NULL AND lapses > 0 AND lapses < %(given_up)s
    )
    (SELECT e.id, e.sequence FROM webhooks_event e
     WHERE e.dispatched_at IS NULL AND e.sequence > %(since)s AND (e.retry_at IS NULL OR e.retry_at <= now())
       AND NOT EXISTS (
           SELECT FROM held h
           WHERE h.object_type_id = e.object_type_id AND h.object_id = e.object_id AND h.sequence <= e.sequence
       )
     ORDER BY e.sequence LIMIT %(oldest)s)
    UNION ALL
    (SELECT e.id, e.sequence FROM webhooks_event e
     WHERE e.dispatched_at IS NULL AND e.sequence > %(since)s AND (e.retry_at IS NULL OR e.retry_at <= now())
       AND NOT EXISTS (
           SELECT FROM held h
           WHERE h.object_type_id = e.object_type_id AND h.object_id = e.object_id AND h.sequence <= e.sequence
       )
     ORDER BY e.sequence DESC LIMIT %(newest)s)"""

READY_SUSPECTS = """
    SELECT id FROM webhooks_event
    WHERE dispatched_at IS NULL AND lapses > 0 AND lapses < %(given_up)s AND retry_at <= now()
      AND id <> ALL(ARRAY(SELECT unnest(events) FROM webhooks_worker WHERE id <> %(id)s))
    ORDER BY retry_at, sequence LIMIT %(most)s"""

READ_OBJECTS = 'SELECT id, object_type_id, object_id, sequence FROM webhooks_event WHERE id = ANY(%s)'

# For each object, its first event outside a batch that comes before the end of the batch. One question for all objects:
# with statistics of before an import, PostgreSQL reads everything that is undispatched for it.
READ_FIRST_OF_REST = """
    SELECT object_type_id, object_id, min(sequence) FROM webhooks_event
    WHERE dispatched_at IS NULL AND object_type_id = ANY(%(types)s) AND object_id = ANY(%(objects)s)
      AND id <> ALL(%(ids)s) AND sequence < %(last)s
    GROUP BY object_type_id, object_id"""

# Not asked for, or created and deleted in one transaction.
DISCARD_EVENTS = 'DELETE FROM webhooks_event WHERE id = ANY(%s) AND dispatched_at IS NULL'


class Reading:
    """How far the outbox was read: while any transaction is open, PostgreSQL's index keeps dispatched events."""

    def __init__(self) -> None:
        self._since = 0
        self._everything = FullLook()
        self._newest = False

    def take(self, member: Member) -> list[Event]:
        """Take events in hand, by sequence. Oldest and newest take turns: a change passes an import."""
        sql.execute(LOCK_CLAIMS)
        # Every newest event may wait for an earlier one.
        if self._newest and (events := _take(member, self._read(member, self._since, newest=NEWEST_EVENTS_PER_BATCH))):
            self._newest = False
            return events
        began = time.monotonic()
        is_full = self._everything.is_due(began)
        found = self._read(member, 0 if is_full else self._since, oldest=EVENTS_PER_BATCH)
        if is_full:
            self._everything.note(began, time.monotonic())
            self._since = min(sequence for _id, sequence in found) - LATE_SEQUENCES if found else self._since
        self._newest = len(found) == EVENTS_PER_BATCH
        return _take(member, found)

    def _read(self, member: Member, since: int, oldest: int = 0, newest: int = 0) -> list[tuple[int, int]]:
        bounds = {'since': since, 'oldest': oldest, 'newest': newest, 'given_up': GIVEN_UP}
        return sql.fetch(READY_EVENTS, {'id': member.pk, **bounds})


def take_suspects(member: Member) -> list[Event]:
    sql.execute(LOCK_CLAIMS)
    for row in _suspects(member.pk, EVENTS_PER_BATCH):
        if events := _take(member, [row]):
            return events
    return []


def is_any_suspect() -> bool:
    return bool(_suspects(0, 1))


def _suspects(worker: int, most: int) -> list[tuple]:
    return sql.fetch(READY_SUSPECTS, {'id': worker, 'most': most, 'given_up': GIVEN_UP})


def discard(ids: Collection[int]) -> None:
    if ids:
        sql.execute(DISCARD_EVENTS, [list(ids)])


def in_turn(ids: Collection[int]) -> list[int]:
    """Return the ids of events that have no earlier one outside `ids`."""
    mine = sql.fetch(READ_OBJECTS, [list(ids)])
    if not mine:
        return []
    _ids, types, objects, sequences = (list(set(column)) for column in zip(*mine, strict=True))
    columns = {'ids': list(ids), 'types': types, 'objects': objects, 'last': max(sequences)}
    rest = sql.fetch(READ_FIRST_OF_REST, columns)
    first = {(object_type, object_id): sequence for object_type, object_id, sequence in rest}
    return [pk for pk, *key, sequence in mine if sequence <= first.get(tuple(key), sequence)]


def _take(member: Member, found: Iterable[tuple]) -> list[Event]:
    ids = in_turn([pk for pk, *_sequence in found])
    events = list(querysets.events().filter(pk__in=ids).order_by('sequence'))
    member.beat(events=[event.pk for event in events])
    return events
