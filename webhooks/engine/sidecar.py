"""The sidecar: a worker of our queue alone, beside a worker that serves other queues as well.

NetBox's jobs and ours then do not wait for each other. A script may take hours, and NetBox itself makes a job of each
save, for its search, that would go before ours. The sidecar is a worker like any other. It is a child of the worker
that the operator has started, is told to stop with it, and never outlives it.
"""

import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from ..templating.process import check_handles, fork

logger = logging.getLogger('webhooks.worker')

# Seconds between two looks whether it lives.
INTERVAL = 5
# Seconds between two starts, doubled with each sidecar that lived for less than the longest.
PAUSE, LONGEST_PAUSE = INTERVAL / 2, 60


def is_possible() -> bool:
    """Return whether this machine lets a worker have one. The log says why not."""
    try:
        check_handles()
    except OSError as error:
        logger.warning('sidecar=none reason="%s" (Linux 5.4 is needed: this worker serves all of its queues)', error)
        return False
    return True


class Sidecar:
    """The other worker's end of it. `work` is what it does, until it is told to stop.

    `patience` are the seconds that its end may take. None is no bound.
    """

    def __init__(self, work: Callable[[], object], patience: float | None = None) -> None:
        self._work = work
        self._patience = patience
        self._owner = os.getpid()
        self._handle: int | None = None
        self._is_ending = False
        self._started = -math.inf
        self._pause = PAUSE

    def keep(self) -> None:
        """See to it that it is there. A fork of the other worker, which does one of its jobs, has nothing to see to."""
        if self._is_ending or os.getpid() != self._owner or self._lives() or self._pauses():
            return
        self._started = time.monotonic()
        try:
            channel, self._handle = fork(lambda _channel: self._live())
        except OSError as error:
            logger.warning('sidecar=failed reason="%s" (it is tried again)', error)
            return
        channel.close()
        if self._is_ending:
            # The signal came while it was forked.
            self.stop()

    def stop(self) -> None:
        """Tell it to stop: it begins nothing more. Told again after a second, it ends at once, as RQ's workers do."""
        self._is_ending = True
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGTERM)

    def end(self) -> None:
        """Wait until it has ended. It is told to stop if it has not been, and killed if it does not."""
        if not self._is_ending:
            self.stop()
        if self._handle is None:
            return
        if not select.select([self._handle], [], [], self._patience)[0]:
            logger.warning('sidecar=killed reason="it did not end within %d seconds"', self._patience)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._handle, os.WEXITED)

    def _lives(self) -> bool:
        if self._handle is None:
            return False
        with suppress(ChildProcessError):
            if os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG) is None:
                return True
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if self._age() < LONGEST_PAUSE else PAUSE
        logger.warning('sidecar=ended (another one is started)')
        # In this order: stop() may strike in between.
        handle, self._handle = self._handle, None
        os.close(handle)
        return False

    def _pauses(self) -> bool:
        """Whether it is too early for another one: each leaves traces in Redis and PostgreSQL that others look at."""
        return self._age() < self._pause

    def _age(self) -> float:
        return time.monotonic() - self._started

    def _live(self) -> None:
        with suppress(SystemExit):  # told twice
            self._work()
