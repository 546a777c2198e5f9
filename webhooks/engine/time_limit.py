"""A limit on what runs in the main thread of a worker, be it Python, a query or a wait that never ends.

A watchdog in a thread sends a signal, and the handler raises. RQ bounds its jobs by SIGALRM, so it is SIGVTALRM. In
another thread there is no limit: there it is a person who waits.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class TooSlow(Exception):
    """It took longer than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow inside the block once the seconds are over."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return

    def strike(_signum: int, _frame: object) -> NoReturn:
        raise TooSlow(f'it takes more than {seconds:g} seconds')

    previous = signal.signal(signal.SIGVTALRM, strike)
    watchdog = threading.Timer(seconds, signal.pthread_kill, [main.ident, signal.SIGVTALRM])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        # Ignored from here: a strike that is on its way would hit whoever comes next.
        signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
        watchdog.cancel()
        watchdog.join()
        signal.signal(signal.SIGVTALRM, previous)
