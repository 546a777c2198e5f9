"""Limits waiting time (Patience) and working time (within), but not the time while this process is frozen.

The limit is a number of ticks. However long the process is frozen, the present tick counts once.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

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


class TooSlow(Exception):
    """The work in within() has taken longer than its time. It was interrupted, at any line."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow inside the block once the seconds are over: in Python, in a query, or in an endless wait.

    In other threads than the main one it does nothing. A watchdog thread sends SIGVTALRM, as RQ uses SIGALRM, and the
    handler is replaced meanwhile. While C code runs, no handler can run: then the timer of the process ends it
    (engine/process/child.py).
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return

    def strike(_signum: int, _frame: object) -> NoReturn:
        raise TooSlow(f'it takes more than {seconds:g} seconds')

    is_over = threading.Event()

    def watch() -> None:
        # A process that was frozen must not be struck when it thaws. So each tick counts once.
        if not any(is_over.wait(seconds / TICKS_PER_LIMIT) for _ in range(TICKS_PER_LIMIT)):
            signal.pthread_kill(main.ident, signal.SIGVTALRM)

    watchdog = threading.Thread(target=watch, daemon=True)
    previous = signal.signal(signal.SIGVTALRM, strike)
    try:
        # If the process is frozen in these lines, the strike comes in them. So they are inside the `try`.
        # If this machine can start no thread now, only the timer of the process limits the block.
        with suppress(RuntimeError):
            watchdog.start()
        try:
            yield
        finally:
            # If the strike came after the block, it would hit other code. So it is ignored from here.
            signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
    finally:
        if watchdog.ident is not None:
            is_over.set()
            watchdog.join()
        signal.signal(signal.SIGVTALRM, previous)
