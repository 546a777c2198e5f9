"""A process as its parent sees it. The parent kills it if it is silent for too long."""

import itertools
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from ...templating.process import fork

logger = logging.getLogger('webhooks.worker')

# At most so many seconds count between two looks: while both are frozen no time passes.
TICK = 2.0
# Said by a process that has found suspects.
SUSPECTS = b'suspects'

_numbers = itertools.count(1)


class Child:
    """`work` gets its name and a channel to its parent. Raises OSError if no process can be made."""

    def __init__(self, what: str, work: Callable[[str, socket.socket], object]) -> None:
        self.name = name(what)
        self.has_found_suspects = False
        # Why it ended. None: not by its own fault.
        self.cause: str | None = None
        self._left = math.inf
        self._looked_at = time.monotonic()
        self.channel, self.handle = fork(lambda channel: work(self.name, channel))
        self.channel.setblocking(False)

    def has_ended(self) -> bool:
        """Hear it, kill it if it hangs, and return whether it has ended. Not to be called after that."""
        self._hear()
        ended = os.waitid(os.P_PIDFD, self.handle, os.WEXITED | os.WNOHANG)
        if ended is None and self._left > 0:
            return False
        if ended is None:
            self.signal(signal.SIGKILL)
            os.waitid(os.P_PIDFD, self.handle, os.WEXITED)
            self.cause = 'it took too long'
        else:
            self.cause = _cause(ended.si_code, ended.si_status)
        os.close(self.handle)
        self.channel.close()
        return True

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def _hear(self) -> None:
        now = time.monotonic()
        self._left -= min(now - self._looked_at, TICK)
        self._looked_at = now
        with suppress(BlockingIOError, ConnectionError):
            for word in self.channel.recv(65536).split():
                if word == SUSPECTS:
                    self.has_found_suspects = True
                else:
                    self._left = float(word)


def begin[T: Child](what: str, make: Callable[[], T]) -> T | None:
    """Make a process. Returns None if that fails."""
    try:
        return make()
    except OSError as error:
        logger.warning('process=%s failed reason="%s" (it is tried again)', what, error)
        return None


def say(channel: socket.socket, word: float | bytes) -> None:
    """Tell the parent of suspects, or how many seconds this process may be silent."""
    text = word if isinstance(word, bytes) else str(word).encode()
    # The parent may be frozen, or dead: then the kernel ends this process too.
    with suppress(BlockingIOError, ConnectionError):
        channel.send(text + b'\n', socket.MSG_DONTWAIT)


def name(what: str) -> str:
    """Return a name that no other process has."""
    return f'{socket.gethostname()}.{os.getpid()}.{time.time_ns()}.{what}.{next(_numbers)}'


def _cause(code: int, status: int) -> str | None:
    if code == os.CLD_EXITED:
        return None if status in (os.EX_OK, os.EX_TEMPFAIL) else f'exit status {status}'
    return None if status in (signal.SIGINT, signal.SIGTERM) else f'signal {status}'
