"""Ends requests at their deadline, by a thread that shuts their sockets down.

A socket's own timeout restarts with each byte. So an endpoint that drips bytes could hold a request for ever.
"""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

logger = logging.getLogger('webhooks.sender')

# Between two calls of a watchdog's `tidy`.
TIDY_SECONDS = 1.0


@dataclass
class Watched:
    """A request under way. `deadline` is in monotonic seconds; `is_overdue`: it was cut.

    The socket is a duplicate: http.client may close its own early.
    """

    deadline: float
    sock: socket.socket | None = None
    is_overdue: bool = False

    def carry(self, sock: socket.socket) -> None:
        """Keep a duplicate of the request's socket, to cut it later. Cuts at once if the request is overdue already."""
        if self.sock is not None:
            return  # a request has one connection
        # socket.dup() fails for TLS sockets, so the descriptor is duplicated.
        self.sock = socket.socket(fileno=os.dup(sock.fileno()))
        if self.is_overdue:
            self.cut()

    def close(self) -> None:
        """Close the duplicate. The connection itself stays open."""
        if self.sock is not None:
            self.sock.close()

    def cut(self) -> None:
        """Shut the connection down, so that its reader gets an error. Never raises."""
        self.is_overdue = True
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


# By thread: `watched` is the request that it makes, or None.
_under_way = threading.local()


def watch(sock: socket.socket) -> None:
    """Give the watchdog the socket of this thread's request. Does nothing outside a request."""
    watched = getattr(_under_way, 'watched', None)
    if watched is not None:
        watched.carry(sock)


def time_left() -> float:
    """Return the seconds until the deadline of this thread's request: negative after it, infinite outside a request."""
    watched = getattr(_under_way, 'watched', None)
    return math.inf if watched is None else watched.deadline - time.monotonic()


class Watchdog:
    """A thread that cuts overdue requests, and calls `tidy` every TIDY_SECONDS. Begins at once.

    An error of `tidy` is logged.
    """

    def __init__(self, tidy: Callable[[], None]) -> None:
        self._tidy = tidy
        self._active: dict[int, Watched] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name='webhooks-watchdog', daemon=True)
        self._thread.start()

    @contextmanager
    def watch(self, timeout: float) -> Iterator[Watched]:
        """Cut the request that this thread makes inside the block, if it takes longer than `timeout` seconds.

        Yields the request's Watched.
        """
        watched = _under_way.watched = Watched(time.monotonic() + timeout)
        with self._changed:
            self._active[id(watched)] = watched
            if watched.deadline < self._wakes_at:
                self._changed.notify()
        try:
            yield watched
        finally:
            # The connection is kept for another request. If this one stayed in the list, its cut could hit that.
            with self._changed:
                self._active.pop(id(watched), None)
            _under_way.watched = None
            watched.close()

    def stop(self) -> None:
        """End the thread, and wait for its end. No request is cut any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        """Sleep until the next deadline or tidying, and do it."""
        tidies_at = time.monotonic() + TIDY_SECONDS
        while True:
            with self._changed:
                if self._stopped:
                    return
                self._cut_overdue(time.monotonic())
                deadlines = (watched.deadline for watched in self._active.values())
                self._wakes_at = min(deadlines, default=math.inf)
                self._changed.wait(max(min(self._wakes_at, tidies_at) - time.monotonic(), 0))
            if time.monotonic() >= tidies_at:
                self._tidy_up()
                tidies_at = time.monotonic() + TIDY_SECONDS

    def _tidy_up(self) -> None:
        try:
            self._tidy()
        except Exception:
            # If this thread ended, no request would have a deadline.
            logger.exception('connections=not tidied')

    def _cut_overdue(self, now: float) -> None:
        for key, watched in list(self._active.items()):
            if watched.deadline <= now:
                del self._active[key]
                watched.cut()
