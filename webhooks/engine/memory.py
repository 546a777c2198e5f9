"""Bounds the memory that events take."""

from collections.abc import Callable, Iterator, Sequence

# Bytes of snapshots read together, as stored: mostly compressed to a third.
SLICE = 512 * 1024


def first_within[T](items: Sequence[T], weigh: Callable[[T], int], most: int) -> Sequence[T]:
    """Return the first items that together weigh `most` or less, at least one."""
    total = 0
    for position, item in enumerate(items):
        total += weigh(item)
        if position and total > most:
            return items[:position]
    return items


def portions[T](
    items: Sequence[T], weigh: Callable[[T], int], most: int, count: int | None = None
) -> Iterator[Sequence[T]]:
    """Yield the items in portions that weigh `most` and hold `count` at most."""
    while items:
        portion = first_within(items[:count], weigh, most)
        yield portion
        items = items[len(portion) :]
