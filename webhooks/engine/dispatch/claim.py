"""Which events go next. They stand in the row of the worker that has them in hand, before it begins.

A later event of an object is never taken while an earlier one is in other hands: so the deliveries of an object are
made in the order of its events, however many dispatch.
"""

import time
from collections import deque
from collections.abc import Collection, Container

from ...models import Event, querysets
from .. import sql
from ..registry import COMPANY, GIVEN_UP, Member

# Events that are taken together.
MOST = 200
# Seconds that a commit may come after its sequence was drawn. What comes later waits for a full look: one a second, or
# after FULL_TIMES as long as the last one took.
LATE, FULL, FULL_TIMES = 2.0, 1.0, 20
# Seconds until a suspect is tried again whose transaction was broken off while it was alone.
WAIT = 30.0

IN_HANDS = 'SELECT unnest(events) FROM webhooks_worker WHERE id <> %(id)s'

# Undispatched events that may go: those of whose objects nobody has an earlier one in hand.
READY = """
    WITH held AS MATERIALIZED (
        SELECT object_type_id, object_id, sequence FROM webhooks_event
        WHERE id = ANY(%(others)s) AND dispatched_at IS NULL
        UNION ALL
        SELECT object_type_id, object_id, sequence FROM webhooks_event
        WHERE dispatched_at IS NULL AND lapses > 0 AND lapses < %(given_up)s
    )
    SELECT e.id FROM webhooks_event e
    WHERE e.dispatched_at IS NULL AND e.sequence > %(since)s AND (e.lapses = 0 OR e.lapses >= %(given_up)s)
      AND (e.retry_at IS NULL OR e.retry_at <= now())
      AND NOT EXISTS (
          SELECT FROM held h
          WHERE h.object_type_id = e.object_type_id AND h.object_id = e.object_id AND h.sequence < e.sequence
      )
      AND e.id <> ALL(%(others)s)
    ORDER BY e.sequence {direction} LIMIT %(most)s
    FOR UPDATE OF e SKIP LOCKED"""

# What was in hand when a process stopped: all that are in company, or the first that has to go alone. None whose object
# has an earlier one that does not go now.
SUSPECTS = """
    SELECT e.id FROM webhooks_event e
    WHERE e.dispatched_at IS NULL AND e.lapses > 0 AND e.lapses < %(given_up)s AND e.retry_at <= now()
      AND (e.lapses = %(company)s) = %(together)s AND NOT e.id = ANY(%(others)s)
      AND NOT EXISTS (
          SELECT FROM webhooks_event p
          WHERE p.object_type_id = e.object_type_id AND p.object_id = e.object_id AND p.sequence < e.sequence
            AND p.dispatched_at IS NULL AND NOT (%(together)s AND p.lapses = %(company)s)
      )
    ORDER BY e.sequence LIMIT %(most)s
    FOR UPDATE OF e SKIP LOCKED"""

# In a statement after the one that locks, which sees what others have taken in hand meanwhile.
IN_TURN = f"""
    WITH mine AS MATERIALIZED (
        SELECT id, object_type_id, object_id, sequence FROM webhooks_event
        WHERE id = ANY(%(ids)s) AND dispatched_at IS NULL AND id NOT IN ({IN_HANDS})
    )
    SELECT m.id FROM mine m WHERE NOT EXISTS (
        SELECT FROM webhooks_event p
        WHERE p.object_type_id = m.object_type_id AND p.object_id = m.object_id AND p.sequence < m.sequence
          AND p.dispatched_at IS NULL AND p.id NOT IN (SELECT id FROM mine)
    )"""

# Suspects in company from now on; those that are so go alone; and one that was alone waits.
SET_ASIDE = """
    UPDATE webhooks_event
    SET lapses = CASE WHEN lapses <= %(company)s THEN lapses + 1 ELSE lapses END,
        retry_at = now() + make_interval(secs => CASE WHEN lapses <= %(company)s THEN 0 ELSE %(wait)s END)
    WHERE id = ANY(%(ids)s) AND dispatched_at IS NULL AND lapses < %(given_up)s"""

ANY_SUSPECT = """
    SELECT EXISTS (
        SELECT FROM webhooks_event
        WHERE dispatched_at IS NULL AND lapses > 0 AND lapses < %(given_up)s AND retry_at <= now()
          AND NOT id = ANY(ARRAY(SELECT unnest(events) FROM webhooks_worker))
    )"""


class Reading:
    """How far the outbox was read: PostgreSQL need not pass again over all that is dispatched.

    As long as any transaction is open, in a dump for example, its indexes keep what is dispatched.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._full_at = self._full_took = 0.0
        # Whether the next look is at the newest, and whether the last one was.
        self._newest = self.was_newest = False

    def take(self, member: Member, most: int) -> list[int]:
        """Return the ids of events that may go, locked: the oldest and the newest in turns."""
        began = time.monotonic()
        while len(self._seen) > 1 and self._seen[1][0] < began - LATE:
            self._seen.popleft()
        is_full = began > self._full_at + max(FULL, FULL_TIMES * self._full_took)
        since = 0 if is_full else self._seen[0][1]
        others = sql.fetch_column(IN_HANDS, {'id': member.pk})
        parameters = {'others': others, 'since': since, 'most': most, 'given_up': GIVEN_UP}
        self.was_newest = self._newest
        direction = 'DESC' if self._newest else 'ASC'
        found = sql.fetch_column(READY.format(direction=direction), parameters)
        if is_full:
            self._full_at, self._full_took = time.monotonic(), time.monotonic() - began
        # Where there is more than that, a change is among the newest.
        self._newest = len(found) == most and not self._newest
        return found

    def note(self, events: Collection[Event], left: Container[int]) -> None:
        """What was taken is dispatched, but for what is left (ids). So is all before, but for what comes late."""
        if self.was_newest:
            return
        stays = [event.sequence for event in events if event.pk in left]
        sequence = min(stays) - 1 if stays else max(event.sequence for event in events)
        self._seen.append((time.monotonic(), max(sequence, self._seen[-1][1])))


def take(member: Member, reading: Reading, most: int) -> list[Event]:
    """Take events in hand, in the order of their sequence, without their long columns. In a transaction of its own."""
    events = _take(member, reading.take(member, most))
    # Each of the newest may have an earlier one of its object before it.
    return events or (_take(member, reading.take(member, most)) if reading.was_newest else [])


def take_suspects(member: Member) -> list[Event]:
    """Take in hand what was so when a worker stopped: all such events, or one that is to go alone."""
    others = sql.fetch_column(IN_HANDS, {'id': member.pk})
    for together, most in ((True, MOST), (False, 1)):
        parameters = {
            'others': others, 'most': most, 'given_up': GIVEN_UP, 'company': COMPANY, 'together': together,
        }  # fmt: skip
        if events := _take(member, sql.fetch_column(SUSPECTS, parameters)):
            return events
    return []


def set_aside(ids: Collection[int]) -> None:
    """These were in hand when a transaction was broken off. How often that happens to one counts for nothing."""
    sql.execute(SET_ASIDE, {'ids': list(ids), 'company': COMPANY, 'given_up': GIVEN_UP, 'wait': WAIT})


def is_any_suspect() -> bool:
    """Whether any is to be tried now, and nobody has it in hand."""
    return sql.fetch_value(ANY_SUSPECT, {'given_up': GIVEN_UP})


def _take(member: Member, ids: Collection[int]) -> list[Event]:
    mine = sql.fetch_column(IN_TURN, {'ids': list(ids), 'id': member.pk}) if ids else []
    member.beat(events=mine)
    return list(querysets.events().filter(pk__in=mine).order_by('sequence')) if mine else []
