"""The watchdog: ends the requests whose time is up.

A socket's own timeout starts anew with each byte, so an endpoint that drips would never run into it.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class Watched:
    """A request under way: when it has to be over, and the socket that carries it, once there is one.

    It holds a duplicate of the socket. http.client closes its own before the last answer of a connection is read.
    """

    deadline: float
    sock: socket.socket | None = None
    is_overdue: bool = False

    def carry(self, sock: socket.socket) -> None:
        """Name the socket. If the time is up already, it is cut at once."""
        if self.sock is not None:
            return  # a request has one connection: urllib3 opened it beforehand
        # A socket that speaks TLS cannot be duplicated as such.
        self.sock = socket.socket(fileno=os.dup(sock.fileno()))
        if self.is_overdue:
            # The time was up before there was a socket: the look-up of the name, or the connecting, took it all.
            self.cut()

    def close(self) -> None:
        """Let the socket go. Nobody may cut it any more."""
        if self.sock is not None:
            self.sock.close()

    def cut(self) -> None:
        """Shut the socket down, so that whoever reads it gets an error. Never raises."""
        self.is_overdue = True
        if self.sock is not None:
            # The endpoint may have closed the connection already.
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


_under_way = threading.local()


def watch(sock: socket.socket) -> None:
    """Name the socket of this thread's request."""
    watched = getattr(_under_way, 'watched', None)
    if watched is not None:
        watched.carry(sock)


def time_left() -> float:
    """Return the seconds that this thread's request still has, infinite outside of one."""
    watched = getattr(_under_way, 'watched', None)
    return math.inf if watched is None else watched.deadline - time.monotonic()


class Watchdog:
    """One thread that cuts the requests which are overdue."""

    def __init__(self) -> None:
        self._active: dict[int, Watched] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name='webhooks-watchdog', daemon=True)
        self._thread.start()

    @contextmanager
    def watch(self, timeout: float) -> Iterator[Watched]:
        """Watch the request that this thread makes inside the block, for `timeout` seconds."""
        watched = _under_way.watched = Watched(time.monotonic() + timeout)
        with self._changed:
            self._active[id(watched)] = watched
            if watched.deadline < self._wakes_at:
                self._changed.notify()
        try:
            yield watched
        finally:
            # Under the lock: a connection that goes to the next request must not be cut for this one.
            with self._changed:
                self._active.pop(id(watched), None)
            _under_way.watched = None
            watched.close()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                self._cut_overdue(time.monotonic())
                self._wakes_at = min((watched.deadline for watched in self._active.values()), default=math.inf)
                wait = None if self._wakes_at == math.inf else max(self._wakes_at - time.monotonic(), 0)
                self._changed.wait(wait)

    def _cut_overdue(self, now: float) -> None:
        for key, watched in list(self._active.items()):
            if watched.deadline <= now:
                del self._active[key]
                watched.cut()
