"""Connections that go only to allowed addresses, end at the deadline, and need whole answers."""

import http.client
import socket
import time
from contextlib import suppress
from queue import LifoQueue
from typing import Any, BinaryIO

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager

from ..constants import MAX_RESPONSE_READ
from . import blocked_networks, deadline

# A final answer follows these.
INTERIM = frozenset(range(100, 200)) - {http.HTTPStatus.SWITCHING_PROTOCOLS}


# Bytes: enough for a body with one-byte chunks.
MAX_CHUNK_LINES = 8 * MAX_RESPONSE_READ
# Bytes.
MAX_TOGETHER = 64 * 1024
# Seconds: some receivers close after five.
IDLE = 4.0


class Unanswered(Exception):
    """Resending is safe: the endpoint read nothing, or knows the `webhook-id`."""


class _NoAnswer(ConnectionError):
    pass


class _Lines:
    """`what` names the limited lines in the error."""

    def __init__(self, stream: BinaryIO, what: str, room: int):
        self.stream = stream
        self.last: bytes | None = None
        self._what = what
        self._limit = self._room = room

    @property
    def have_come(self) -> bool:
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
    """http.client takes some interim answers for final, and a cut connection for the headers' end."""

    def begin(self) -> None:
        lines = self.fp = _Lines(self.fp, 'headers', MAX_RESPONSE_READ)
        try:
            super().begin()
            while self.status in INTERIM:
                self.headers = None  # else begin() does nothing
                super().begin()
        except ConnectionError as error:
            if not lines.have_come:
                raise _NoAnswer(str(error)) from error
            raise
        finally:
            if self.fp is lines:
                self.fp = lines.stream
        if lines.last == b'':
            raise http.client.HTTPException('the connection was cut inside the headers')
        if self.chunked and self.fp is not None:
            # Lines between and after chunks may have any length.
            self.fp = _Lines(self.fp, 'lines of the chunks', MAX_CHUNK_LINES)
        if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.will_close = True  # no HTTP follows


class _Watched:
    """Short headers and body go out together."""

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

    def request(self, *args: Any, **kwargs: Any) -> None:
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
        try:
            response = super().getresponse()
        except _NoAnswer as error:
            if self._has_answered:
                raise Unanswered from error
            raise
        self._has_answered = True
        self.answered_at = time.monotonic()
        return response

    def send(self, data: bytes) -> None:
        if self._unsent is None:
            super().send(data)
        elif len(self._unsent) + len(data) <= MAX_TOGETHER:
            self._unsent += data
        else:
            super().send(self._unsent)
            self._unsent = b''
            super().send(data)


class _Guarded(_Watched):
    def _connect(self) -> socket.socket:
        problem: OSError | None = None
        try:
            found = blocked_networks.allowed(self._dns_host, self.port)
        except OSError as error:
            raise NewConnectionError(self, f'{self.host} cannot be resolved: {error.strerror}') from error
        for family, kind, protocol, _name, address in found:
            # Else each address could take a whole timeout.
            timeout = min(self.timeout, deadline.time_left())
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
    """No thread finds one that is incomplete."""

    def __setitem__(self, proxy: str, manager: ProxyManager) -> None:
        # Not guarded: the operator chose the proxy.
        _connect_by(_Watched, manager)
        super().__setitem__(proxy, manager)


class GuardedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _connect_by(_Guarded, self.poolmanager)
        self.proxy_manager = _ProxyManagers()

    def exchange(
        self,
        request: PreparedRequest,
        *,
        timeout: Timeout,
        verify: bool | str,
        certificate: str | tuple[str, str] | None,
        proxies: dict[str, str],
    ) -> BaseHTTPResponse:
        """Return the answer, its body unread. Raises urllib3.exceptions.HTTPError, OSError and Unanswered."""
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
        for manager in (self.poolmanager, *list(self.proxy_manager.values())):
            for pool in filter(None, map(manager.pools.get, manager.pools.keys())):
                _close_idle(pool.pool)


def _close_idle(kept: LifoQueue) -> None:
    latest = time.monotonic() - IDLE
    with kept.mutex:  # nobody takes one meanwhile
        for connection in kept.queue:
            if connection and connection.answered_at <= latest:
                with suppress(OSError):
                    connection.close()  # its next request opens it again


def _connect_by(kind: type[_Watched], manager: PoolManager) -> None:
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _pool(kind, pool) for scheme, pool in pools.items()}


def _pool(kind: type[_Watched], pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection = type(pool.ConnectionCls.__name__, (kind, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {'ConnectionCls': connection})
