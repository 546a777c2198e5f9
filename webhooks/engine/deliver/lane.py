"""Keeps a lane's state in its owner's memory: due deliveries, requests in hand, and how many may go.

Pure: no database, no clock. `now` is in seconds by time.monotonic().
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from ...constants import TEMPLATE_SECONDS

if TYPE_CHECKING:
    from ...payload.http_request import Builder

# A worker knows at most this many waiting deliveries of a lane's changes, and as many of its backfill.
DELIVERIES_PER_LANE = 200
# If it knows fewer, it reads more.
LOW_DELIVERIES = 64
# If there are more, it reads this share from the newest. So a user's change passes another user's import.
NEWEST_SHARE = 1 / 4
# A commit may come this long after its deliveries are due. So a look begins this long before the mark.
COMMIT_LAG = timedelta(seconds=2)
# A mark from which everything is read.
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# A lane without work for this time is left: any worker may have the next change.
IDLE_SECONDS = 1.0
# A part of a change set holds at most these deliveries and bytes of payloads. The first always fits.
# Kafka refuses a message above 1,000,000 bytes, NATS and nginx above 1 MiB. So it stays below, with its headers.
PART_DELIVERIES = 1000
PART_BYTES = 900_000
# Payloads above this are large: choice.py bounds how many are in hand.
LARGE_BYTES = 256 * 1024
# After a build that took longer, a thread builds the webhook's next request.
SLOW_BUILD_SECONDS = 0.02
# A build that took nearly as long as templates may take ran out of time. After two in a row the webhook rests.
ENDLESS_BUILD_SECONDS = 0.95 * TEMPLATE_SECONDS
ENDLESS_REST_SECONDS = 60.0


class Due(NamedTuple):
    """A due delivery, which may stand for others. `size`: of its payload, about, in bytes.

    `lead`: the first delivery of its part of a change set. None: it has no part. `is_failed`: its event was not
    rendered.
    """

    pk: int
    webhook_id: int
    due_at: datetime
    object_type_id: int
    object_id: int
    backfill: bool
    lead: int | None
    size: int
    is_failed: bool
    # Its transaction, if its changes go together (change_sets.py).
    change_set: int | None = None
    # Its companions' ids. `size` is of all.
    others: Sequence[int] = ()

    @property
    def pks(self) -> list[int]:
        """Return the ids of all deliveries of the request, its own first."""
        return [self.pk, *self.others]

    @property
    def is_formed(self) -> bool:
        """Whether its companions are known: its change set has parts, or it is in none."""
        return self.change_set is None or self.lead is not None


class ReadRequest(NamedTuple):
    """A request of a lane to read due deliveries, either of changes or of a backfill.

    `room`: how many of the oldest after the mark, which is (`since`, `since_id`). `newest`: how many of the newest, if
    there are more.
    """

    webhook_id: int
    backfill: bool
    room: int
    newest: int
    since: datetime
    since_id: int


class State(NamedTuple):
    """A webhook's state, as a turn reads it: when it was saved, whether it may be sent to, and whether by probes only.

    `is_saved`: somebody has saved it since its last attempt.
    """

    saved_at: datetime | None
    is_active: bool
    is_suspended: bool
    is_saved: bool = False


# The state of a lane whose definition is not read yet, or whose webhook is deleted.
INACTIVE = State(None, False, False)


@dataclass
class Bucket:
    """A rate limit. It holds a fifth of a second: no second sees many more than the rate."""

    tokens: float = math.inf
    filled_at: float = 0.0

    def fill(self, rate: int | None, now: float) -> float:
        """Add tokens since the last call, `rate` a second (None: no limit). Returns how many requests may begin."""
        if rate is None:
            return math.inf
        self.tokens = min(self.tokens + rate * (now - self.filled_at), max(rate / 5, 1.0))
        self.filled_at = now
        return math.floor(self.tokens)


@dataclass
class Mark:
    """How far a lane was read, by the time that deliveries are due, and whether there was more."""

    due_at: datetime = BEGINNING
    pk: int = 0
    has_more: bool = True

    def since(self, *, everything: bool) -> tuple[datetime, int]:
        """Return (due_at, id) of the last delivery that need not be read again."""
        if everything:
            return BEGINNING, 0
        return (self.due_at, self.pk) if self.has_more else (self.due_at - COMMIT_LAG, 0)

    def move(self, due: Sequence[Due], room: int) -> None:
        """Note the deliveries that were read for a read request with so much room, the oldest first."""
        self.has_more = len(due) >= room
        if due:
            last = due[:room][-1]
            self.due_at, self.pk = max((self.due_at, self.pk), (last.due_at, last.pk))


def _no_marks() -> dict[bool, Mark]:
    """Return new marks: for changes (False), and for a backfill (True)."""
    return {False: Mark(), True: Mark()}


@dataclass(eq=False)
class Lane:
    """A webhook that this worker sends to: `builder` to `is_feed` come from its definition.

    A delivery is first in `waiting`, then in `in_hand` from begin() to end().
    """

    webhook_id: int
    # When it last had work.
    used_at: float
    # None: the definition is still to be read.
    builder: 'Builder | None' = None
    concurrency: int = 1
    rate_limit: int | None = None
    latest_only: bool = False
    quiet: int | None = None
    is_feed: bool = False
    state: State = INACTIVE
    # Requests that may be under way: one more for each answer, up to the concurrency (slow start).
    window: int = 1
    # Answers since the last turn. Twice as many requests may wait for a thread: the endpoint is not idle.
    answered: int = 0
    # Due deliveries that are read, by id, the next one first.
    waiting: dict[int, Due] = field(default_factory=dict)
    # Those whose request is under way, or is to begin: by id, each with its others.
    in_hand: dict[int, Due] = field(default_factory=dict)
    # When the last request began.
    began_at: float = 0.0
    bucket: Bucket = field(default_factory=Bucket)
    # No request begins before.
    rests_until: float = 0.0
    # Whether its last request was slow to build, and how many templates in a row ran out of time.
    is_slow: bool = False
    endless: int = 0
    # Transactions of change sets that were not dispatched to the end at the last look.
    unfinished: Collection[int] = ()
    marks: dict[bool, Mark] = field(default_factory=_no_marks)

    def define(self, builder: 'Builder') -> None:
        """Take over a webhook's definition, new or saved anew. Other deliveries may go now, so all are read anew."""
        self.builder = builder
        for name in ('concurrency', 'rate_limit', 'latest_only', 'quiet', 'is_feed'):
            setattr(self, name, getattr(builder.webhook, name))
        self.forget()

    def note_state(self, state: State) -> None:
        """Take over the state of this turn. If the webhook is not active, its waiting deliveries are forgotten."""
        if not state.is_active:
            self.forget()
        self.state = state

    #
    # Waiting deliveries
    #

    def read_requests(self, *, everything: bool) -> Iterator[ReadRequest]:
        """Yield the reads that are needed if few deliveries are known. `everything`: from the beginning, not a mark."""
        if not self.state.is_active:
            return
        for backfill, mark in self.marks.items():
            room = DELIVERIES_PER_LANE - sum(one.backfill == backfill for one in self.waiting.values())
            if room > DELIVERIES_PER_LANE - LOW_DELIVERIES:
                newest = int(room * NEWEST_SHARE) if mark.has_more and not backfill else 0
                since = mark.since(everything=everything)
                yield ReadRequest(self.webhook_id, backfill, room, newest, *since)

    def learn(self, request: ReadRequest, due: Sequence[Due], now: float, held: Collection[int] = ()) -> None:
        """Take in the deliveries that were read for a read request, without the `held` ids, and move the mark."""
        self.waiting |= {one.pk: one for one in due if one.pk not in held}
        self.marks[request.backfill].move(due, request.room)
        if due:
            self.used_at = now

    @property
    def known(self) -> list[int]:
        """Return the ids of all deliveries that wait or are in hand: they need not be read."""
        return [pk for one in (*self.in_hand.values(), *self.waiting.values()) for pk in one.pks]

    @property
    def unformed(self) -> list[Due]:
        """Return the waiting deliveries that stand for a change set without parts, one for each set."""
        return [one for one in self.waiting.values() if not one.is_formed]

    @property
    def has_whole(self) -> bool:
        """Whether a delivery waits whose change set no longer grows."""
        return any(one.is_formed or one.change_set not in self.unfinished for one in self.waiting.values())

    def folds(self, one: Due, waits: Collection[int]) -> bool:
        """Return whether all waiting changes of the due delivery's object are to become one now.

        With `latest_only` always; for a quiet object once its first delivery may go. `waits`: the ids of deliveries
        that are due, but have to wait.
        """
        if self.quiet is None:
            return self.latest_only
        return one.pk not in waits and not one.backfill

    def forget(self) -> None:
        """Forget waiting deliveries and marks: all are read anew once they may go."""
        self.waiting.clear()
        self.marks = _no_marks()

    @property
    def has_changes(self) -> bool:
        """Whether a delivery waits that is not of a backfill."""
        return any(not one.backfill for one in self.waiting.values())

    @property
    def sends_backfill(self) -> bool:
        """Whether a request of a backfill is in hand."""
        return any(one.backfill for one in self.in_hand.values())

    def is_idle(self, now: float) -> bool:
        """Whether the lane is to be left: it has had no work for IDLE_SECONDS."""
        return not self.in_hand and not self.waiting and now > self.used_at + IDLE_SECONDS

    #
    # Requests
    #

    def room(self, now: float) -> int:
        """Return how many more requests may go: by the window, a suspension, the rate limit and a rest."""
        if now < self.rests_until:
            return 0
        most = 1 if self.state.is_suspended else self.window + 2 * self.answered
        return max(min(most - len(self.in_hand), self.bucket.fill(self.rate_limit, now)), 0)

    def next(self) -> Iterator[Due]:
        """Yield the waiting deliveries that may go, changes before backfills. A change set waits until it has parts."""
        waiting = sorted(self.waiting.values(), key=lambda one: one.backfill)
        return (one for one in waiting if one.is_formed)

    def withdraw(self) -> list[int]:
        """Take out all waiting deliveries that have data, for a feed to publish, and return their ids.

        The rest stays: their requests fail, which records the reason.
        """
        going = [one for one in self.waiting.values() if not one.is_failed]
        for one in going:
            del self.waiting[one.pk]
        return [pk for one in going for pk in one.pks]

    def begin(self, due: Due, now: float) -> None:
        """Take a delivery and its companions in hand: their request is to begin. It uses up one of the rate limit."""
        for pk in due.pks:
            self.waiting.pop(pk, None)
        self.in_hand[due.pk] = due
        self.bucket.tokens -= 1
        self.used_at = self.began_at = now

    def end(self, pk: int) -> Due:
        """Take a delivery out of hand, by the id of its request's first, and return it. Raises KeyError."""
        return self.in_hand.pop(pk)

    def put_back(self, pk: int) -> None:
        """Let a delivery in hand wait again, as the first: its request did not begin. Its place is free again."""
        self.waiting = {pk: self.end(pk)} | self.waiting
        self.bucket.tokens += 1

    def note_answer(self, *, reached: bool) -> None:
        """Widen the window by one if the endpoint has answered (`reached`), or else halve it (slow start)."""
        self.answered += reached
        self.window = min(self.window + 1, self.concurrency) if reached else max(self.window // 2, 1)

    def note_built(self, seconds: float, now: float) -> bool:
        """Note how long a build took. Returns whether the lane rests from now on: its template seems endless."""
        self.is_slow = seconds > SLOW_BUILD_SECONDS
        self.endless = self.endless + 1 if seconds > ENDLESS_BUILD_SECONDS else 0
        if self.endless < 2:
            return False
        self.rests_until = now + ENDLESS_REST_SECONDS
        return True

    @property
    def large(self) -> int:
        """Return the bytes of the large payloads in hand."""
        return sum(one.size for one in self.in_hand.values() if one.size > LARGE_BYTES)
