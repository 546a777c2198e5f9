"""A stopped program shows no traceback, and leaves no process behind."""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

from devstack.failure import Failure
from devstack.process import adopt_orphans, end_all_children

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds until a dropped exception is raised again.
AGAIN = 0.01


class Stopped(BaseException):
    """No handler of `Exception` swallows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.exit_code = 128 + number


def _raise_stopped(number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C would stop the cleanup halfway.
    _on_stop(signal.SIG_IGN)
    # The database driver's complaint about it is no news.
    logging.disable()
    raise Stopped(number)


def _raise_again(dropped: 'sys.UnraisableHookArgs') -> None:
    """Python drops exceptions in callbacks of forks and the garbage collector."""
    if not isinstance(dropped.exc_value, Stopped):
        sys.__unraisablehook__(dropped)
        return
    number = dropped.exc_value.number
    signal.signal(signal.SIGALRM, lambda *_: _raise_stopped(number, None))
    signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _on_stop(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in STOPPING:
        signal.signal(number, handler)


def wait_in_foreground(child: subprocess.Popen[bytes]) -> int:
    """Return the exit code, as a shell tells it. Ctrl-C reaches only the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, _raise_stopped)
    return code if code >= 0 else 128 - code


def run(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Return the exit code. End all leftover processes by their ids."""
    adopt_orphans()
    sys.unraisablehook = _raise_again
    _on_stop(_raise_stopped)
    try:
        return main(arguments)
    except Stopped as stopped:
        return stopped.exit_code
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        _on_stop(signal.SIG_IGN)
        end_all_children()
