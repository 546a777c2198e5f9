"""A lane, as the worker knows it that owns it: what waits, what is in hand, and how much may be.

Pure: no database, no clock of its own. `now` is that of time.monotonic().
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush

from . import batch
from .due import Due, Wish

# Deliveries of a lane that a worker knows at most, and below which it looks for more.
MOST, LOW = 200, 64
# Of these, the newest where more is due than it knows: so a change passes a backlog.
NEWEST = 1 / 4
# Seconds that a commit may come after the time at which its deliveries are due. What comes later waits for a full look.
LATE = timedelta(seconds=2)
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
# Seconds without anything to do after which a lane is left, so that any worker may have the next change.
IDLE = 1.0


@dataclass
class Bucket:
    """The token bucket of a rate limit. It holds a fifth of a second: no second sees many more than the rate."""

    tokens: float = math.inf
    filled_at: float = 0.0

    def fill(self, rate: int | None, now: float) -> float:
        """Return how many requests may begin."""
        if rate is None:
            return math.inf
        size = max(rate / 5, 1.0)
        self.tokens = min(self.tokens + rate * (now - self.filled_at), size)
        self.filled_at = now
        return math.floor(self.tokens)


@dataclass
class Mark:
    """How far a lane was read, and whether there was more."""

    due_at: datetime = BEGINNING
    pk: int = 0
    has_more: bool = True

    def since(self, *, everything: bool) -> tuple[datetime, int]:
        """Return after what to read on."""
        if everything or self.due_at == BEGINNING:
            return BEGINNING, 0
        return (self.due_at, self.pk) if self.has_more else (self.due_at - LATE, 0)

    def move(self, due: Sequence[Due], room: int) -> None:
        """So much was read, the oldest first, where there was room for so many of these."""
        self.has_more = len(due) >= room
        if due:
            last = due[:room][-1]
            self.due_at, self.pk = max((self.due_at, self.pk), (last.due_at, last.pk))


@dataclass(eq=False)
class Lane:
    """A webhook that this worker sends to."""

    webhook_id: int
    used_at: float
    concurrency: int = 1
    rate_limit: int | None = None
    batch: bool = False
    latest_only: bool = False
    is_suspended: bool = False
    # Requests that may be under way: one, and as many more as were answered, up to the concurrency (slow start).
    window: int = 1
    # Requests that were answered since the last turn: so many may wait for a thread, or the endpoint would be idle.
    answered: int = 0
    # By the id of the delivery, in the order in which they go.
    waiting: dict[int, Due] = field(default_factory=dict)
    in_hand: dict[int, Due] = field(default_factory=dict)
    # Of what is in hand: several deliveries may go out in one.
    requests: int = 0
    bucket: Bucket = field(default_factory=Bucket)
    # No request begins before.
    rests_until: float = 0.0
    # Whether its last request was slow to build, and how many templates in a row ran out of time.
    is_slow: bool = False
    endless: int = 0
    is_left: bool = False
    # Of changes, and of a backfill.
    marks: dict[bool, Mark] = field(default_factory=lambda: {False: Mark(), True: Mark()})

    def room(self, now: float) -> int:
        """Return how many deliveries may come into its hands."""
        if self.is_left or now < self.rests_until:
            return 0
        most = 1 if self.is_suspended else self.window + min(self.answered, self.window)
        return max(min(most - self.requests, self.bucket.fill(self.rate_limit, now)), 0)

    def wishes(self, *, everything: bool) -> Iterator[Wish]:
        """Yield what to read of it."""
        if self.is_left:
            return
        for backfill, mark in self.marks.items():
            # What goes in one request has to be known together.
            most, low = (batch.MOST, batch.MOST) if self.batch else (MOST, LOW)
            room = most - sum(one.backfill == backfill for one in self.waiting.values())
            if room > most - low:
                newest = int(room * NEWEST) if mark.has_more and not backfill else 0
                yield Wish(self.webhook_id, backfill, room, newest, *mark.since(everything=everything))

    def learn(self, wish: Wish, due: Sequence[Due]) -> None:
        """Take in what was read for a wish."""
        self.waiting |= {one.pk: one for one in due if not one.is_blocked}
        self.marks[wish.backfill].move(due, wish.room)

    def forget(self) -> None:
        """Forget what waits: it is read anew when it may go."""
        self.waiting.clear()
        self.marks = {False: Mark(), True: Mark()}

    def group(self, first: Due) -> list[Due]:
        """Return what goes out in one request with it."""
        return batch.group(first, self.waiting.values()) if self.batch or first.batch else [first]

    def begin(self, group: Sequence[Due], now: float) -> None:
        """These go out in one request."""
        for one in group:
            self.in_hand[one.pk] = self.waiting.pop(one.pk)
        self.requests += 1
        self.bucket.tokens -= 1
        self.used_at = now

    def end(self, pks: Iterable[int]) -> list[Due]:
        """A request is out of its hands. Returns what went out in it."""
        self.requests -= 1
        return [self.in_hand.pop(pk) for pk in pks]

    def put_back(self, pks: Iterable[int]) -> None:
        """A request was not begun: its deliveries go first next time."""
        self.waiting = {one.pk: one for one in self.end(pks)} | self.waiting
        self.bucket.tokens += 1

    def note_answer(self, *, reached: bool) -> None:
        """A request has ended. `reached`: the endpoint has answered it."""
        self.answered += 1
        self.window = min(self.window + 1, self.concurrency) if reached else max(self.window // 2, 1)

    @property
    def has_changes(self) -> bool:
        """Whether anything waits that is no backfill."""
        return any(not one.backfill for one in self.waiting.values())

    def is_idle(self, now: float) -> bool:
        """Whether nothing was due for a while."""
        return not self.in_hand and not self.waiting and now > self.used_at + IDLE


def choose(lanes: Iterable[Lane], free: int, now: float, backfills: int) -> list[list[Due]]:
    """Return what goes next, each list in one request: of the lane with the fewest in hand first, one after the other.

    `free`: how many threads are. A lane with nothing in hand gets one in any case, so that those that hang stop no
    other. Of backfills at most so many, and of each lane after its changes.
    """
    chosen: list[list[Due]] = []
    heap = []
    for number, lane in enumerate(lanes):
        if lane.waiting and (room := lane.room(now)):
            queue = iter(sorted(lane.waiting.values(), key=lambda one: one.backfill))
            heap.append((lane.requests, number, lane, room, queue))
    heapify(heap)
    while heap:
        requests, number, lane, room, queue = heappop(heap)
        one = next((one for one in queue if one.pk in lane.waiting), None)
        if one is None or (requests and free <= len(chosen)) or (one.backfill and backfills <= 0):
            continue
        backfills -= one.backfill
        chosen.append(lane.group(one))
        lane.begin(chosen[-1], now)
        if room > 1:
            heappush(heap, (requests + 1, number, lane, room - 1, queue))
    return chosen
