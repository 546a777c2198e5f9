"""A loopback HTTP endpoint that records requests and answers as told, for tests, benchmarks and the demo.

    with Receiver() as receiver:
        receiver.answers('/hook', Answer(500), Answer(503, headers={'Retry-After': '1'}), Answer(200))
        … send to receiver.url('/hook') …
        first, second = receiver.wait_for(2)

A path's last answer repeats. Other paths answer 200. It parses HTTP/1.1 by hand, as http.server would slow benchmarks
down. Connections are kept alive.
"""

import json
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

from devstack.ports import LOOPBACK


class Manner(StrEnum):
    WHOLE = 'whole'
    DRIP = 'drip'  # a byte at a time, `delay` apart
    HANG = 'hang'  # never, until the client or the receiver closes
    CUT = 'cut'  # half of it, then the connection is closed


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b''
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    manner: Manner = Manner.WHOLE

    def encode(self) -> bytes:
        headers = {'Content-Length': str(len(self.body))} | dict(self.headers)
        lines = ''.join(f'{name}: {value}\r\n' for name, value in headers.items())
        return f'HTTP/1.1 {self.status} {_reason(self.status)}\r\n{lines}\r\n'.encode('latin-1') + self.body


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return 'Unknown'


@dataclass(frozen=True)
class Received:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    arrived: float  # time.time()
    connection: int  # the same for requests over one kept-alive connection

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


class MalformedRequest(ValueError):
    """The receiver closes the connection, as a server may."""


def read_request(stream: BinaryIO, connection: int) -> Received | None:
    """Return None at the end of the connection."""
    start = stream.readline()
    if not start:
        return None
    method, _, rest = start.decode('latin-1').partition(' ')
    headers = list(_read_headers(stream))
    body = _read_body(stream, {name.lower(): value for name, value in headers})
    return Received(method, rest.rpartition(' ')[0], headers, body, time.time(), connection)


def _read_headers(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    while (line := stream.readline()) not in (b'\r\n', b'\n'):
        name, colon, value = line.decode('latin-1').partition(':')
        if not colon:
            raise MalformedRequest(line)
        yield name, value.strip()


def _read_body(stream: BinaryIO, headers: Mapping[str, str]) -> bytes:
    if headers.get('transfer-encoding', '').lower() == 'chunked':
        return b''.join(_read_chunks(stream))
    return stream.read(int(headers.get('content-length', 0)))


def _read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline(), 16):
        yield stream.read(size)
        stream.readline()
    stream.readline()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128
    receiver: 'Receiver'

    def process_request(self, request: Any, client_address: Any) -> None:
        self.receiver.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.receiver.closed(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news in tests."""


class _Handler(StreamRequestHandler):
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        while request := read_request(self.rfile, id(self)):
            answer = self.server.receiver.record(request)
            if not self._give(answer):
                return

    def _give(self, answer: Answer) -> bool:
        """Return False if the answer ends the connection."""
        if answer.manner is Manner.HANG:
            self._wait_for_the_end()
            return False
        if answer.manner is Manner.DRIP:
            return self._drip(answer)
        if answer.delay:
            self.server.receiver.closing.wait(answer.delay)
        data = answer.encode()
        if answer.manner is Manner.CUT:
            self.connection.sendall(data[: len(data) // 2])
            return False
        self.connection.sendall(data)
        return True

    def _wait_for_the_end(self) -> None:
        while self.rfile.read(1):
            pass

    def _drip(self, answer: Answer) -> bool:
        for byte in answer.encode():
            self.connection.sendall(bytes([byte]))
            if self.server.receiver.closing.wait(answer.delay):
                return False
        return True


class Receiver:
    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[Received] = []
        self.closing = threading.Event()
        self._news = threading.Condition()
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._serving: threading.Thread | None = None
        # Bound, but not listening: while the receiver is closed, nobody else gets its port.
        self._held: socket.socket | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._held:
            self._held.close()

    def open(self) -> None:
        """After `close` use the same port again."""
        self.closing.clear()
        if not self._held:
            self._held = socket.socket()
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind((LOOPBACK, self.port))
            self.port = self._held.getsockname()[1]
        self._server = _Server((LOOPBACK, self.port), _Handler)
        self._server.receiver = self
        self._serving = threading.Thread(target=self._serve, args=(self._server,), daemon=True)
        self._serving.start()

    def _serve(self, server: _Server) -> None:
        """Take connections until `close` shuts the socket. `serve_forever` would look every few milliseconds."""
        while not self.closing.is_set():
            server.handle_request()

    def close(self) -> None:
        """Raises TimeoutError if a connection stays open."""
        self.closing.set()
        if self._server:
            _shut(self._server.socket)
            self._serving.join()
            self._server.server_close()
            self._server = None
        with self._news:
            for connection in self._connections:
                _shut(connection)
            if not self._news.wait_for(lambda: not self._connections, timeout=60):
                raise TimeoutError(f'{len(self._connections)} connections are still open')

    def opened(self, connection: socket.socket) -> None:
        with self._news:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._news:
            self._connections.discard(connection)
            self._news.notify_all()

    def url(self, path: str = '/') -> str:
        return f'http://{LOOPBACK}:{self.port}{path}'

    def answers(self, path: str, *answers: Answer | int) -> None:
        """Answer in turn. The last repeats. A number is a status."""
        with self._news:
            self._answers[path] = [Answer(each) if isinstance(each, int) else each for each in answers]

    def record(self, request: Received) -> Answer:
        with self._news:
            self.requests.append(request)
            self._news.notify_all()
            answers = self._answers.get(request.path)
            if not answers:
                return _OK
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def clear(self) -> None:
        with self._news:
            self.requests.clear()

    def matching(self, predicate: Callable[[Received], bool] | None = None) -> list[Received]:
        return [request for request in self.requests if predicate is None or predicate(request)]

    def wait_for(
        self, number: int, predicate: Callable[[Received], bool] | None = None, timeout: float = 60
    ) -> list[Received]:
        def arrived() -> bool:
            return len(self.requests) >= number and len(self.matching(predicate)) >= number

        with self._news:
            if not self._news.wait_for(arrived, timeout):
                raise TimeoutError(f'{len(self.matching(predicate))} of {number} requests arrived in {timeout} s')
            return self.matching(predicate)


_OK = Answer()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
