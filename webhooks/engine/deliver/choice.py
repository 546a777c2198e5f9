"""Which webhook is served next, and with what. Pure, but for the clock of the backfills' share."""

import time
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from .lane import LARGE, Due, Lane

# Bytes of all large payloads in hand, and of one webhook's: its endpoint may hang. One payload always fits.
ROOM, ROOM_EACH = 32 * 1024 * 1024, 16 * 1024 * 1024
# Deliveries of requests with several that begin in a turn. The first request always fits.
TOGETHER = 2000
# While changes wait, backfills get this part of the requests, or so many a second. They can save up a few.
SHARE, FLOOR, SAVED = 0.1, 10.0, 20.0
# Threads that are kept for changes: one may come at any time.
KEPT_FREE = 16


def choose(lanes: Iterable[Lane], free: int, now: float, backfills: int) -> list[Due]:
    """Return the deliveries that go next, each with those in its request.

    The lane with the fewest requests in hand comes first, then the one that has waited longest. `free` threads are
    there. A lane with nothing in hand gets one in any case: so endpoints that hang stop no other. At most `backfills`
    requests of backfills begin. A lane waits if its large payload finds no room. No other large payload passes it.
    Requests of very many deliveries wait for the next turn: a turn has seconds.
    """
    lanes = list(lanes)
    large = sum(lane.large for lane in lanes)
    room = ROOM
    together = 0
    chosen: list[Due] = []
    heap = [
        (len(lane.in_hand), lane.began_at, lane.webhook_id, lane, lane.next(), count)
        for lane in lanes
        if lane.waiting and (count := lane.room(now))
    ]
    heapify(heap)
    while heap:
        requests, began_at, webhook_id, lane, waiting, count = heappop(heap)
        due = next(waiting, None)
        if due is None or (requests and free <= len(chosen)) or (due.backfill and backfills <= 0):
            continue
        if due.others and together and together + len(due.pks) > TOGETHER:
            continue
        size = due.size if due.size > LARGE else 0
        if size and lane.large and lane.large + size > ROOM_EACH:
            continue
        if size and large and large + size > room:
            room = 0
            continue
        large += size
        together += len(due.pks) if due.others else 0
        backfills -= due.backfill
        chosen.append(due)
        lane.begin(due, now)
        if count > 1:
            heappush(heap, (requests + 1, began_at, webhook_id, lane, waiting, count - 1))
    return chosen


class Share:
    """How much of a worker's sending backfills get."""

    def __init__(self) -> None:
        self._credit = 0.0
        self._at = time.monotonic()

    def room(self, free: int, *, changes_wait: bool) -> int:
        """Return how many requests of backfills may begin."""
        room = int(self._credit)
        return room if changes_wait else max(room, free - KEPT_FREE)

    def note(self, changes: int, backfills: int) -> None:
        """So many requests have begun."""
        now = time.monotonic()
        earned = max(changes * SHARE, (now - self._at) * FLOOR)
        self._credit = min(max(self._credit + earned - backfills, 0.0), SAVED)
        self._at = now
