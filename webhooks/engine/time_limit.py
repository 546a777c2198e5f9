"""Limits work in a worker's main thread: Python, a query or an endless wait.

A watchdog thread sends SIGVTALRM, as RQ uses SIGALRM. C code may keep the handler from running: then the timer of the
process ends it (process/child.py).
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ..patience import TICKS


class TooSlow(Exception): ...


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow inside the block once the seconds are over."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return

    def strike(_signum: int, _frame: object) -> NoReturn:
        raise TooSlow(f'it takes more than {seconds:g} seconds')

    is_over = threading.Event()

    def watch() -> None:
        # While the process is frozen no time passes (patience.py).
        if not any(is_over.wait(seconds / TICKS) for _ in range(TICKS)):
            signal.pthread_kill(main.ident, signal.SIGVTALRM)

    watchdog = threading.Thread(target=watch, daemon=True)
    previous = signal.signal(signal.SIGVTALRM, strike)
    try:
        # Inside: a process frozen in these lines is struck in them.
        watchdog.start()
        try:
            yield
        finally:
            # Ignored from here: a late strike would hit other code.
            signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
    finally:
        if watchdog.ident is not None:
            is_over.set()
            watchdog.join()
        signal.signal(signal.SIGVTALRM, previous)
