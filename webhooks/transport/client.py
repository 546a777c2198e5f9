import encodings
import functools
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from encodings.aliases import aliases
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import NewConnectionError

from .. import conf
from ..brokers import address
from ..constants import MAX_RESPONSE_KEPT, MAX_RESPONSE_READ
from ..security.echoes import Echoes
from ..security.masking import MASK, mask_url
from ..storable import printable, storable
from . import blocked_networks, deadline
from .connections import GuardedAdapter, Unanswered
from .exchange import MAX_ERROR, MAX_HEADER, SHORTAGES, Answer, Outcome, Request, check_headers
from .publishing import Publisher

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# A proxy's answers while its endpoint is down.
AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
CONNECT_TIMEOUT = 10
# Python would keep the look-up of any other name. Punycode is too slow.
CHARSETS = frozenset({*aliases.values(), 'cp874', 'koi8_u'})
# Every proxy reads these as the same host.
HOST = re.compile(r'[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]+(%[a-z0-9_.-]+)?', re.IGNORECASE | re.ASCII)
# They often repeat the URL.
LOCATIONS = frozenset({'content-location', 'location', 'refresh'})
# WWW-Authenticate explains a refusal.
ADMITTING = re.compile('cookie|token|secret|session|auth(?!enticate)', re.IGNORECASE)


class UnknownHost(Exception):
    """A proxy's target cannot be checked."""


class Client:
    """Keeps up to `connections` per host alive for a while. Threads may share it."""

    def __init__(self, connections: int):
        self._adapter = _adapter(connections)
        self._watchdog = deadline.Watchdog(self._adapter.close_idle)
        self._publisher = Publisher()

    def close(self) -> None:
        self._adapter.close()
        self._watchdog.stop()
        self._publisher.close()

    def send(self, request: Request) -> Outcome:
        """Send to an endpoint, or publish to a broker. Never raises for these or the network."""
        if place := address.split(request.url):
            return self._publisher.send(request, place)
        started_at, start, echoes = time.time(), time.monotonic(), Echoes(request.secrets)
        try:
            result = self._attempt(request, request.timeout, self._adapter, echoes)
        except Unanswered:
            with closing(_adapter(1)) as unused:
                result = self._attempt(request, request.timeout - (time.monotonic() - start), unused, echoes)
        return Outcome(started_at=started_at, duration=time.monotonic() - start, **result)

    def _attempt(self, request: Request, seconds: float, adapter: GuardedAdapter, echoes: Echoes) -> dict[str, Any]:
        with self._watchdog.watch(seconds) as watched:
            try:
                result = _exchange(request, adapter, echoes)
            except Exception as error:
                if isinstance(error, Unanswered) and not watched.is_overdue:
                    raise
                # One request must never stop others.
                result = _failure(error, request)
                result['error'] = echoes.beginning(result['error'], MAX_ERROR)
            return _late(request) if watched.is_overdue else result


def _adapter(connections: int) -> GuardedAdapter:
    """Without a Session: no environment, no cookies, no redirects."""
    return GuardedAdapter(pool_connections=connections, pool_maxsize=connections, max_retries=0)


def _exchange(request: Request, adapter: GuardedAdapter, echoes: Echoes) -> dict[str, Any]:
    prepared = _prepare(request)
    if request.proxies:
        _check_target(prepared.url)
    response = adapter.exchange(
        prepared,
        timeout=Timeout(connect=min(request.timeout, CONNECT_TIMEOUT), read=request.timeout),
        verify=request.verify,
        certificate=request.certificate,
        proxies=dict(request.proxies),
    )
    try:
        text, error = _read(response), echoes.beginning(_verdict(response), MAX_ERROR)
        headers, body = _headers(response, echoes), echoes.beginning(text, MAX_RESPONSE_KEPT)
        return {
            'status': response.status,
            'headers': headers,
            'body': storable(body),
            'error': error or request.judge(Answer(response.status, headers, text, echoes)),
            'unreachable': response.status in AWAY,
        }
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()


def _prepare(request: Request) -> requests.PreparedRequest:
    check_headers(request.headers)
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = _normalize(request.url)
    prepared.headers = request.headers
    prepared.body = request.body
    return prepared


@functools.lru_cache(1024)
def _normalize(url: str) -> str:
    """Raises requests.RequestException."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url


def _verdict(response: BaseHTTPResponse) -> str:
    if response.status in REDIRECTS:
        return f'HTTP {response.status}: redirect to {_place(response.headers)} is not followed'
    if response.status >= HTTPStatus.BAD_REQUEST or response.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return f'HTTP {response.status} {response.reason or ""}'.strip()
    return ''


def _place(headers: Mapping[str, str]) -> str:
    """Scheme and host alone: a path may name an object."""
    if 'Location' not in headers:
        return 'nowhere'
    target = urlsplit(mask_url(headers['Location']))
    return urlunsplit((target.scheme, target.netloc, '', '', '')) if target.netloc else 'another path'


def _read(response: BaseHTTPResponse) -> str:
    content = b''
    # urllib3 checks the announced length only at the end.
    while (room := MAX_RESPONSE_READ - len(content)) and (part := response.read(room, decode_content=False)):
        content += part
    if len(content) < MAX_RESPONSE_READ:
        response.drain_conn()
    else:
        response.close()
    return _decode(content, get_encoding_from_headers(response.headers) or 'utf-8')


def _decode(content: bytes, charset: str) -> str:
    name = encodings.normalize_encoding(charset).lower()
    name = aliases.get(name, name)
    try:
        return content.decode(name if name in CHARSETS else 'utf-8', errors='replace')
    except (LookupError, ValueError):  # not for text
        return content.decode(errors='replace')


def _headers(response: BaseHTTPResponse, echoes: Echoes) -> CaseInsensitiveDict:
    """Retry-After first, before the limit."""
    kept, room = CaseInsensitiveDict(), MAX_RESPONSE_KEPT
    for name, value in sorted(response.headers.items(), key=lambda header: header[0].lower() != 'retry-after'):
        header = _header(name, echoes), _header_value(name, value, echoes)
        room -= sum(map(len, header))
        if room < 0:
            break
        kept[header[0]] = header[1]
    return kept


def _header(text: str, echoes: Echoes) -> str:
    return printable(echoes.beginning(text, MAX_HEADER))[:MAX_HEADER]


def _header_value(name: str, value: str, echoes: Echoes) -> str:
    if name.lower() == 'retry-after' and value.isdecimal():
        return value[:MAX_HEADER]
    if ADMITTING.search(name):
        return MASK
    return _header(mask_url(value) if name.lower() in LOCATIONS else value, echoes)


def _late(request: Request) -> dict[str, Any]:
    return {'error': f'no answer within {request.timeout:g} seconds', 'unreachable': True}


def _failure(error: Exception, request: Request) -> dict[str, Any]:
    if any(isinstance(one, OSError) and one.errno in SHORTAGES for one in _causes(error)):
        return {'error': _reason(error), 'starved': True}
    if blocked := _find(error, blocked_networks.Blocked):
        return {'error': str(blocked)}
    if isinstance(error, UnknownHost):
        return {'error': str(error), 'unreachable': True}
    if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, NewConnectionError):
        return _late(request)
    # If the endpoint reads no body, the socket's timeout comes first.
    unreachable = (NewConnectionError, TimeoutError, urllib3.exceptions.SSLError)
    return {'error': _reason(error), 'unreachable': _find(error, unreachable) is not None}


def _find(error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]) -> BaseException | None:
    return next((one for one in _causes(error) if isinstance(one, kind)), None)


def _causes(error: BaseException) -> Sequence[BaseException | None]:
    """urllib3 wraps errors as cause, context, reason or argument."""
    seen: list[BaseException | None] = [error]
    for one in seen:
        if one is not None and len(seen) < 20:
            seen += [
                one.__cause__,
                one.__context__,
                *(a for a in (*one.args, getattr(one, 'reason', None)) if isinstance(a, BaseException)),
            ]
    return seen


def _reason(error: BaseException) -> str:
    """The URL may hold secrets."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return f'{type(cause).__name__}: {cause.strerror}'
    return f'{type(cause).__name__}: {cause}'


def _check_target(url: str) -> None:
    """Raises Blocked and UnknownHost."""
    host = (urlsplit(url).hostname or '').replace('%25', '%', 1)
    if not HOST.fullmatch(host):
        raise UnknownHost(f'{host} is not a host name that can be sent to the proxy')
    try:
        blocked_networks.check_all(host)
    except socket.gaierror as error:
        if not conf.get().proxy_resolves_names or blocked_networks.is_number(host):
            raise UnknownHost(f'{host} cannot be resolved: {error.strerror}') from None
