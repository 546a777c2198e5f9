"""Transport: one request to an outcome, with bounds on what the endpoint can do to us.

`requests` with an adapter of our own, which decides at connect time where a connection may go, and ends whatever is
still under way at the deadline.
"""

import functools
import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import ProxyManager

from ..constants import MAX_RESPONSE_KEPT, MAX_RESPONSE_READ
from ..security.masking import mask_url
from ..storable import storable
from . import blocked_networks, deadline

REDIRECTS = frozenset({301, 302, 303, 307, 308})
SWITCHING_PROTOCOLS = 101
# Answers after which another one comes, which is the one that counts.
INTERIM = frozenset(range(100, 200)) - {SWITCHING_PROTOCOLS}
CONNECT_TIMEOUT = 10
# Characters kept of an error, and of a header.
MAX_ERROR, MAX_HEADER = 1000, 1000
# These repeat the URL, as often as not.
LOCATIONS = frozenset({'content-location', 'location', 'refresh'})


@dataclass(frozen=True, kw_only=True)
class Request:
    """`timeout` is in seconds, for everything from the name look-up to the last byte of the response."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: float
    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a request. `error` is '' on success; `unreachable`: no connection, or no answer in time."""

    started_at: float
    duration: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ''
    error: str = ''
    unreachable: bool = False
    # No request could be made, and none will be until somebody mends the definition.
    unsendable: bool = False

    @property
    def succeeded(self) -> bool:
        return not self.error


class Client:
    """Sends requests over connections that are kept alive. May be shared by threads; lives as long as a job."""

    def __init__(self, connections: int):
        self._watchdog = deadline.Watchdog()
        # The adapter without a requests.Session: nothing comes from the environment, no cookie is kept, no redirect
        # is followed.
        self._adapter = GuardedAdapter(pool_connections=connections, pool_maxsize=connections, max_retries=0)

    def close(self) -> None:
        self._adapter.close()
        self._watchdog.stop()

    def send(self, request: Request) -> Outcome:
        """Send a request and return what came of it; never raises for what the endpoint or the network does."""
        started_at, start = time.time(), time.monotonic()
        with self._watchdog.watch(request.timeout) as watched:
            result = self._attempt(request, watched)
        result['error'] = storable(result['error'])[:MAX_ERROR]
        return Outcome(started_at=started_at, duration=time.monotonic() - start, **result)

    def _attempt(self, request: Request, watched: deadline.Watched) -> dict[str, Any]:
        try:
            result = self._exchange(request)
        except Exception as error:
            # Whatever it is, one request must not stop the others.
            result = _failure(error, request)
        # Whatever it looks like: it was the watchdog who cut the line.
        return _late(request) if watched.is_overdue else result

    def _exchange(self, request: Request) -> dict[str, Any]:
        if request.proxies:
            _check_target(request.url)
        with self._adapter.send(
            _prepare(request),
            timeout=(min(request.timeout, CONNECT_TIMEOUT), request.timeout),
            verify=request.verify,
            cert=request.certificate,
            proxies=dict(request.proxies),
            stream=True,
        ) as response:
            body = _read(response)
            return {
                'status': response.status_code,
                'headers': _headers(response),
                'body': body,
                'error': _verdict(response),
            }


def _prepare(request: Request) -> requests.PreparedRequest:
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = _normalize(request.url)
    prepared.headers = CaseInsensitiveDict(request.headers)
    prepared.prepare_body(request.body, None)
    return prepared


@functools.lru_cache(1024)
def _normalize(url: str) -> str:
    """Return the URL as `requests` sends it. Raises requests.RequestException for one that cannot be sent."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url


def _verdict(response: requests.Response) -> str:
    """Return why the response is no success, '' if it is one."""
    if response.status_code in REDIRECTS:
        target = mask_url(response.headers.get('Location', 'nowhere'))
        return f'HTTP {response.status_code}: redirect to {target} is not followed'
    if not response.ok or response.status_code == SWITCHING_PROTOCOLS:
        return f'HTTP {response.status_code} {response.reason or ""}'.strip()
    return ''


def _read(response: requests.Response) -> str:
    """Return the beginning of the body. What is beyond the limit is left unread, and the connection not used again."""
    content = b''
    # Until nothing comes: only then urllib3 compares what came with what was announced.
    while (room := MAX_RESPONSE_READ - len(content)) and (part := response.raw.read(room, decode_content=False)):
        content += part
    if len(content) < MAX_RESPONSE_READ:
        response.raw.drain_conn()
    else:
        response.raw.close()
    return storable(_decode(content[:MAX_RESPONSE_KEPT], response.encoding or 'utf-8'))


def _decode(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset, errors='replace')
    except (LookupError, ValueError):  # the endpoint names one that is none, or none for text
        return content.decode(errors='replace')


def _headers(response: requests.Response) -> CaseInsensitiveDict:
    """Return the headers, as many as are kept; Retry-After is acted upon, so it comes first."""
    kept, room = CaseInsensitiveDict(), MAX_RESPONSE_KEPT
    for name, value in sorted(response.headers.items(), key=lambda header: header[0].lower() != 'retry-after'):
        shown = mask_url(value) if name.lower() in LOCATIONS else value
        header = storable(name)[:MAX_HEADER], storable(shown)[:MAX_HEADER]
        room -= sum(map(len, header))
        if room < 0:
            break
        kept[header[0]] = header[1]
    return kept


def _late(request: Request) -> dict[str, Any]:
    return {'error': f'no answer within {request.timeout:g} seconds', 'unreachable': True}


def _failure(error: Exception, request: Request) -> dict[str, Any]:
    if blocked := _find(error, blocked_networks.Blocked):
        return {'error': str(blocked)}
    if isinstance(error, requests.Timeout):
        return _late(request)
    refused = _find(error, NewConnectionError) is not None or isinstance(error, requests.exceptions.SSLError)
    return {'error': _reason(error), 'unreachable': refused}


def _find(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """Return the error of that kind behind an error: as cause, context, reason or argument, as urllib3 wraps them."""
    seen: list[BaseException | None] = [error]
    for one in seen:
        if isinstance(one, kind):
            return one
        if one is not None and len(seen) < 20:
            seen += [
                one.__cause__,
                one.__context__,
                *(a for a in (*one.args, getattr(one, 'reason', None)) if isinstance(a, BaseException)),
            ]
    return None


def _reason(error: BaseException) -> str:
    """Return the innermost reason in a line, without the URL, which may hold secrets."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return f'{type(cause).__name__}: {cause.strerror}'
    return f'{type(cause).__name__}: {cause}'[:500]


#
# Where a connection may go
#


def _check_target(url: str | None) -> None:
    """A proxy connects in our stead: look the target up beforehand, as well as that can be done from here."""
    host = requests.utils.urlparse(url).hostname
    try:
        list(blocked_networks.allowed(host, 0))
    except socket.gaierror:
        return  # the proxy may know a name that we do not


class _Lines:
    """A stream of lines that knows the last one that was read, and has an end."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.last: bytes | None = None
        self._room = MAX_RESPONSE_READ

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.stream.readline(limit)
        self._room -= len(self.last)
        if self._room < 0:
            raise http.client.HTTPException(f'the headers are longer than {MAX_RESPONSE_READ} bytes')
        return self.last

    def close(self) -> None:
        self.stream.close()


class _Response(http.client.HTTPResponse):
    """The final answer, with all of its headers.

    To http.client, interim answers other than 100 are final, and the end of the connection ends the headers as well.
    """

    def begin(self) -> None:
        lines = self.fp = _Lines(self.fp)
        try:
            super().begin()
            while self.status in INTERIM:
                self.headers = None  # so that it reads on
                super().begin()
        finally:
            if self.fp is lines:
                self.fp = lines.stream
        if lines.last == b'':
            raise http.client.HTTPException('the connection was cut inside the headers')
        if self.status == SWITCHING_PROTOCOLS:
            self.will_close = True  # what it speaks from now on is not HTTP


class _Watched:
    """A urllib3 connection that the watchdog can cut."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        sock = self._connect()
        self._cut = sock.dup()
        deadline.watch(self._cut)
        return sock

    def _connect(self) -> socket.socket:
        return super()._new_conn()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            deadline.watch(self._cut)
        super().request(*args, **kwargs)

    def close(self) -> None:
        super().close()
        if cut := self.__dict__.pop('_cut', None):
            cut.close()


class _Guarded(_Watched):
    """One that connects only where it may."""

    def _connect(self) -> socket.socket:
        problem: OSError | None = None
        try:
            found = blocked_networks.allowed(self._dns_host, self.port)
        except OSError as error:
            raise NewConnectionError(self, f'{self.host} cannot be resolved: {error.strerror}') from error
        for family, kind, protocol, _name, address in found:
            # Of several addresses each would take a whole timeout.
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


class _GuardedHTTP(_Guarded, HTTPConnection):
    pass


class _GuardedHTTPS(_Guarded, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class GuardedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {'http': _HTTPPool, 'https': _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        """Where a proxy is, NetBox's operator has decided: connections to it are watched, not guarded."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            classes = manager.pool_classes_by_scheme
            manager.pool_classes_by_scheme = {scheme: _watched(pool) for scheme, pool in classes.items()}
        return manager


def _watched(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """Return the same class of pool, whose connections the watchdog can cut."""
    connection = type(pool.ConnectionCls.__name__, (_Watched, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {'ConnectionCls': connection})
