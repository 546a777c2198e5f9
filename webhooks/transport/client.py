"""Sends requests over HTTP, and reads no more of an answer than is kept or judged.

Requests to brokers go to publishing.py.
"""

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
from ..constants import MAX_RESPONSE_KEPT_CHARS, MAX_RESPONSE_READ_BYTES
from ..security.echoes import Echoes
from ..security.masking import MASK, mask_url
from ..storable import printable, storable
from . import blocked_networks, deadline
from .connections import GuardedAdapter, NoAnswer, Unanswered
from .exchange import MAX_ERROR_CHARS, MAX_HEADER_CHARS, SHORTAGE_ERRNOS, Answer, Outcome, Request, check_headers
from .publishing import Publisher

# They are never followed: each is a failure that names the new place.
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
# A proxy answers so while its endpoint is down: the endpoint then counts as unreachable.
AWAY_STATUSES = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
# If the request goes over TLS, http.client reports the proxy's answer with these words.
NO_TUNNEL = re.compile(rf'OSError: Tunnel connection failed: ({"|".join(map(str, map(int, AWAY_STATUSES)))})\b')
# The longest wait for a connection, however long the request's own timeout is.
CONNECT_SECONDS = 10
# Charsets that an answer may name. Python keeps the look-up of each name for ever, so endless new names would fill
# the memory. Punycode is not among them: its decoder is too slow.
CHARSETS = frozenset({*aliases.values(), 'cp874', 'koi8_u'})
# A host that every proxy reads alike. With any other characters a proxy could call another host than the checked one.
PROXIED_HOST = re.compile(r'[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]+(%[a-z0-9_.-]+)?', re.IGNORECASE | re.ASCII)
# Their value is a URL, often the request's own with its secrets.
LOCATION_HEADERS = frozenset({'content-location', 'location', 'refresh'})
# Headers of an answer that may hold a new secret. WWW-Authenticate holds none, and explains a refusal.
SECRET_HEADER = re.compile('cookie|token|secret|session|auth(?!enticate)', re.IGNORECASE)


class UnknownHost(Exception):
    """A proxy's target cannot be checked: its name is unknown here, or proxies may read it in several ways.

    str() says which.
    """


class Client:
    """Sends requests over kept-alive connections, for one worker. Threads may share it.

    Keeps up to `connections` connections to each host alive for a while.
    """

    def __init__(self, connections: int):
        self._adapter = _adapter(connections)
        self._watchdog = deadline.Watchdog(self._adapter.close_idle)
        self._publisher = Publisher()

    def close(self) -> None:
        """Close all connections and brokers, and end the threads. Nothing may be sent any more."""
        self._adapter.close()
        self._watchdog.stop()
        self._publisher.close()

    def send(self, request: Request) -> Outcome:
        """Send the request to its endpoint or broker, and return the outcome. Takes up to `request.timeout` seconds.

        Each error of the endpoint, the broker or the network becomes an outcome. If a kept connection turns out to be
        closed, the request goes once more over a new one, within the same time.
        """
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
        """Send once, with a deadline in `seconds`, and return the outcome's fields. Raises Unanswered."""
        with self._watchdog.watch(seconds) as watched:
            try:
                result = _exchange(request, adapter, echoes)
            except Exception as error:
                if isinstance(error, Unanswered) and not watched.is_overdue:
                    raise
                # If it were raised, one request would stop all others of the worker.
                result = _failure(error, request)
                result['error'] = echoes.beginning(result['error'], MAX_ERROR_CHARS)
            return _late(request) if watched.is_overdue else result


def _adapter(connections: int) -> GuardedAdapter:
    """Return an adapter of requests. A Session would add proxies of the environment, cookies and redirects."""
    return GuardedAdapter(pool_connections=connections, pool_maxsize=connections, max_retries=0)


def _exchange(request: Request, adapter: GuardedAdapter, echoes: Echoes) -> dict[str, Any]:
    """Send the request, read its answer, and return the outcome's fields."""
    prepared = _prepare(request)
    if request.proxies:
        _check_target(prepared.url)
    response = adapter.exchange(
        prepared,
        timeout=Timeout(connect=min(request.timeout, CONNECT_SECONDS), read=request.timeout),
        verify=request.verify,
        certificate=request.certificate,
        proxies=dict(request.proxies),
    )
    try:
        text, error = _read(response), echoes.beginning(_verdict(response), MAX_ERROR_CHARS)
        headers, body = _headers(response, echoes), echoes.beginning(text, MAX_RESPONSE_KEPT_CHARS)
        return {
            'status': response.status,
            'headers': headers,
            'body': storable(body),
            'error': error or request.judge(Answer(response.status, headers, text, echoes)),
            'unreachable': response.status in AWAY_STATUSES,
        }
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()


def _prepare(request: Request) -> requests.PreparedRequest:
    """Return the request as requests sends it. Raises ValueError for a line break in a header."""
    check_headers(request.headers)
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = _normalize(request.url)
    prepared.headers = request.headers
    prepared.body = request.body
    return prepared


@functools.lru_cache(1024)
def _normalize(url: str) -> str:
    """Return the URL as requests writes it. Raises requests.RequestException for an invalid one."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url


def _verdict(response: BaseHTTPResponse) -> str:
    """Return why the status is a failure, or ''."""
    if response.status in REDIRECT_STATUSES:
        return f'HTTP {response.status}: redirect to {_place(response.headers)} is not followed'
    if response.status >= HTTPStatus.BAD_REQUEST or response.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return f'HTTP {response.status} {response.reason or ""}'.strip()
    return ''


def _place(headers: Mapping[str, str]) -> str:
    """Return scheme and host of a redirect's target, for the error: a path may name an object."""
    if 'Location' not in headers:
        return 'nowhere'
    target = urlsplit(mask_url(headers['Location']))
    return urlunsplit((target.scheme, target.netloc, '', '', '')) if target.netloc else 'another path'


def _read(response: BaseHTTPResponse) -> str:
    """Return the answer's text, up to MAX_RESPONSE_READ_BYTES bytes. A longer answer costs its connection."""
    content = b''
    # If the body is cut short, urllib3 notices only in a further read. So this reads until nothing comes.
    while (room := MAX_RESPONSE_READ_BYTES - len(content)) and (part := response.read(room, decode_content=False)):
        content += part
    if len(content) < MAX_RESPONSE_READ_BYTES:
        response.drain_conn()
    else:
        response.close()
    return _decode(content, get_encoding_from_headers(response.headers) or 'utf-8')


def _decode(content: bytes, charset: str) -> str:
    """Return the text of the bytes. An unknown charset counts as UTF-8, and no byte is an error."""
    name = encodings.normalize_encoding(charset).lower()
    name = aliases.get(name, name)
    try:
        return content.decode(name if name in CHARSETS else 'utf-8', errors='replace')
    except (LookupError, ValueError):  # a codec that is not for text
        return content.decode(errors='replace')


def _headers(response: BaseHTTPResponse, echoes: Echoes) -> CaseInsensitiveDict:
    """Return the answer's headers, masked, up to MAX_RESPONSE_KEPT_CHARS characters. Retry-After is never left out."""
    kept, room = CaseInsensitiveDict(), MAX_RESPONSE_KEPT_CHARS
    for name, value in sorted(response.headers.items(), key=lambda header: header[0].lower() != 'retry-after'):
        header = _header(name, echoes), _header_value(name, value, echoes)
        room -= sum(map(len, header))
        if room < 0:
            break
        kept[header[0]] = header[1]
    return kept


def _header(text: str, echoes: Echoes) -> str:
    return printable(echoes.beginning(text, MAX_HEADER_CHARS))[:MAX_HEADER_CHARS]


def _header_value(name: str, value: str, echoes: Echoes) -> str:
    if name.lower() == 'retry-after' and value.isdecimal():
        return value[:MAX_HEADER_CHARS]
    if SECRET_HEADER.search(name):
        return MASK
    return _header(mask_url(value) if name.lower() in LOCATION_HEADERS else value, echoes)


def _late(request: Request) -> dict[str, Any]:
    return {'error': f'no answer within {request.timeout:g} seconds', 'unreachable': True}


def _failure(error: Exception, request: Request) -> dict[str, Any]:
    """Return the outcome's fields for an error.

    `starved`: this machine is short of something. `unreachable`: no connection, or no answer.
    """
    if any(isinstance(one, OSError) and one.errno in SHORTAGE_ERRNOS for one in _causes(error)):
        return {'error': _reason(error), 'starved': True}
    if blocked := _find(error, blocked_networks.Blocked):
        return {'error': str(blocked)}
    if isinstance(error, UnknownHost):
        return {'error': str(error), 'unreachable': True}
    if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, NewConnectionError):
        return _late(request)
    # If the endpoint does not read the body, the socket's own timeout may come before the deadline.
    unreachable, reason = (NewConnectionError, NoAnswer, TimeoutError, urllib3.exceptions.SSLError), _reason(error)
    return {'error': reason, 'unreachable': bool(_find(error, unreachable) or NO_TUNNEL.match(reason))}


def _find(error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]) -> BaseException | None:
    """Return the first of the error and its causes that is of this kind, or None."""
    return next((one for one in _causes(error) if isinstance(one, kind)), None)


def _causes(error: BaseException) -> Sequence[BaseException | None]:
    """Return the error with all its causes.

    urllib3 wraps errors as cause, context, reason or argument.
    """
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
    """Return the innermost cause, for the log.

    The errors around it show the URL, which may hold secrets.
    """
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return f'{type(cause).__name__}: {cause.strerror}'
    return f'{type(cause).__name__}: {cause}'


def _check_target(url: str) -> None:
    """Check the host that a proxy is to call. Raises Blocked and UnknownHost.

    With the setting `proxy_resolves_names` an unknown name passes.
    """
    host = (urlsplit(url).hostname or '').replace('%25', '%', 1)
    if not PROXIED_HOST.fullmatch(host):
        raise UnknownHost(f'{host} is not a host name that can be sent to the proxy')
    try:
        blocked_networks.check_all(host)
    except socket.gaierror as error:
        if not conf.get().proxy_resolves_names or blocked_networks.is_number(host):
            raise UnknownHost(f'{host} cannot be resolved: {error.strerror}') from None
