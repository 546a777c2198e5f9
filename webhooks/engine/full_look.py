"""When to look at everything, instead of on after a mark."""

# Seconds between two full looks: so many times as long as the last one took, within these limits.
LEAST, MOST, TIMES = 1.0, 10.0, 20


class FullLook:
    """Times are by time.monotonic()."""

    def __init__(self) -> None:
        self._due_at = 0.0

    def is_due(self, now: float) -> bool:
        return now > self._due_at

    def note(self, began: float, ended: float) -> None:
        """One has been done."""
        self._due_at = ended + min(max(LEAST, TIMES * (ended - began)), MOST)
