"""Works on many items together, so that a bad one stops no other and none are too many at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from ..interruptions import is_cache_away
from . import sql

Errors = tuple[type[Exception], ...]


def each_or_alone[T, R](
    items: Sequence[T],
    work: Callable[[Sequence[T]], Iterable[R]],
    failed: Callable[[T, Exception], R],
    blames: Errors = (Exception,),
) -> list[R]:
    """Return the list of work(items). If that raises, try each item alone: failed(item, error) stands for a bad one.

    So `work` may be called twice for an item: it undoes everything before it raises. Raises errors outside `blames`,
    and errors that are no item's fault: PostgreSQL ended the session, time is up, or the cache is away.
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
