"""Work on many items at once, where a bad item stops no other."""

from collections.abc import Callable, Iterable, Sequence

from ..interruptions import is_cache_away
from . import sql

Errors = tuple[type[Exception], ...]


def each_or_alone[T, R](
    items: Sequence[T],
    work: Callable[[Sequence[T]], Iterable[R]],
    failed: Callable[[T, Exception], R],
    blames: Errors = (Exception,),
) -> list[R]:
    """Return work(items). If that raises, try each item alone: failed(item, error) stands for a bad one.

    Raises errors outside `blames` or without a culprit: PostgreSQL or NetBox's cache is away, or time is up.
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
