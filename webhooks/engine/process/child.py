"""Starts a process of a worker, and sees how it ends. The process itself calls the functions."""

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ...templating.process import fork

logger = logging.getLogger('webhooks.worker')

# From one start of a process to the next. An event that kills a process may also kill the next one, until it is tried
# alone. So there is a pause in between.
RESTART_SECONDS = 1.0

_is_stopping = False

# The work of a process: a function. It is called with the process's name and a channel: a byte there reports suspects
# to the parent.
Work = Callable[[str, socket.socket], object]


class Child:
    """A process, as its parent sees it. Once it has ended, it can be started again.

    `what`: its task, for logs, such as "send". `name`, `channel` and `handle` (a pidfd) are those of the last start.
    `cause`: why it ended; None if not by its own fault.
    """

    def __init__(self, what: str, work: Work) -> None:
        self.what = what
        self.is_running = False
        self.cause: str | None = None
        self._work = work
        self._started_at = -math.inf

    def start(self) -> None:
        """Fork the process, unless it runs. If that fails, or the last start was just now, the caller calls again."""
        if self.is_running or time.monotonic() < self._started_at + RESTART_SECONDS:
            return
        self._started_at = time.monotonic()
        self.name = name(self.what)
        try:
            self.channel, self.handle = fork(partial(self._work, self.name))
        except OSError as error:
            logger.warning('process=%s failed reason="%s" (it is tried again)', self.what, error)
            return
        self.channel.setblocking(False)
        self.is_running = True

    def has_ended(self) -> bool:
        """Whether the process has ended since the last call: so True once for each start. It notes the `cause`."""
        ended = os.waitid(os.P_PIDFD, self.handle, os.WEXITED | os.WNOHANG) if self.is_running else None
        if ended is None:
            return False
        self.is_running = False
        os.close(self.handle)
        self.channel.close()
        self.cause = _cause(ended.si_code, ended.si_status)
        if self.cause:
            logger.warning('process=%s ended reason="%s"', self.what, self.cause)
        return True

    def has_found_suspects(self) -> bool:
        """Whether the process has reported suspects since the last call. It waits for nothing."""
        with suppress(BlockingIOError, ConnectionError):
            return bool(self.channel.recv(4096))
        return False

    def signal(self, number: int) -> None:
        """Send the signal to the process. It does nothing if the process has just ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)


def kill_after(seconds: float) -> None:
    """Let the kernel end this process after this many seconds, even in C code. 0: never.

    A process calls it again while it makes progress. RQ uses the same timer for its jobs.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def is_stopping() -> bool:
    """Whether this process is to stop: it begins nothing more, and finishes open requests."""
    return _is_stopping


def stop(*_signal: object) -> None:
    """Note that this process is to stop. It is also the handler of SIGTERM."""
    global _is_stopping  # noqa: PLW0603  (it belongs to the process)
    _is_stopping = True


def listen(seconds: float) -> None:
    """Begin to listen to the supervisor. The kernel ends this process if it makes no progress in `seconds`."""
    kill_after(seconds)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor passes it on
    signal.signal(signal.SIGTERM, stop)


def name(what: str) -> str:
    """Return a new name for a worker's row, unlike any other: its host, process, time and task."""
    return f'{socket.gethostname()}.{os.getpid()}.{time.time_ns()}.{what}'


def _cause(code: int, status: int) -> str | None:
    if code == os.CLD_EXITED:
        return f'exit status {status}' if status else None
    if status == signal.SIGALRM:
        return 'it took too long'
    return None if status in (signal.SIGINT, signal.SIGTERM) else f'signal {status}'
