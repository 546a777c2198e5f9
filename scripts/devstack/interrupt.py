"""Ends a program cleanly however it is stopped: no traceback, the usual exit code, no process left behind."""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

from devstack.failure import Failure
from devstack.process import adopt_orphans, end_all_children

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds until what Python has dropped is raised again.
AGAIN = 0.01


class Stopped(BaseException):
    """A signal asked the program to end. No `Exception`, so that no handler on the way swallows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.exit_code = 128 + number


def _raise_stopped(number: int, _frame: FrameType | None) -> None:
    # Once only: what follows is cleaning up, which a second Ctrl-C would leave half done.
    _on_stop(signal.SIG_IGN)
    # What the database driver says to being interrupted is no news.
    logging.disable()
    raise Stopped(number)


def _raise_again(dropped: 'sys.UnraisableHookArgs') -> None:
    """A signal may strike in a callback, of a fork or of the garbage collector, whose exceptions Python drops."""
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
    """Its exit code, as a shell tells it; Ctrl-C meanwhile is for the child alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, _raise_stopped)
    return code if code >= 0 else 128 - code


def run(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Calls `main` and returns the exit code; whatever it started and did not stop is ended by process id."""
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
