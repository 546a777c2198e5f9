"""A way to PostgreSQL on which packets can vanish: open connections fall silent, new ones work."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import connection

from devstack.ports import LOOPBACK


class Way:
    """Forwards connections. It must not be used by the thread that serves it."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((LOOPBACK, 0))
        self._ends: list[socket.socket] = []
        self._silent: set[socket.socket] = set()
        # Clients' ends that have sent something, and those of which it has vanished.
        self.used: set[socket.socket] = set()
        self.lost: set[socket.socket] = set()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def fall_silent(self) -> None:
        """Lose everything that open connections send from here on, either way."""
        self._silent |= set(self._ends)
        self.lost.clear()

    def close(self) -> None:
        for one in (self._listener, *self._ends):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.used.add(source)
                if source in self._silent:
                    self.lost.add(source)
                else:
                    sink.sendall(data)
            if source not in self._silent:
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def way_to_postgresql() -> Iterator[Way]:
    """Connections that this process and its forks open meanwhile take it."""
    settings = connection.settings_dict
    before = {name: settings[name] for name in ('HOST', 'PORT')}
    way = Way((before['HOST'] or LOOPBACK, int(before['PORT'] or 5432)))
    connection.close()
    settings |= {'HOST': LOOPBACK, 'PORT': way.port}
    try:
        yield way
    finally:
        settings |= before
        connection.close()
        way.close()
