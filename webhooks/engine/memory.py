"""Memory: how much of events a worker holds at a time, however many there are and however large."""

from collections.abc import Callable, Sequence

# Bytes of the snapshots that are read together, as PostgreSQL stores them: compressed, mostly to a third.
SLICE = 512 * 1024
# Characters of rendered payloads after which nothing more is rendered before they are written.
RENDERED = 16 * 1024 * 1024


def first_within[T](items: Sequence[T], weigh: Callable[[T], int], most: int) -> Sequence[T]:
    """Return the first of the items, as many as weigh `most` together, one at least."""
    total = 0
    for position, item in enumerate(items):
        total += weigh(item)
        if position and total > most:
            return items[:position]
    return items
