"""Works through many items in portions, isolates bad ones, and says when to read everything again.

A dispatcher or a sender reads only the rows after the last one that it has read. A commit may come late, with rows
before that one. So FullLook says when it reads everything.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from ..interruptions import is_cache_away
from . import sql

Errors = tuple[type[Exception], ...]

# Between two full looks it waits twenty times as long as the last one took, within these limits. So full looks cost a
# twentieth of the time at most, if they take no longer than half a second.
PAUSE_PER_LOOK_SECOND = 20
MIN_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 10.0
# If a slice of a backfill or a walk takes longer, it rests nine times as long: changes have nine tenths of the time.
SLOW_SLICE_SECONDS = 0.25
REST_PER_SLOW_SECOND = 9


def each_or_alone[T, R](
    items: Sequence[T],
    work: Callable[[Sequence[T]], Iterable[R]],
    failed: Callable[[T, Exception], R],
    blames: Errors = (Exception,),
) -> list[R]:
    """Return the list of work(items). If that raises, work on each item alone; a bad one yields failed(item, error).

    So `work` may be called twice for an item, and has to undo everything before it raises. Raises errors outside
    `blames`, and errors that are no item's fault: PostgreSQL ended the session, time is up, or the cache is away.
    """
    if not items:
        return []
    before = sql.session()
    try:
        return list(work(items))
    except blames as error:
        if sql.is_broken_off(error, before) or is_cache_away(error):
            raise
        if len(items) == 1:
            return [failed(items[0], error)]
    return [one for item in items for one in each_or_alone([item], work, failed, blames)]


def first_within[T](items: Sequence[T], weigh: Callable[[T], int], most: int) -> Sequence[T]:
    """Return the first items that together weigh `most` or less: at least one, if there is any."""
    total = 0
    for position, item in enumerate(items):
        total += weigh(item)
        if position and total > most:
            return items[:position]
    return items


def portions[T](
    items: Sequence[T], weigh: Callable[[T], int], most: int, count: int | None = None
) -> Iterator[Sequence[T]]:
    """Yield the items in portions that weigh `most` and hold `count` at most. A heavier item goes alone."""
    while items:
        portion = first_within(items[:count], weigh, most)
        yield portion
        items = items[len(portion) :]


def rest_after(seconds: float) -> float:
    """Return how long a backfill or a walk rests after a slice that took `seconds`: 0.0 if that was not slow."""
    return REST_PER_SLOW_SECOND * seconds if seconds > SLOW_SLICE_SECONDS else 0.0


class FullLook:
    """Says when a reader's next full look is due. The first is due at once. Times are seconds of time.monotonic()."""

    def __init__(self) -> None:
        self._due_at = 0.0

    def is_due(self, now: float) -> bool:
        """Whether the reader is to look at everything this time. Then it calls note()."""
        return now > self._due_at

    def note(self, began: float, ended: float) -> None:
        """Note that a full look was done, and so when the next one is due."""
        self._due_at = ended + min(max(MIN_PAUSE_SECONDS, PAUSE_PER_LOOK_SECOND * (ended - began)), MAX_PAUSE_SECONDS)
