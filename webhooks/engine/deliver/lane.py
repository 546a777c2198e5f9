"""A lane, as its owner knows it. Pure: no database, no clock. `now` is by time.monotonic()."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...payload.http_request import Builder

# Deliveries of a lane that a worker knows. Below LOW it looks for more.
DELIVERIES_PER_LANE, LOW_DELIVERIES = 200, 64
# The newest among them, if there are more: so a change passes a backlog.
NEWEST_SHARE = 1 / 4
# A commit may come so long after its deliveries are due.
COMMIT_LAG = timedelta(seconds=2)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds without work after which a lane is left: any worker may have the next change.
IDLE_SECONDS = 1.0
# Deliveries of a batch, and bytes of their payloads. The first always fits.
BATCH_DELIVERIES, BATCH_BYTES = 1000, 1024 * 1024
# Bytes from which a payload is large.
LARGE_BYTES = 256 * 1024
# Seconds of a build that make its webhook slow: a thread builds from then on.
SLOW_BUILD_SECONDS = 0.02
# Seconds of a build that ran out of time (templating/renderer.py). After two in a row the webhook rests.
ENDLESS_BUILD_SECONDS, ENDLESS_REST_SECONDS = 1.9, 60.0


class Due(NamedTuple):
    """A due delivery. `size`: of its payload, about, in bytes. `is_failed`: its event was not rendered."""

    pk: int
    webhook_id: int
    due_at: datetime
    object_type_id: int
    object_id: int
    backfill: bool
    batch: int | None
    size: int
    transaction_id: int
    kind: str
    is_failed: bool
    # Its transaction, if its changes go together (change_sets.py).
    change_set: int | None = None
    # Its companions' ids. `size` is of all.
    others: Sequence[int] = ()

    @property
    def pks(self) -> list[int]:
        return [self.pk, *self.others]

    @property
    def is_formed(self) -> bool:
        """Whether its companions are known."""
        return self.change_set is None or self.batch is not None


class Wish(NamedTuple):
    """Read changes or a backfill: the oldest after the mark, and some of the newest."""

    webhook_id: int
    backfill: bool
    room: int
    newest: int
    since: datetime
    since_id: int


class State(NamedTuple):
    saved_at: datetime | None
    is_active: bool
    is_suspended: bool
    # Since the last attempt.
    is_saved: bool = False


INACTIVE = State(None, False, False)


@dataclass
class Bucket:
    """A rate limit. It holds a fifth of a second: no second sees many more than the rate."""

    tokens: float = math.inf
    filled_at: float = 0.0

    def fill(self, rate: int | None, now: float) -> float:
        """Return how many requests may begin."""
        if rate is None:
            return math.inf
        self.tokens = min(self.tokens + rate * (now - self.filled_at), max(rate / 5, 1.0))
        self.filled_at = now
        return math.floor(self.tokens)


@dataclass
class Mark:
    """How far a lane was read, and whether there was more."""

    due_at: datetime = BEGINNING
    pk: int = 0
    has_more: bool = True

    def since(self, *, everything: bool) -> tuple[datetime, int]:
        """Return (due_at, id) of the last delivery that need not be read again."""
        if everything:
            return BEGINNING, 0
        return (self.due_at, self.pk) if self.has_more else (self.due_at - COMMIT_LAG, 0)

    def move(self, due: Sequence[Due], room: int) -> None:
        """These were read, the oldest first."""
        self.has_more = len(due) >= room
        if due:
            last = due[:room][-1]
            self.due_at, self.pk = max((self.due_at, self.pk), (last.due_at, last.pk))


def _no_marks() -> dict[bool, Mark]:
    """For changes, and for a backfill."""
    return {False: Mark(), True: Mark()}


@dataclass(eq=False)
class Lane:
    """A webhook that this worker sends to. The first fields come from its definition."""

    webhook_id: int
    used_at: float
    # None: the definition is still to be read.
    builder: 'Builder | None' = None
    concurrency: int = 1
    rate_limit: int | None = None
    batch: bool = False
    latest_only: bool = False
    is_feed: bool = False
    state: State = INACTIVE
    # Requests that may be under way: one more for each answer, up to the concurrency (slow start).
    window: int = 1
    # Answers since the last turn. Twice as many requests may wait for a thread: the endpoint is not idle.
    answered: int = 0
    # {id of the delivery: it}, the next one first.
    waiting: dict[int, Due] = field(default_factory=dict)
    # Each goes in a request, with its others.
    in_hand: dict[int, Due] = field(default_factory=dict)
    began_at: float = 0.0
    bucket: Bucket = field(default_factory=Bucket)
    # No request begins before.
    rests_until: float = 0.0
    # Whether its last request was slow to build, and how many templates in a row ran out of time.
    is_slow: bool = False
    endless: int = 0
    # Transactions whose deliveries are all known: a batch waits for that.
    whole: Collection[int] = ()
    marks: dict[bool, Mark] = field(default_factory=_no_marks)

    def define(self, builder: 'Builder') -> None:
        """Its webhook was saved: other deliveries may go now."""
        self.builder = builder
        for name in ('concurrency', 'rate_limit', 'batch', 'latest_only', 'is_feed'):
            setattr(self, name, getattr(builder.webhook, name))
        self.forget()

    def note_state(self, state: State) -> None:
        if not state.is_active:
            self.forget()
        self.state = state

    #
    # Waiting deliveries
    #

    def wishes(self, *, everything: bool) -> Iterator[Wish]:
        if not self.state.is_active:
            return
        for backfill, mark in self.marks.items():
            # All of a batch has to be known together.
            most, low = (BATCH_DELIVERIES, BATCH_DELIVERIES) if self.batch else (DELIVERIES_PER_LANE, LOW_DELIVERIES)
            room = most - sum(one.backfill == backfill for one in self.waiting.values())
            if room > most - low:
                newest = int(room * NEWEST_SHARE) if mark.has_more and not backfill else 0
                since = mark.since(everything=everything)
                yield Wish(self.webhook_id, backfill, room, newest, *since)

    def learn(self, wish: Wish, due: Sequence[Due], now: float, parked: Collection[int] = ()) -> None:
        """Take in deliveries that were read for a wish, but no parked ones."""
        self.waiting |= {one.pk: one for one in due if one.pk not in parked}
        self.marks[wish.backfill].move(due, wish.room)
        if due:
            self.used_at = now

    @property
    def known(self) -> list[int]:
        return [pk for one in (*self.in_hand.values(), *self.waiting.values()) for pk in one.pks]

    @property
    def unformed(self) -> list[Due]:
        """One delivery of each change set that is still to be formed."""
        return [one for one in self.waiting.values() if not one.is_formed]

    def forget(self) -> None:
        """Waiting deliveries are read anew when they may go."""
        self.waiting.clear()
        self.marks = _no_marks()

    @property
    def has_changes(self) -> bool:
        return any(not one.backfill for one in self.waiting.values())

    @property
    def sends_backfill(self) -> bool:
        return any(one.backfill for one in self.in_hand.values())

    def is_idle(self, now: float) -> bool:
        return not self.in_hand and not self.waiting and now > self.used_at + IDLE_SECONDS

    #
    # Requests
    #

    def room(self, now: float) -> int:
        """Return how many more requests may go."""
        if now < self.rests_until:
            return 0
        most = 1 if self.state.is_suspended else self.window + 2 * self.answered
        return max(min(most - len(self.in_hand), self.bucket.fill(self.rate_limit, now)), 0)

    def next(self) -> Iterator[Due]:
        """Yield deliveries that may go, each with those in its request: changes before backfills."""
        for one in sorted(self.waiting.values(), key=lambda one: one.backfill):
            is_whole = not self.batch or one.batch is not None or one.transaction_id in self.whole
            if is_whole and one.is_formed and one.pk in self.waiting:
                is_alone = one.others or not (self.batch or one.batch)
                yield one if is_alone else together(one, self.waiting.values())

    def withdraw(self) -> list[int]:
        """Take out deliveries for a feed to publish. Those without data stay: their requests fail."""
        going = [one for one in self.waiting.values() if not one.is_failed]
        for one in going:
            del self.waiting[one.pk]
        return [pk for one in going for pk in one.pks]

    def begin(self, due: Due, now: float) -> None:
        for pk in due.pks:
            self.waiting.pop(pk, None)
        self.in_hand[due.pk] = due
        self.bucket.tokens -= 1
        self.used_at = self.began_at = now

    def end(self, pk: int) -> Due:
        return self.in_hand.pop(pk)

    def put_back(self, pk: int) -> None:
        """A request did not begin: it goes first next time."""
        due = self.end(pk)
        self.bucket.tokens += 1
        self.waiting = {pk: due} | self.waiting

    def note_answer(self, *, reached: bool) -> None:
        """`reached`: the endpoint has answered."""
        self.answered += reached
        self.window = min(self.window + 1, self.concurrency) if reached else max(self.window // 2, 1)

    def note_built(self, seconds: float, now: float) -> bool:
        """Returns whether the lane rests from now on: its template is endless."""
        self.is_slow = seconds > SLOW_BUILD_SECONDS
        self.endless = self.endless + 1 if seconds > ENDLESS_BUILD_SECONDS else 0
        if self.endless < 2:
            return False
        self.rests_until = now + ENDLESS_REST_SECONDS
        return True

    @property
    def large(self) -> int:
        """Bytes of the large payloads in hand."""
        return sum(one.size for one in self.in_hand.values() if one.size > LARGE_BYTES)


def together(first: Due, waiting: Iterable[Due]) -> Due:
    """Return a delivery with others of its transaction, model and kind, or as they went together once.

    They go under its id. The others follow by their ids.
    """
    found, size = [first], first.size
    for one in waiting:
        if one.pk == first.pk or one.others or _key(one) != _key(first):
            continue
        if first.batch is None and (size + one.size > BATCH_BYTES or len(found) == BATCH_DELIVERIES):
            break
        found.append(one)
        size += one.size
    leader, *others = sorted(found, key=lambda one: (one.pk != one.batch, one.pk))
    return leader._replace(others=[one.pk for one in others], size=size)


def _key(one: Due) -> tuple:
    if one.batch is not None:
        return (one.batch,)
    return one.transaction_id, one.object_type_id, one.kind, one.backfill, one.is_failed
