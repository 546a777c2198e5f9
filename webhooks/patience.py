"""Limits waiting time, but not the time while this process is frozen.

The limit is a number of ticks. However long the process is frozen, the present tick counts once.
"""

import time
from collections.abc import Callable

# A finer tick is more exact after a freeze, but wakes the process more often.
TICKS_PER_LIMIT = 20


class Patience:
    """A limit of seconds for all waits together. `left`: seconds that are left."""

    def __init__(self, seconds: float) -> None:
        self._tick = seconds / TICKS_PER_LIMIT
        self.left = seconds

    def wait[T](self, attempt: Callable[[float], T]) -> T:
        """Repeat the attempt while it raises TimeoutError, and return its result. Raises TimeoutError at the limit.

        The attempt gets the seconds that it may wait.
        """
        while self.left > 0:
            began = time.monotonic()
            try:
                return attempt(self._tick)
            except TimeoutError:
                if self.left <= self._tick:
                    raise
            finally:
                self.left -= min(time.monotonic() - began, self._tick)
        raise TimeoutError
