"""Transport: one request to an outcome, with bounds on what the endpoint can do to us.

`requests` with an adapter of our own, which decides at connect time where a connection may go, and ends whatever is
still under way at the deadline.
"""

import functools
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import ProxyManager

from . import addresses
from .constants import MAX_RESPONSE_KEPT, MAX_RESPONSE_READ

REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT_TIMEOUT = 10
# Characters kept of an error, and of a header's value.
MAX_ERROR, MAX_HEADER = 1000, 1000


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
        self._watchdog = Watchdog()
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
        result['error'] = _storable(result['error'])[:MAX_ERROR]
        return Outcome(started_at=started_at, duration=time.monotonic() - start, **result)

    def _attempt(self, request: Request, watched: 'Watched') -> dict[str, Any]:
        try:
            result = self._exchange(request)
        except Exception as error:
            # Whatever it is, one request must not stop the others.
            result = _failure(error, request)
        # To http.client a line that was cut in the middle of the headers is their end.
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
        return f'HTTP {response.status_code}: redirect to {response.headers.get("Location", "nowhere")} is not followed'
    if not response.ok:
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
    return _storable(_decode(content[:MAX_RESPONSE_KEPT], response.encoding or 'utf-8'))


def _decode(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset, errors='replace')
    except (LookupError, ValueError):  # the endpoint names one that is none, or none for text
        return content.decode(errors='replace')


def _headers(response: requests.Response) -> CaseInsensitiveDict:
    return CaseInsensitiveDict(
        (_storable(name), _storable(value)[:MAX_HEADER]) for name, value in response.headers.items()
    )


def _storable(text: str) -> str:
    """Return the text without what PostgreSQL does not store: NUL, and surrogates without their other half."""
    return text.replace('\x00', '\ufffd').encode(errors='replace').decode()


def _late(request: Request) -> dict[str, Any]:
    return {'error': f'no answer within {request.timeout:g} seconds', 'unreachable': True}


def _failure(error: Exception, request: Request) -> dict[str, Any]:
    if blocked := _find(error, addresses.Blocked):
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
        list(addresses.allowed(host, 0))
    except socket.gaierror:
        return  # the proxy may know a name that we do not


class _Watched:
    """A urllib3 connection that the watchdog can cut."""

    def _new_conn(self) -> socket.socket:
        sock = self._connect()
        self._cut = sock.dup()
        _watch(self._cut)
        return sock

    def _connect(self) -> socket.socket:
        return super()._new_conn()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _watch(self._cut)
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
            found = addresses.allowed(self._dns_host, self.port)
        except OSError as error:
            raise NewConnectionError(self, f'{self.host} cannot be resolved: {error.strerror}') from error
        for family, kind, protocol, _name, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.timeout)
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


#
# The deadline: a socket's own timeout starts anew with each byte, so an endpoint that drips would never run into it.
#


@dataclass
class Watched:
    """A request under way: when it has to be over, and the socket that carries it, once there is one."""

    deadline: float
    sock: socket.socket | None = None
    is_overdue: bool = False

    def carry(self, sock: socket.socket) -> None:
        self.sock = sock
        if self.is_overdue:
            # The time was up before there was a socket: the look-up of the name, or the connecting, took it all.
            self.cut()

    def cut(self) -> None:
        self.is_overdue = True
        if self.sock is not None:
            # It may be closed already.
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


_under_way = threading.local()


def _watch(sock: socket.socket) -> None:
    """Name the socket of this thread's request."""
    watched = getattr(_under_way, 'watched', None)
    if watched is not None:
        watched.carry(sock)


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

    def stop(self) -> None:
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
