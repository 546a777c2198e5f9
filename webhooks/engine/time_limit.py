"""A limit on what runs in the main thread of a worker, be it Python, a query or a wait that never ends.

A watchdog in a thread sends a signal, and the handler raises. RQ bounds its jobs by SIGALRM, so it is SIGVTALRM. In
another thread there is no limit: there it is a person who waits.

C code that does not let go of the interpreter lets no handler run. So the kernel ends the process once it has used much
more processor time than there were seconds. What it had in hand is a suspect then (registry.py).
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from ..patience import TICKS

# Seconds of processor time, for each second of the limit, after which the kernel ends the process.
LAST = 2


class TooSlow(Exception):
    """It took longer than it may."""


@contextmanager
def within(seconds: float, tick: Callable[[], object] | None = None) -> Iterator[None]:
    """Raise TooSlow inside the block once the seconds are over. `tick` is called by a thread now and then."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return

    def strike(_signum: int, _frame: object) -> NoReturn:
        raise TooSlow(f'it takes more than {seconds:g} seconds')

    is_over = threading.Event()

    def watch() -> None:
        # By ticks (patience.py): while the process is frozen no time passes.
        for _ in range(TICKS):
            if is_over.wait(seconds / TICKS):
                return
            if tick:
                tick()
        signal.pthread_kill(main.ident, signal.SIGVTALRM)

    watchdog = threading.Thread(target=watch, daemon=True)
    previous = signal.signal(signal.SIGVTALRM, strike)
    try:
        # In here: whoever was frozen in one of these lines is struck in it.
        watchdog.start()
        signal.setitimer(signal.ITIMER_PROF, LAST * seconds)
        try:
            yield
        finally:
            # Ignored from here: a strike that is on its way would hit whoever comes next.
            signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if watchdog.ident is not None:
            is_over.set()
            watchdog.join()
        signal.signal(signal.SIGVTALRM, previous)
