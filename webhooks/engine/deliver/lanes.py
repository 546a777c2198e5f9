"""Takes and leaves lanes for a worker: which webhooks it sends to. turn.py chooses what goes next in them."""

import time
from collections.abc import Collection, Iterable
from datetime import datetime

from ... import delivery_states as states
from ...models import Health, Webhook
from ...payload.http_request import Builder
from .. import sql
from ..each import FullLook
from ..registry import ALIVE_SECONDS, Registration
from . import queue
from .lane import BEGINNING, COMMIT_LAG, INACTIVE, Lane, State
from .turn import Turn

# Lanes that a look takes at most.
LANES_PER_TAKE = 200
# Between two looks for free lanes.
TAKE_SECONDS = 0.05
# A lane that is given up is for others during this time: each looks at all lanes within that time, if it is not slow.
GIVEN_SECONDS = 2.0
# A worker that ends when nothing is due waits for lanes that rest no longer than this.
SHORT_REST_SECONDS = 1.0
# A sender without a heartbeat for this time does not count for a fair share of lanes: it may be frozen.
HEARTBEAT_WITHIN_SECONDS = 4.0

# Somebody has saved the webhook `w` after the last attempt of its lane `h`: a retry may do better now.
IS_SAVED = 'w.last_updated > h.last_attempt_at AND w.last_updated <= %(now)s'

# The webhook `w` with the lane `h` may be sent to. A suspended one may if its probe is due, or if somebody has just
# saved it. A webhook with the id of a deleted one may once the log of the deleted one is removed (engine/tidy).
MAY_SEND = f"""w.enabled AND NOT w.paused AND (h.gone_at > w.last_updated) IS NOT TRUE AND h.former_until IS NULL AND (
        h.suspended_since IS NULL OR h.probe_at <= %(now)s OR {IS_SAVED}
    )"""

# Take free lanes with a delivery that became due since then, of webhooks that may be sent to.
TAKE_LANES = f"""
    UPDATE webhooks_health SET owner_id = %(owner)s WHERE webhook_id = ANY(ARRAY(
        SELECT h.webhook_id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
        WHERE h.owner_id IS NULL AND h.webhook_id <> ALL(%(given)s)
          AND {MAY_SEND} AND EXISTS (
              SELECT FROM webhooks_delivery d
              WHERE d.webhook_id = h.webhook_id AND d.status {states.TIMED} AND d.backfill IN (false, true)
                AND d.due_at > %(since)s AND d.due_at <= %(now)s
          )
        ORDER BY random() LIMIT %(most)s
        FOR UPDATE OF h SKIP LOCKED
    ))
    RETURNING webhook_id"""

# Take free lanes of webhooks that were saved, with deliveries that RETRY makes due.
TAKE_SAVED = f"""
    UPDATE webhooks_health SET owner_id = %(owner)s WHERE webhook_id = ANY(ARRAY(
        SELECT h.webhook_id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
        WHERE h.owner_id IS NULL AND h.webhook_id <> ALL(%(given)s) AND {MAY_SEND} AND {IS_SAVED}
          AND EXISTS (SELECT FROM webhooks_delivery d WHERE d.webhook_id = h.webhook_id AND {queue.IS_TRIED})
        LIMIT %(most)s
        FOR UPDATE OF h SKIP LOCKED
    ))
    RETURNING webhook_id"""

# Lock a worker's lanes, and its row: so its rescue waits for the commit, or passes by.
LOCK_OWNED = """
    SELECT h.webhook_id FROM webhooks_worker w JOIN webhooks_health h ON h.owner_id = w.id
    WHERE w.id = %s FOR UPDATE SKIP LOCKED"""

# Leave lanes to other workers.
LEAVE_LANES = 'UPDATE webhooks_health SET owner_id = NULL WHERE webhook_id = ANY(%s)'

# Read whether webhooks may be sent to, are suspended, and were saved since their last attempt.
READ_STATES = f"""
    SELECT w.id, w.last_updated, {MAY_SEND}, h.suspended_since IS NOT NULL, ({IS_SAVED}) IS TRUE
    FROM webhooks_webhook w JOIN webhooks_health h ON h.webhook_id = w.id WHERE w.id = ANY(%(lanes)s)"""

# Count the lanes that are owned, and the senders with a recent heartbeat.
COUNT_OWNERS = f"""
    SELECT (SELECT count(*) FROM webhooks_health WHERE owner_id IS NOT NULL),
        (SELECT count(*) FROM webhooks_worker
         WHERE role = 'send'
           AND alive_until > clock_timestamp() + interval '{ALIVE_SECONDS - HEARTBEAT_WITHIN_SECONDS:g} seconds')"""


class Lanes:
    """The lanes that a worker owns. Each turn is opened, then chooses or leaves, and is applied after its commit.

    `owned`: each lane by its webhook's id.
    """

    def __init__(self, registration: Registration) -> None:
        self.owned: dict[int, Lane] = {}
        self._registration = registration
        self._looked_at = 0.0
        self._all_lanes, self._all_due = FullLook(), FullLook()
        # The last turn has locked these.
        self._locked: set[int] = set()
        # Lanes for others, and until when.
        self._given: dict[int, float] = {}
        self._since = BEGINNING

    @property
    def in_hand(self) -> list[int]:
        """Return the ids of all deliveries whose requests have begun, or are to begin now."""
        return [pk for lane in self.owned.values() for one in lane.in_hand.values() for pk in one.pks]

    @property
    def is_busy(self) -> bool:
        """Whether anything is in hand, or soon may be: a worker that ends when nothing is due waits for that.

        It does not wait for the rest of a transaction, which may be put off for minutes.
        """
        if self.owned.keys() - self._locked:
            return True
        soon = time.monotonic() + SHORT_REST_SECONDS
        return any(lane.in_hand or (soon >= lane.rests_until and lane.has_whole) for lane in self.owned.values())

    def look_again(self) -> None:
        """Let the next turn look for free lanes, however recently the last one did."""
        self._looked_at = 0.0

    def forget(self) -> None:
        """Forget which deliveries the turn has read: its transaction was interrupted. The next turn reads all anew."""
        self._looked_at, self._since = 0.0, BEGINNING
        for lane in self.owned.values():
            lane.forget()

    def clear(self) -> None:
        """Forget all lanes: this worker was declared dead, and others have them."""
        self.owned.clear()
        self.forget()

    def open_turn(self, now: datetime) -> Turn:
        """Lock the worker's lanes, except those locked by somebody else, and return a turn with them.

        PostgreSQL says which are this worker's. So if a commit was cut off, this shows whether it was done.
        """
        clock = time.monotonic()
        locked = lock_owned(self._registration.pk)
        for pk in self.owned.keys() - locked:
            self.owned[pk].used_at = clock  # it may have due deliveries
        return Turn(now, clock, {pk: self.owned.get(pk) or Lane(pk, used_at=clock) for pk in locked})

    def choose_next(self, turn: Turn, free: int) -> None:
        """Take and leave lanes, and choose the requests that go next in those owned. `free`: how many threads are free.

        All that is in the open transaction. If it is interrupted, drop the turn, and call forget().
        """
        self._take(turn)
        self._define(turn)
        turn.choose_next(self._in_use(turn), free, self._all_due)

    def leave_all(self, turn: Turn) -> None:
        """Let others have all lanes with nothing in hand."""
        self._let_go(turn, {pk for pk, lane in turn.lanes.items() if not lane.in_hand})

    def apply(self, turn: Turn) -> None:
        """Take over what the turn did, after its commit: own the lanes that it took, and have in hand what it chose."""
        self.owned |= turn.lanes
        self._locked = set(turn.lanes)
        for lane in turn.lanes.values():
            lane.answered = 0
        for due, call in turn.chosen:
            call.lane.begin(due, turn.clock)

    def _in_use(self, turn: Turn) -> list[Lane]:
        """Return the lanes that the turn works on: it has locked them, and they are not for others."""
        return [lane for pk, lane in turn.lanes.items() if pk not in self._given]

    def _take(self, turn: Turn) -> None:
        """Own lanes with due deliveries, as many as others own, and leave idle ones."""
        if turn.clock < self._looked_at + TAKE_SECONDS:
            return
        self._looked_at = turn.clock
        everything = self._all_lanes.is_due(turn.clock)
        self._leave(turn)
        if everything:
            self._give(turn.clock)
        since = BEGINNING if everything else self._since - COMMIT_LAG
        taken = take(self._registration.pk, since, LANES_PER_TAKE, turn.now, self._given)
        # If there are more, the next look goes on.
        self._since = turn.now if len(taken) < LANES_PER_TAKE else since
        if everything:
            taken |= take_saved(self._registration.pk, LANES_PER_TAKE, turn.now, self._given)
        turn.lanes |= {pk: Lane(pk, used_at=turn.clock) for pk in taken}
        if everything:
            self._all_lanes.note(turn.clock, time.monotonic())

    def _give(self, clock: float) -> None:
        """Give up surplus lanes: the ones it can leave soonest, each in its turn.

        Otherwise a worker that an operator adds because of a backlog gets none: its lanes are never idle.
        """
        surplus = len(self.owned) - share(len(self.owned))
        soonest = sorted(self.owned, key=lambda pk: (pk in self._given, len(self.owned[pk].in_hand)))
        for pk in soonest[: max(surplus, 0)]:
            self._given[pk] = clock + GIVEN_SECONDS
            self.owned[pk].forget()

    def _leave(self, turn: Turn) -> None:
        self._given = {pk: until for pk, until in self._given.items() if until > turn.clock}
        given = {pk for pk in turn.lanes.keys() & self._given.keys() if not turn.lanes[pk].in_hand}
        self._let_go(turn, given | {pk for pk, lane in turn.lanes.items() if lane.is_idle(turn.clock)})

    def _let_go(self, turn: Turn, left: set[int]) -> None:
        """Leave lanes with nothing in hand, in memory at once.

        If the turn is interrupted, open_turn() finds them again. If its commit was cut off after it was done, others
        have them: kept in memory until apply(), they would stay there.
        """
        if left:
            sql.execute(LEAVE_LANES, [list(left)])
        for pk in left:
            del turn.lanes[pk]
            self.owned.pop(pk, None)

    def _define(self, turn: Turn) -> None:
        lanes = self.owned | turn.lanes
        found = read_states(lanes, turn.now) if lanes else {}
        stale = [pk for pk in found if not lanes[pk].builder or lanes[pk].state.saved_at != found[pk].saved_at]
        for pk, webhook in Webhook.objects.select_related('health').in_bulk(stale).items():
            lanes[pk].define(Builder(webhook))
        for pk, lane in lanes.items():
            lane.note_state(found[pk] if lane.builder and pk in found else INACTIVE)
        queue.retry([lane.webhook_id for lane in self._in_use(turn) if lane.state.is_saved], turn.now)


def take(owner: int, since: datetime, most: int, now: datetime, given: Iterable[int]) -> set[int]:
    """Make free lanes with due deliveries the owner's, `most` of them, at random. Returns their webhooks' ids.

    `owner`: the worker's id. `since`: only lanes with a delivery that became due after that. `given`: lanes for others.
    """
    parameters = {'owner': owner, 'since': since, 'most': most, 'now': now, 'given': list(given)}
    return set(sql.fetch_column(TAKE_LANES, parameters))


def take_saved(owner: int, most: int, now: datetime, given: Iterable[int]) -> set[int]:
    """Make free lanes the owner's as take(), of webhooks that were saved while deliveries wait for a retry."""
    return set(sql.fetch_column(TAKE_SAVED, {'owner': owner, 'most': most, 'now': now, 'given': list(given)}))


def lock_owned(owner: int) -> set[int]:
    """Lock a worker's lanes, except those already locked. Returns their webhooks' ids."""
    return set(sql.fetch_column(LOCK_OWNED, [owner]))


def share(mine: int) -> int:
    """Return how many lanes a sender with `mine` lanes is to have: as many as each other sender."""
    lanes, workers = sql.fetch(COUNT_OWNERS)[0]
    return -(-lanes // workers) if workers > 1 else max(lanes, mine)


def read_states(lanes: Collection[int], now: datetime) -> dict[int, State]:
    """Return the states of the webhooks with these ids, by id. A deleted webhook has none."""
    return {pk: State(*state) for pk, *state in sql.fetch(READ_STATES, {'lanes': list(lanes), 'now': now})}


def ensure_lanes() -> None:
    """Give a lane to webhooks that were made without signals. Several senders may do so at once.

    If a deleted webhook had the same id, none of its log is left: its lane was deleted last.
    """
    missing = Webhook.objects.filter(health=None).values_list('pk', flat=True)
    Health.objects.bulk_create([Health(webhook_id=pk) for pk in missing], ignore_conflicts=True)
