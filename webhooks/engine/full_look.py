"""Tells a dispatcher or a sender when to read all its rows, instead of only those after the last one that it has read.

A commit may come late, with rows before that one. So each looks at everything now and then.
"""

# Between two full looks it waits twenty times as long as the last one took, within these limits. So full looks cost a
# twentieth of the time at most, if they take no longer than half a second.
PAUSE_PER_LOOK_SECOND = 20
MIN_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 10.0


class FullLook:
    """When one reader's next full look is due: at first at once. Times are seconds, by time.monotonic()."""

    def __init__(self) -> None:
        self._due_at = 0.0

    def is_due(self, now: float) -> bool:
        """Whether the reader is to look at everything this time. Then it calls note()."""
        return now > self._due_at

    def note(self, began: float, ended: float) -> None:
        """Note that a full look was done, and so when the next one is due."""
        self._due_at = ended + min(max(MIN_PAUSE_SECONDS, PAUSE_PER_LOOK_SECOND * (ended - began)), MAX_PAUSE_SECONDS)
