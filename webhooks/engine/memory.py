"""Memory: how much of events and payloads a worker holds at a time, however many there are and however large.

Rendering reads snapshots a slice at a time, and stops at a bound of what it has made. Sending holds small payloads by
their number, and large ones by their size: one for which there is no room goes back, and its webhook waits. What is
larger than a bound is in hand alone, so that it goes out all the same.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

# Bytes of the snapshots that are read together, as PostgreSQL stores them: compressed, mostly to a third.
SLICE = 512 * 1024
# Characters of rendered payloads after which nothing more is rendered before they are written.
RENDERED = 16 * 1024 * 1024
# Bytes of a payload that is large, and of all the large ones that a worker sends at a time.
LARGE, ROOM = 256 * 1024, 32 * 1024 * 1024

# About how many bytes the payload of a delivery `d` has. PostgreSQL knows them without reading the columns. Snapshots
# are stored compressed.
SIZE = """
    (SELECT d.event_count * (octet_length(e.data) + 4 * coalesce(pg_column_size(e.snapshots), 0)::bigint)
     FROM webhooks_event e WHERE e.id = d.event_id)"""


def first_within[T](items: Sequence[T], weigh: Callable[[T], int], most: int) -> Sequence[T]:
    """Return the first of the items, as many as weigh `most` together, one at least."""
    total = 0
    for position, item in enumerate(items):
        total += weigh(item)
        if position and total > most:
            return items[:position]
    return items


class Payload(NamedTuple):
    """A claimed delivery, and how many bytes it sends."""

    pk: int
    webhook_id: int
    size: int


class Room:
    """The room of a worker for large payloads. A webhook has half of it at most: its endpoint may hang.

    Once there is none for one of them, no other large one is let in before all have gone: otherwise the largest would
    wait for ever. So it is with those of a webhook, once its half is taken.
    """

    def __init__(self) -> None:
        # By the id of the delivery.
        self._taken: dict[int, Payload] = {}
        # Ids of webhooks whose payloads did not find room, in their own half or in all.
        self._full: frozenset[int] = frozenset()
        self._last: frozenset[int] = frozenset()

    @property
    def waiting(self) -> frozenset[int]:
        """The ids of webhooks of which nothing is claimed meanwhile."""
        return self._full | self._last

    def keep(self, in_hand: Iterable[int]) -> bool:
        """Give back the room of whatever is no longer in hand. Returns whether any of those who wait may go now."""
        if self._taken:
            self._taken = {pk: self._taken[pk] for pk in self._taken.keys() & set(in_hand)}
        before = self.waiting
        self._full &= {one.webhook_id for one in self._taken.values()}
        if not self._taken:
            self._last = frozenset()
        return self.waiting != before

    def take(self, claimed: Collection[Payload]) -> dict[int, int]:
        """Let in what there is room for. Returns {id: id of its webhook} of the rest, which has to go back."""
        refused = {}
        for one in claimed:
            if one.size > LARGE and not self._take(one):
                refused[one.pk] = one.webhook_id
        return refused

    def _take(self, one: Payload) -> bool:
        own = [taken.size for taken in self._taken.values() if taken.webhook_id == one.webhook_id]
        if own and (one.webhook_id in self._full or one.size + sum(own) > ROOM // 2):
            self._full |= {one.webhook_id}
            return False
        if self._taken and (self._last or one.size + sum(taken.size for taken in self._taken.values()) > ROOM):
            self._last |= {one.webhook_id}
            return False
        self._taken[one.pk] = one
        return True
