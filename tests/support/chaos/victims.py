"""Processes to kill are forks, like RQ's jobs."""

import functools
import itertools
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from django.db import connection, connections
from django.utils.module_loading import import_string

from support.engine import work


class Children:
    def __init__(self) -> None:
        self._pids: list[int] = []

    def fork(self, function: Callable[[], Any]) -> int:
        """A child must not share a database connection."""
        connections.close_all()
        pid = os.fork()
        if pid:
            self._pids.append(pid)
            return pid
        with suppress(BaseException):
            function()
            os._exit(0)
        os._exit(1)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def wait(self, pid: int) -> int | None:
        self._pids.remove(pid)
        _pid, code = os.waitpid(pid, 0)
        return os.WTERMSIG(code) if os.WIFSIGNALED(code) else None

    def ends_well(self, pid: int) -> bool:
        self._pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def is_frozen(self, pid: int) -> bool:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def is_running(self, pid: int) -> bool:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill_all(self) -> None:
        for pid in list(self._pids):
            self.kill(pid)


def toil() -> NoReturn:
    """Work until a kill or an error ends it, like RQ's fork."""
    while True:
        work()
        time.sleep(0.02)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError('it lives')


def freeze() -> None:
    """Stop all threads until SIGCONT, as on a paused machine. The caller does nothing more before."""
    # A signal to the process may stop another thread first: then this one went on, and sent its request.
    signal.raise_signal(signal.SIGSTOP)


def strike_before(target: str, call: int = 1, blow: Callable[[], Any] = die) -> None:
    """Strike before the `call`-th call of 'module.name' or 'module.Class.name'."""
    owner, name = _find(target)
    original = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(original)
    def doomed(*args: Any, **options: Any) -> Any:
        if next(calls) == call:
            blow()
        return original(*args, **options)

    setattr(owner, name, doomed)


def strike_after(target: str, call: int = 1, blow: Callable[[], Any] = die) -> None:
    owner, name = _find(target)
    original = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(original)
    def doomed(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if next(calls) == call:
            blow()
        return result

    setattr(owner, name, doomed)


def strike_at_statement(number: int, blow: Callable[[], Any] = die) -> None:
    statements = itertools.count(1)

    def execute(inner: Callable, *args: Any) -> Any:
        result = inner(*args)
        if next(statements) == number:
            blow()
        return result

    connection.execute_wrappers.append(execute)


def _find(target: str) -> tuple[Any, str]:
    path, _dot, name = target.rpartition('.')
    try:
        return import_string(path), name
    except ImportError:
        return __import__(path, fromlist=[name]), name
