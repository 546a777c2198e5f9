"""A server on loopback that sends exact bytes, with or without TLS."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

# As an answer it resets the connection.
RESET = b''
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'


class Server:
    """Gives `answers` in turn, and repeats the last.

    An answer is bytes, or an iterator that times them. `None` keeps silent and connected.
    """

    def __init__(self, *answers: bytes | Callable[[], Iterator[bytes]] | None, context: ssl.SSLContext | None = None):
        self.requests: list[bytes] = []
        self.server_names: list[str | None] = []
        self.client_certificates: list[dict | None] = []
        self.connections = 0
        self.closing = threading.Event()
        self._answers = list(answers) or [OK]
        self._context = context
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        if context:
            context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]

    def url(self, path: str = '/', host: str = '127.0.0.1') -> str:
        return f'{"https" if self._context else "http"}://{host}:{self.port}{path}'

    def serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        # A thread closes descriptors, which later tests count.
        for thread in self._threads:
            thread.join(10)

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
                self.client_certificates.append(connection.getpeercert())
            stream = connection.makefile('rb')
            while request := _read(stream):
                self.requests.append(request)
                if not self._answer(connection):
                    return

    def _answer(self, connection: socket.socket) -> bool:
        """Return whether the connection stays open: only after a whole answer."""
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            self.closing.wait()
            return False
        if answer == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            connection.close()
            return False
        parts = [answer] if isinstance(answer, bytes) else answer()
        for part in parts:
            connection.sendall(part)
        if isinstance(answer, bytes) and b'Content-Length' in answer:
            return True
        connection.shutdown(socket.SHUT_RDWR)
        return False


def _read(stream: object) -> bytes:
    lines: Sequence[bytes] = []
    while (line := stream.readline()) not in (b'\r\n', b''):
        lines = [*lines, line]
    length = next((int(line[15:]) for line in lines if line.lower().startswith(b'content-length:')), 0)
    return b''.join(lines) + stream.read(length)


@contextmanager
def serving(*answers: bytes | Callable[[], Iterator[bytes]] | None, **options: object) -> Iterator[Server]:
    server = Server(*answers, **options)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.close()
