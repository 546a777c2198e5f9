"""Memory: how much of events a worker holds at a time, however many there are and however large."""

from collections.abc import Callable, Iterator, Sequence

# Bytes of the snapshots that are read together, as PostgreSQL stores them: compressed, mostly to a third.
SLICE = 512 * 1024


def first_within[T](items: Sequence[T], weigh: Callable[[T], int], most: int) -> Sequence[T]:
    """Return the first of the items, as many as weigh `most` together, one at least."""
    total = 0
    for position, item in enumerate(items):
        total += weigh(item)
        if position and total > most:
            return items[:position]
    return items


def portions[T](
    items: Sequence[T], weigh: Callable[[T], int], most: int, count: int | None = None
) -> Iterator[Sequence[T]]:
    """Yield the items in portions, each of which weighs `most`, and holds `count`, at most."""
    while items:
        portion = first_within(items[:count], weigh, most)
        yield portion
        items = items[len(portion) :]
