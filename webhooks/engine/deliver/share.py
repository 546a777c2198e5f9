"""The share of backfills: while changes wait, a tenth of what is sent, or a few a second where that is more."""

import time

# Of what is sent of changes; and a second.
SHARE, FLOOR = 0.1, 10.0
# What can be saved up, in deliveries.
MOST = 20.0
# Threads that send no backfill: a change may come at any time.
KEPT_FREE = 16


class Share:
    """What may be sent of backfills."""

    def __init__(self) -> None:
        self._credit = 0.0
        self._at = time.monotonic()

    def room(self, free: int, *, others_wait: bool = False) -> int:
        """Return how many requests of backfills may begin."""
        room = max(free - KEPT_FREE, 0)
        return min(room, int(self._credit)) if others_wait else room

    def note(self, changes: int, backfills: int) -> None:
        """So many requests have begun of changes, and of backfills."""
        now = time.monotonic()
        earned = max(changes * SHARE, (now - self._at) * FLOOR)
        self._credit = min(max(self._credit + earned - backfills, 0.0), MOST)
        self._at = now
