"""Limits work in a worker's main thread: Python, a query or an endless wait.

A watchdog thread sends SIGVTALRM, as RQ uses SIGALRM. While C code runs, no handler can run: then the timer of the
process ends it (process/child.py).
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ..patience import TICKS_PER_LIMIT


class TooSlow(Exception):
    """The work in within() has taken longer than its time. It was broken off at any line."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow inside the block once the seconds are over. In other threads than the main one it does nothing.

    While the process is frozen no time passes. It replaces the handler of SIGVTALRM meanwhile.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return

    def strike(_signum: int, _frame: object) -> NoReturn:
        raise TooSlow(f'it takes more than {seconds:g} seconds')

    is_over = threading.Event()

    def watch() -> None:
        # A process that was frozen must not be struck when it thaws. So each tick counts once (patience.py).
        if not any(is_over.wait(seconds / TICKS_PER_LIMIT) for _ in range(TICKS_PER_LIMIT)):
            signal.pthread_kill(main.ident, signal.SIGVTALRM)

    watchdog = threading.Thread(target=watch, daemon=True)
    previous = signal.signal(signal.SIGVTALRM, strike)
    try:
        # If the process is frozen in these lines, the strike comes in them. So they are inside the `try`.
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
