"""The share of backfills: while others wait, a tenth of what is sent, or a few a second where that is more.

Others wait where something of theirs is due that could go, or is to be dispatched. Not where they wait for their own
endpoint (a rate limit, answers that take longer than a second): leaving room would not help them.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

# Of what is claimed for others; and a second, so that a backfill goes on beside others that are slow.
SHARE, FLOOR = 0.1, 10.0
# What can be saved up, in deliveries.
MOST = 20.0
# Seconds until the next look where nothing of a backfill is due.
INTERVAL = timedelta(seconds=0.1)


class Share:
    """What a job may claim of backfills. `is_due` tells whether anything of one is. Times are PostgreSQL's."""

    def __init__(self, is_due: Callable[[datetime], bool]) -> None:
        self._is_due = is_due
        self._rests_until: datetime | None = None
        self._credit = 0.0
        self._now: datetime | None = None

    def earn(self, claimed: int, now: datetime) -> None:
        """Others have had so many claimed, and time has passed."""
        elapsed = (now - self._now).total_seconds() if self._now else 0.0
        self._credit = min(self._credit + max(claimed * SHARE, elapsed * FLOOR), MOST)
        self._now = now

    def is_wanted(self, now: datetime) -> bool:
        """Whether anything of a backfill is due. Says no for a moment after it was not."""
        if self._rests_until and now < self._rests_until:
            return False
        if self._is_due(now):
            return True
        self._rests_until = now + INTERVAL
        return False

    @property
    def room(self) -> int:
        """How many deliveries of backfills may be claimed now, while others wait."""
        return int(self._credit)

    def spend(self, claimed: int) -> None:
        self._credit = max(self._credit - claimed, 0.0)
