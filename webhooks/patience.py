"""A time limit that does not run while this process is frozen: paused with its container, or with its machine.

It is told by ticks. However long a tick takes, it counts once.
"""

import time
from collections.abc import Callable

TICKS = 20


class Patience:
    """Seconds that are left to wait."""

    def __init__(self, seconds: float) -> None:
        self._tick = seconds / TICKS
        self.left = seconds

    def wait[T](self, attempt: Callable[[float], T]) -> T:
        """Return what the attempt returns, which waits so many seconds at most. Raises TimeoutError at the end."""
        while self.left > 0:
            began = time.monotonic()
            try:
                return attempt(self._tick)
            except TimeoutError:
                if self.left <= self._tick:
                    raise
            finally:
                self.left -= min(time.monotonic() - began, self._tick)
        # Each attempt had a little, but never enough.
        raise TimeoutError
