"""A time limit that stands still while the process is frozen: a tick counts once."""

import time
from collections.abc import Callable

TICKS_PER_LIMIT = 20


class Patience:
    def __init__(self, seconds: float) -> None:
        self._tick = seconds / TICKS_PER_LIMIT
        self.left = seconds

    def wait[T](self, attempt: Callable[[float], T]) -> T:
        """Repeat the attempt, which gets its seconds. Raises TimeoutError at the end."""
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
