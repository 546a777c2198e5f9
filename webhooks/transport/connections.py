"""Opens the connections of HTTP requests: to allowed addresses only, cut at the deadline, and for whole answers only.

The classes are put below requests and urllib3.
"""

import http.client
import math
import socket
import time
from contextlib import suppress
from queue import LifoQueue
from typing import Any, BinaryIO

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.connectionpool import log as urllib3_logger
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager

from ..constants import MAX_RESPONSE_READ_BYTES
from . import blocked_networks, deadline

# Statuses that announce another answer. 101 is final: another protocol would follow.
INTERIM_STATUSES = frozenset(range(100, 200)) - {http.HTTPStatus.SWITCHING_PROTOCOLS}


# Enough for the longest body in chunks of a byte. Without a bound the lines between chunks could go on for ever.
MAX_CHUNK_LINE_BYTES = 8 * MAX_RESPONSE_READ_BYTES
# If headers and body are longer together, the headers leave first.
MAX_TOGETHER_BYTES = 64 * 1024
# Some receivers close a connection after five seconds. A request that is sent just then has to be sent again.
MAX_IDLE_SECONDS = 4.0


# At DEBUG urllib3 logs each request with its whole URL.
urllib3_logger.addFilter(lambda _record: deadline.time_left() == math.inf)


class Unanswered(Exception):
    """A kept connection ended without an answer: the client sends the request again, over a new connection.

    That is safe: the endpoint has read nothing, or knows the `webhook-id`.
    """


class NoAnswer(ConnectionError):
    """The connection ended before the first byte of an answer."""


class _Lines:
    """A stream whose lines may have `room` bytes together. A longer answer raises HTTPException.

    `what` names the lines in the error.
    """

    def __init__(self, stream: BinaryIO, what: str, room: int):
        self.stream = stream
        self.last: bytes | None = None
        self._what = what
        self._limit = self._room = room

    @property
    def have_come(self) -> bool:
        """Return whether any byte has come."""
        return self._room < self._limit

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.stream.readline(limit)
        self._room -= len(self.last)
        if self._room < 0:
            raise http.client.HTTPException(f'the {self._what} are longer than {self._limit} bytes')
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Response(http.client.HTTPResponse):
    """Reads an answer's headers until the final ones.

    http.client alone takes some interim answers for final, and a cut connection for the headers' end.
    """

    def begin(self) -> None:
        """Read the headers. http.client calls it.

        Raises NoAnswer if nothing came, and HTTPException for headers that are cut or too long.
        """
        lines = self.fp = _Lines(self.fp, 'headers', MAX_RESPONSE_READ_BYTES)
        try:
            super().begin()
            while self.status in INTERIM_STATUSES:
                self.headers = None  # with headers begin() does nothing
                super().begin()
        except ConnectionError as error:
            if not lines.have_come:
                raise NoAnswer(str(error)) from error
            raise
        finally:
            if self.fp is lines:
                self.fp = lines.stream
        if lines.last == b'':
            raise http.client.HTTPException('the connection was cut inside the headers')
        if self.chunked and self.fp is not None:
            # http.client does not bound the lines between and after chunks.
            self.fp = _Lines(self.fp, 'lines of the chunks', MAX_CHUNK_LINE_BYTES)
        if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.will_close = True  # no HTTP follows


class _Watched:
    """A connection of urllib3 that gives the watchdog its socket, and when it was last answered.

    It also sends short headers and body together: then they leave in one packet.
    """

    response_class = _Response
    _unsent: bytes | None = None
    _has_answered = False
    answered_at = 0.0

    def _new_conn(self) -> socket.socket:
        self._has_answered = False
        sock = self._connect()
        try:
            deadline.watch(sock)
        except OSError:
            sock.close()
            raise
        return sock

    def _connect(self) -> socket.socket:
        return super()._new_conn()

    def connect(self) -> None:
        """Connect, with tunnel and TLS. urllib3 calls it. Raises NoAnswer if the connection ends meanwhile."""
        try:
            super().connect()
        except ConnectionError as error:
            raise NoAnswer(str(error)) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send the request. urllib3 calls it."""
        if self.sock is not None:
            deadline.watch(self.sock)
        self._unsent = b''
        try:
            super().request(*args, **kwargs)
            unsent = self._unsent
        finally:
            self._unsent = None
        self.send(unsent)

    def getresponse(self) -> BaseHTTPResponse:
        """Return the answer, its headers read. Raises Unanswered if the connection answered before, and ended now."""
        try:
            response = super().getresponse()
        except NoAnswer as error:
            if self._has_answered:
                raise Unanswered from error
            raise
        self._has_answered = True
        self.answered_at = time.monotonic()
        return response

    def send(self, data: bytes) -> None:
        """Send the bytes, or keep them while they may go together with the next. http.client calls it."""
        if self._unsent is None:
            super().send(data)
        elif len(self._unsent) + len(data) <= MAX_TOGETHER_BYTES:
            self._unsent += data
        else:
            super().send(self._unsent)
            self._unsent = b''
            super().send(data)


class _Guarded(_Watched):
    """A connection to an endpoint. It goes only to addresses outside the blocked networks."""

    def _connect(self) -> socket.socket:
        """Return a socket that is connected to the first address that answers.

        Raises Blocked, NewConnectionError, and ConnectTimeoutError at the request's deadline.
        """
        problem: OSError | None = None
        try:
            found = blocked_networks.allowed(self._dns_host, self.port)
        except OSError as error:
            raise NewConnectionError(self, f'{self.host} cannot be resolved: {error.strerror}') from error
        for number, (family, kind, protocol, _name, address) in enumerate(found, 1):
            # A host may have many addresses. The first may lead nowhere, so it leaves half of the time to the others.
            timeout = min(self.timeout, deadline.time_left() / (1 if number == len(found) else 2))
            if timeout <= 0:
                raise ConnectTimeoutError(self, 'the time is up')
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(timeout)
                sock.connect(address)
            except OSError as error:
                problem = error
                sock.close()
            else:
                return sock
        raise NewConnectionError(self, str(problem)) from problem


class _ProxyManagers(dict[str, ProxyManager]):
    """Managers of proxies' connections, by proxy. No thread finds one whose pools are not changed yet."""

    def __setitem__(self, proxy: str, manager: ProxyManager) -> None:
        # Not guarded: the operator chose the proxy, which may be in a blocked network.
        _connect_by(_Watched, manager)
        super().__setitem__(proxy, manager)


class GuardedAdapter(HTTPAdapter):
    """An adapter of requests whose connections are guarded, and cut at the deadline."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools open connections of this module. requests calls it when the adapter is made."""
        super().init_poolmanager(*args, **kwargs)
        _connect_by(_Guarded, self.poolmanager)
        self.proxy_manager = _ProxyManagers()

    def exchange(
        self,
        request: PreparedRequest,
        *,
        timeout: Timeout,
        verify: bool | str,
        certificate: tuple[str, str] | None,
        proxies: dict[str, str],
    ) -> BaseHTTPResponse:
        """Send a request, and return the answer, its body unread. Follows no redirect.

        `proxies` are by scheme; `verify` may be a CA file; `certificate` has the paths of certificate and key. Raises
        urllib3.exceptions.HTTPError, OSError, Blocked and Unanswered.
        """
        pool = self.get_connection_with_tls_context(request, verify, proxies=proxies, cert=certificate)
        self.cert_verify(pool, request.url, verify, certificate)
        return pool.urlopen(
            request.method,
            self.request_url(request, proxies),
            body=request.body,
            headers=request.headers,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            retries=False,
            timeout=timeout,
        )

    def close_idle(self) -> None:
        """Close the connections that were unused for MAX_IDLE_SECONDS. The watchdog calls it."""
        for manager in (self.poolmanager, *list(self.proxy_manager.values())):
            for pool in filter(None, map(manager.pools.get, manager.pools.keys())):
                _close_idle(pool.pool)


def _close_idle(kept: LifoQueue) -> None:
    latest = time.monotonic() - MAX_IDLE_SECONDS
    with kept.mutex:  # meanwhile no thread takes a connection out
        for connection in kept.queue:
            if connection and connection.answered_at <= latest:
                with suppress(OSError):
                    connection.close()  # its next request opens it again


def _connect_by(kind: type[_Watched], manager: PoolManager) -> None:
    """Make the manager's pools open connections of this kind."""
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _pool(kind, pool) for scheme, pool in pools.items()}


def _pool(kind: type[_Watched], pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """Return a class of pools whose connections are of this kind."""
    connection = type(pool.ConnectionCls.__name__, (kind, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {'ConnectionCls': connection})
