"""Endpoints can behave badly in any way."""

import encodings
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from support.loopback import OK, RESET, Server, serving
from support.settings import change_settings

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.constants import MAX_RESPONSE_KEPT_CHARS, MAX_RESPONSE_READ_BYTES
from webhooks.security.masking import MASK
from webhooks.transport import deadline
from webhooks.transport.blocked_networks import is_blocked
from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

BODY = b'{"event": "created"}'
# Seconds. No passing test reaches LONG.
SHORT, LONG = 0.4, 30.0
# Enough times SHORT that a busy machine does not matter.
DRIPS = 20
TOO_LATE = f'no answer within {SHORT:g} seconds'


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(4)
    yield client
    client.close()


@pytest.fixture
def send(client: Client):
    def send(url: str, timeout: float = LONG, **fields: object) -> Outcome:
        headers = fields.pop('headers', {'Content-Type': 'application/json'})
        request = {'method': 'POST', 'url': url, 'headers': headers, 'body': BODY, 'timeout': timeout}
        return client.send(Request(**request | fields))

    return send


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch):
    def settings(**values: object) -> None:
        change_settings(monkeypatch, **values)

    return settings


def response(body: bytes = b'', status: str = '200 OK', **headers: str) -> bytes:
    headers = {'Content_Length': str(len(body))} | headers
    lines = ''.join(f'{name.replace("_", "-")}: {value}\r\n' for name, value in headers.items())
    return f'HTTP/1.1 {status}\r\n{lines}\r\n'.encode() + body


def is_late(outcome: Outcome) -> bool:
    """The socket's own timeout ends within a millisecond of the deadline."""
    return outcome.unreachable and (outcome.error == TOO_LATE or outcome.error.startswith('TimeoutError'))


class TestRequest:
    def test_it_arrives_as_it_was_made(self, send, receiver):
        outcome = send(receiver.url('/hook?a=b'), headers={'X-Test': 'äé'.encode('latin-1').decode('latin-1')})
        assert outcome.succeeded
        (request,) = receiver.requests
        assert (request.method, request.target, request.body) == ('POST', '/hook?a=b', BODY)
        assert request.header('X-Test') == 'äé'
        assert request.header('Content-Length') == str(len(BODY))

    @pytest.mark.parametrize('method', ['GET', 'PUT', 'PATCH', 'DELETE'])
    def test_any_method_is_sent(self, send, receiver, method):
        assert send(receiver.url(), method=method).succeeded
        assert receiver.requests[0].method == method

    def test_nothing_is_added_that_names_us(self, send, receiver):
        send(receiver.url())
        names = {name.lower() for name, _value in receiver.requests[0].headers}
        assert names <= {'host', 'content-type', 'content-length', 'accept-encoding', 'user-agent', 'connection'}

    def test_a_url_that_cannot_be_sent_is_refused_with_the_reason(self, send):
        outcome = send('http://[nonsense/')
        assert "'[nonsense' is not a valid host" in outcome.error
        assert outcome.status is None

    @pytest.mark.parametrize(
        ('host', 'reason'),
        [('a' * 70 + '.example', 'label too long'), ('a..b.example', 'label empty'), ('.example', 'invalid label')],
    )
    def test_a_host_name_that_cannot_be_one_is_refused_with_the_reason(self, send, host, reason):
        outcome = send(f'http://{host}/')
        assert reason in outcome.error
        assert outcome.status is None

    def test_its_repr_shows_no_secret(self):
        request = Request(
            method='POST',
            url='http://user:sesame@a.example/?token=sesame',
            headers={'Authorization': 'sesame'},
            body=b'sesame',
            timeout=SHORT,
            proxies={'http': 'http://user:sesame@proxy.example'},
            secrets=('sesame',),
        )
        assert 'sesame' not in repr(request)
        assert 'POST' in repr(request)


class TestAnswer:
    @pytest.mark.parametrize('status', [200, 201, 202, 204, 299, 304])
    def test_a_status_below_400_is_a_success(self, send, receiver, status):
        receiver.answers('/', status)
        outcome = send(receiver.url())
        assert (outcome.succeeded, outcome.status) == (True, status)

    @pytest.mark.parametrize('status', [400, 401, 404, 410, 429, 500, 501, 505, 599])
    def test_a_status_from_400_on_is_a_failure_of_an_endpoint_that_is_there(self, send, receiver, status):
        receiver.answers('/', Answer(status, b'why', {'Retry-After': '7'}))
        outcome = send(receiver.url())
        assert (outcome.succeeded, outcome.status, outcome.unreachable) == (False, status, False)
        assert (outcome.body, outcome.headers['retry-after']) == ('why', '7')
        assert str(status) in outcome.error

    @pytest.mark.parametrize('status', [502, 503, 504])
    def test_a_proxy_says_that_the_endpoint_is_away(self, send, receiver, status):
        receiver.answers('/', Answer(status, b'why', {'Retry-After': '7'}))
        outcome = send(receiver.url())
        assert (outcome.succeeded, outcome.status, outcome.unreachable) == (False, status, True)
        assert (outcome.body, outcome.headers['retry-after']) == ('why', '7')

    @pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
    def test_a_redirect_is_not_followed_and_names_its_host(self, send, receiver, status):
        receiver.answers('/', Answer(status, headers={'Location': receiver.url('/elsewhere')}))
        outcome = send(receiver.url())
        assert not outcome.succeeded
        assert outcome.error == f'HTTP {status}: redirect to {receiver.url("")} is not followed'
        assert [request.path for request in receiver.requests] == ['/']

    def test_secrets_in_the_target_of_a_redirect_are_not_shown(self, send, receiver):
        """Often they repeat the webhook's URL with a small change."""
        receiver.answers('/', Answer(301, headers={'Location': 'https://user:sesame@a.example/hook?token=sesame'}))
        outcome = send(receiver.url())
        assert f'redirect to https://{MASK}@a.example is not followed' in outcome.error
        assert 'a.example/hook?token=' in outcome.headers['Location']
        assert 'sesame' not in outcome.error + outcome.headers['Location']

    def test_a_redirect_without_a_target_fails_and_says_so(self, send, receiver):
        receiver.answers('/', 302)
        assert send(receiver.url()).error == 'HTTP 302: redirect to nowhere is not followed'

    def test_only_the_beginning_of_the_body_is_kept(self, send, receiver):
        receiver.answers('/', Answer(200, b'x' * 5000))
        assert send(receiver.url()).body == 'x' * MAX_RESPONSE_KEPT_CHARS

    def test_characters_of_the_body_that_postgresql_cannot_store_are_replaced(self, send, receiver):
        receiver.answers('/', Answer(200, b'a\x00b\xff'))
        assert send(receiver.url()).body == 'a\ufffdb\ufffd'

    @pytest.mark.parametrize('charset', ['nonsense', 'hex', 'idna', 'utf-16', 'undefined', '"', 'base64'])
    def test_an_unknown_charset_does_not_fail_the_request(self, send, charset):
        with serving(response(b'answer.', Content_Type=f'text/plain; charset={charset}')) as server:
            assert send(server.url()).status == 200

    def test_no_name_that_an_endpoint_chooses_stays_in_memory(self, send):
        """Python keeps the result of each look-up."""
        names = ['cp1252', 'x-1', 'cp-1-2', 'cp--1252']
        answers = [response(b'answer', Content_Type=f'text/plain; charset={name}') for name in names]
        with serving(*answers) as server:
            send(server.url())
            before = set(encodings._cache)
            for _ in names[1:]:
                assert send(server.url()).body == 'answer'
        assert set(encodings._cache) == before

    @pytest.mark.parametrize(
        'answer',
        [
            b'\x00 nonsense\r\n\r\n',
            b'HTTP/1.1 500 a\x00b\r\nContent-Length: 0\r\n\r\n',
            b'HTTP/1.1 302 Found\r\nLocation: /a\x00b\r\nContent-Length: 0\r\n\r\n',
            b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Y: a\x00b\r\nX\x00Y: c\r\n\r\n',
            b'HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-7\r\nContent-Length: 5\r\n\r\n+2AA-',
        ],
        ids=['status line', 'reason', 'location', 'header', 'half a surrogate'],
    )
    def test_nothing_that_postgresql_cannot_store_is_left_in_errors_and_headers(self, send, answer):
        with serving(answer) as server:
            outcome = send(server.url())
            assert server.requests
        shown = json.dumps([outcome.error, outcome.body, *outcome.headers.items()], ensure_ascii=False)
        assert '\\u0000' not in shown
        assert shown.encode()

    @pytest.mark.parametrize('name', ['Set_Cookie', 'X_Auth_Token', 'X_SESSION_ID', 'Client_Secret', 'Authorization'])
    def test_headers_that_let_somebody_in_are_masked(self, send, name):
        with serving(response(**{name: 'swordfish', 'WWW_Authenticate': 'Bearer error="invalid_token"'})) as server:
            headers = send(server.url()).headers
        assert headers[name.replace('_', '-')] == MASK
        assert headers['WWW-Authenticate'] == 'Bearer error="invalid_token"'

    def test_a_long_header_is_kept_in_part(self, send):
        with serving(response(X_Long='x' * 60000)) as server:
            assert len(send(server.url()).headers['X-Long']) < 5000

    def test_many_headers_are_kept_in_part_and_retry_after_always(self, send):
        many = {f'{"X" * 1000}_{number}': 'x' * 1000 for number in range(20)}
        with serving(response(**many, Retry_After='7')) as server:
            headers = send(server.url()).headers
        assert sum(len(name) + len(value) for name, value in headers.items()) <= MAX_RESPONSE_KEPT_CHARS
        assert headers['Retry-After'] == '7'

    def test_headers_beyond_the_limit_fail_the_request(self, send):
        with serving(response(**{f'X_{number}': 'x' * 60000 for number in range(20)})) as server:
            outcome = send(server.url())
        assert outcome.error == f'HTTPException: the headers are longer than {MAX_RESPONSE_READ_BYTES} bytes'

    def test_a_long_error_is_kept_in_part(self, send):
        with serving(response(status='302 Found', Location='//' + 'x' * 60000)) as server:
            error = send(server.url()).error
        assert error.startswith('HTTP 302: redirect to //xxx')
        assert len(error) < 5000

    def test_a_body_that_never_ends_is_not_read(self, send):
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            yield b'HTTP/1.1 200 OK\r\n\r\n'
            while True:
                yield b'x' * 4096
                sent += 4096

        with serving(endless) as server:
            outcome = send(server.url())
        assert (outcome.status, outcome.body) == (200, 'x' * MAX_RESPONSE_KEPT_CHARS)
        # Kernel buffers may take some more.
        assert sent < MAX_RESPONSE_READ_BYTES + 16 * 2**20

    def test_a_gigabyte_that_is_announced_is_not_read(self, send):
        with serving(response(b'x' * MAX_RESPONSE_READ_BYTES, Content_Length=str(2**30))) as server:
            outcome = send(server.url())
        assert (outcome.status, outcome.succeeded) == (200, True)

    def test_a_compressed_bomb_is_not_unpacked(self, send):
        with serving(response(b'\x1f\x8b' + b'\x00' * 100, Content_Encoding='gzip')) as server:
            assert send(server.url()).status == 200

    def test_chunks_are_put_together(self, send):
        chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n'
        with serving(chunked) as server:
            assert send(server.url()).body == 'abcde'


EARLY_HINTS = b'HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nConnection: close\r\n\r\n'
INTERIM = [b'HTTP/1.1 100 Continue\r\n\r\n', b'HTTP/1.1 102 Processing\r\n\r\n', EARLY_HINTS, b'HTTP/1.1 199 X\r\n\r\n']


class TestInterimAnswers:
    """Endpoints may send statuses below 200 before the final answer."""

    @pytest.mark.parametrize('interim', [*INTERIM, b''.join(INTERIM)], ids=['100', '102', '103', '199', 'all of them'])
    def test_the_final_answer_decides_and_is_kept(self, send, interim):
        with serving(interim + OK, interim + response(b'why', '500 Broken', Retry_After='7')) as server:
            delivered, failed = send(server.url()), send(server.url())
        assert (delivered.succeeded, delivered.status, delivered.body) == (True, 200, 'ok')
        assert (failed.succeeded, failed.status, failed.body) == (False, 500, 'why')
        assert failed.error == 'HTTP 500 Broken'
        assert (failed.headers.get('Retry-After'), failed.headers.get('Link')) == ('7', None)

    def test_each_request_of_a_connection_gets_its_own_final_answer(self, send):
        with serving(*[EARLY_HINTS + response(body) for body in (b'first', b'second', b'third')]) as server:
            outcomes = [send(server.url()) for _ in range(3)]
            assert server.connections == 1
        assert [outcome.status for outcome in outcomes] == [200] * 3
        assert [outcome.body for outcome in outcomes] == ['first', 'second', 'third']

    def test_a_final_answer_that_comes_later_is_waited_for(self, send):
        box: list[Server] = []

        def parts() -> Iterator[bytes]:
            yield EARLY_HINTS
            box[0].closing.wait(SHORT / 4)
            yield OK

        with serving(parts) as server:
            box.append(server)
            outcome = send(server.url())
        assert (outcome.succeeded, outcome.status, outcome.body) == (True, 200, 'ok')

    @pytest.mark.parametrize(
        ('rest', 'reason'),
        [
            (b'', 'closed connection without response'),
            (b'HTTP/1.1 103 Early Hints\r\nLink: <', 'closed connection without response'),
            (b'HTTP/1.1 200 OK\r\nX-Y: z', 'cut inside the headers'),
        ],
    )
    def test_without_a_whole_final_answer_it_is_a_failure(self, send, rest, reason):
        def parts() -> Iterator[bytes]:
            yield EARLY_HINTS + rest

        with serving(parts) as server:
            outcome = send(server.url())
        assert outcome.status is None
        assert reason in outcome.error

    def test_a_flood_of_interim_answers_ends_after_as_many_bytes_as_headers_may_have(self, send):
        def parts() -> Iterator[bytes]:
            while True:
                yield EARLY_HINTS

        with serving(parts) as server:
            outcome = send(server.url())
        assert outcome.error == f'HTTPException: the headers are longer than {MAX_RESPONSE_READ_BYTES} bytes'

    def test_switching_to_another_protocol_is_a_failure(self, send):
        """After 101 the connection speaks another protocol, and is not reused."""
        switching = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nContent-Length: 0\r\n\r\n'
        with serving(switching, OK) as server:
            refused, following = send(server.url()), send(server.url())
            assert server.connections == 2
        assert (refused.succeeded, refused.status, refused.unreachable) == (False, 101, False)
        assert refused.error == 'HTTP 101 Switching Protocols'
        assert (following.succeeded, following.body) == (True, 'ok')


def connections_to(*servers: Server) -> int:
    """Count sockets that are not closed on the near side: those that wait for their end have inode 0.

    A table that changes while it is read may show a row twice.
    """
    rows = [line.split() for line in Path('/proc/net/tcp').read_text().splitlines()[1:]]
    ports = {f'0100007F:{server.port:04X}' for server in servers}
    return len({row[9] for row in rows if row[2] in ports} - {'0'})


def drip(start: bytes, endless: bytes, server: list[Server]) -> object:
    """Send byte by byte while the client listens, or for DRIPS times its limit."""

    def parts() -> Iterator[bytes]:
        yield start
        for _ in range(20 * DRIPS):
            if server[0].closing.wait(SHORT / 20):
                return
            yield endless

    return parts


@contextmanager
def full(host: str, port: int = 0) -> Iterator[int]:
    """Yield the port of a server that takes no connection: its backlog is full, so the kernel does not answer."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(8):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


class TestDeadline:
    """These endpoints hold us far longer than the deadline."""

    @pytest.mark.parametrize(
        ('start', 'endless'),
        [
            (b'', b'H'),
            (b'HTTP/1.1 200 OK\r\nX-Slow: ', b'x'),
            (b'HTTP/1.1 200 OK\r\n', b'X-Slow: x\r\n'),
            (b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n', b'x'),
            (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', b'1\r\nx\r\n'),
            (b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
            (b'', EARLY_HINTS),
            (b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n', b'x'),
            (b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n', b'x'),
            (b'HTTP/1.0 200 OK\r\n\r\n', b'x'),
            (b'HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n', b'1\r\nx\r\n'),
        ],
        ids=[
            'status line',
            'header',
            'headers',
            'body',
            'chunks',
            'continue',
            'early hints',
            'last body',
            'body until the end',
            'HTTP/1.0',
            'last chunks',
        ],
    )
    def test_an_endpoint_that_drips_is_cut(self, send, start, endless):
        box: list[Server] = []
        with serving(drip(start, endless, box)) as server:
            box.append(server)
            outcome = send(server.url(), timeout=SHORT)
        assert (outcome.error, outcome.status, outcome.unreachable) == (TOO_LATE, None, True)
        # A client that reads to the end is late as well.
        assert outcome.duration < DRIPS * SHORT / 2

    @pytest.mark.parametrize('last', ['', 'Connection: close\r\n'])
    def test_no_socket_is_left_open(self, last, monkeypatch):
        # A busy machine may take longer to the count. The client would close the connection that it keeps.
        monkeypatch.setattr('webhooks.transport.connections.MAX_IDLE_SECONDS', LONG)
        answer = f'HTTP/1.1 200 OK\r\n{last}Content-Length: 2\r\n\r\nok'.encode()
        box: list[Server] = []
        with serving(answer) as whole, serving(drip(answer[:-1], b'', box)) as late, serving(b'') as broken:
            box.append(late)
            client = Client(4)
            for server in (late, broken, whole) * 3:
                timeout = SHORT if server is late else LONG
                client.send(Request(method='POST', url=server.url(), headers={}, body=BODY, timeout=timeout))
            assert connections_to(whole) == (0 if last else 1)
            client.close()
            assert connections_to(whole, late, broken) == 0

    def test_an_endpoint_that_says_nothing_is_given_up(self, send):
        with serving(None) as server:
            outcome = send(server.url(), timeout=SHORT)
        assert (outcome.unreachable, outcome.error) == (True, TOO_LATE)

    @pytest.mark.parametrize(('connect', 'timeout'), [(LONG, SHORT), (SHORT, LONG)])
    def test_an_endpoint_that_takes_no_connection_is_given_up(self, send, monkeypatch, connect, timeout):
        monkeypatch.setattr('webhooks.transport.client.CONNECT_SECONDS', connect)
        with full('127.0.0.1') as port:
            assert is_late(send(f'http://127.0.0.1:{port}/', timeout=timeout))

    def test_an_endpoint_that_does_not_read_is_given_up(self, send):
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = server.getsockname()[1]
            outcome = send(f'http://127.0.0.1:{port}/', timeout=SHORT, body=b'x' * 2**26)
        assert is_late(outcome)

    def test_an_endpoint_that_does_not_read_if_the_socket_is_faster_than_the_watchdog(self, send, monkeypatch):
        monkeypatch.setattr(deadline.Watched, 'cut', lambda watched: None)
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = server.getsockname()[1]
            outcome = send(f'http://127.0.0.1:{port}/', timeout=SHORT, body=b'x' * 2**26)
        assert outcome.unreachable
        assert 'TimeoutError' in outcome.error

    def test_a_reused_connection_has_the_deadline_as_well(self, send):
        with serving(OK, None) as server:
            assert send(server.url()).succeeded
            assert send(server.url(), timeout=SHORT).error == TOO_LATE
            assert server.connections == 1

    def test_a_request_repeated_on_a_new_connection_is_watched_for_the_time_left(self, send, monkeypatch):
        given, watch = [], deadline.Watchdog.watch

        def watched(watchdog: deadline.Watchdog, timeout: float) -> object:
            given.append(timeout)
            return watch(watchdog, timeout)

        monkeypatch.setattr(deadline.Watchdog, 'watch', watched)
        with serving(OK, RESET, OK) as server:
            assert send(server.url()).succeeded
            assert send(server.url()).succeeded
            assert server.connections == 2
        assert given[:2] == [LONG, LONG]
        assert given[2] < LONG

    def test_an_error_while_it_tidies_lifts_no_deadline(self, monkeypatch, caplog):
        monkeypatch.setattr(deadline, 'TIDY_SECONDS', 0.05)
        tidied: list[None] = []

        def fail() -> None:
            tidied.append(None)
            raise AttributeError('answered_at')

        watchdog = deadline.Watchdog(fail)
        assert wait_until(lambda: tidied, timeout=LONG)
        with watchdog.watch(0) as watched:
            assert wait_until(lambda: watched.is_overdue, timeout=LONG)
        watchdog.stop()
        assert 'connections=not tidied' in caplog.text
        assert 'answered_at' in caplog.text

    def test_a_connection_that_is_there_too_late_is_cut_at_once(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            watched = deadline.Watched(0.0)
            watched.cut()
            watched.carry(ours)
            watched.close()
            theirs.setblocking(False)
            assert theirs.recv(1) == b''

    def test_cutting_one_request_leaves_the_others_alone(self, client, send):
        with serving(None) as slow, serving(OK) as fast:
            outcomes: list[Outcome] = []
            thread = threading.Thread(target=lambda: outcomes.append(send(slow.url(), timeout=SHORT)))
            thread.start()
            while thread.is_alive():
                assert send(fast.url()).succeeded
            thread.join()
        assert outcomes[0].error == TOO_LATE

    def test_several_addresses_of_a_name_share_one_deadline(self, send, monkeypatch):
        """The test reads the timeouts instead of waiting for them."""
        given = []

        class Mute(socket.socket):
            def settimeout(self, value: float | None) -> None:
                given.append(value)

            def connect(self, address: object) -> None:
                time.sleep(given[-1] / 2)
                raise TimeoutError('timed out')

        monkeypatch.setattr(socket, 'getaddrinfo', resolve_to(*[f'127.0.0.{number}' for number in range(2, 99)]))
        monkeypatch.setattr(socket, 'socket', Mute)
        assert is_late(send('http://several.example/', timeout=SHORT))
        assert sum(given) < 3 * SHORT

    def test_an_address_that_takes_no_connection_leaves_time_for_the_next(self, send, monkeypatch):
        """Such as an IPv6 address that leads nowhere."""
        monkeypatch.setattr(socket, 'getaddrinfo', resolve_to('127.0.0.9', '127.0.0.1'))
        with serving(OK) as server, full('127.0.0.9', server.port):
            assert send(server.url(host='several.example'), timeout=4 * SHORT).error == ''

    def test_the_time_of_the_name_look_up_counts(self, send, monkeypatch):
        known = socket.getaddrinfo

        def slow(*args: object) -> object:
            time.sleep(2 * SHORT)
            return known(*args)

        monkeypatch.setattr(socket, 'getaddrinfo', slow)
        box: list[Server] = []
        with serving(drip(b'HTTP/1.1 200 OK\r\nX-Slow: ', b'x', box)) as server:
            box.append(server)
            assert send(server.url(), timeout=SHORT).error == TOO_LATE

    def test_a_proxy_that_drips_is_cut_at_the_deadline(self, send):
        box: list[Server] = []
        with serving(drip(b'HTTP/1.1 200 OK\r\nX-Slow: ', b'x', box)) as proxy, serving(OK) as target:
            box.append(proxy)
            outcome = send(target.url('/hook'), timeout=SHORT, proxies={'http': proxy.url()})
            assert wait_until(lambda: proxy.requests, timeout=LONG)
            assert proxy.requests[0].startswith(f'POST {target.url("/hook")} '.encode())
        assert (outcome.unreachable, outcome.error) == (True, TOO_LATE)


HEADERS_WITHOUT_END = [
    b'HTTP/1.1 200 OK\r\nX-Test: a\r\n',
    b'HTTP/1.1 200 OK\r\nX-Test: a',
    b'HTTP/1.1 200 OK\r\n',
    b'HTTP/1.1 200 OK',
    b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n',
]


def closes() -> Iterator[bytes]:
    return iter(())


def cuts() -> Iterator[bytes]:
    yield EARLY_HINTS


class TestBrokenEndpoint:
    def test_a_refused_connection_is_unreachable(self, send, receiver):
        receiver.close()
        outcome = send(receiver.url())
        assert (outcome.unreachable, outcome.status) == (True, None)
        assert 'refused' in outcome.error

    @pytest.mark.parametrize(('status', 'is_away'), [(502, True), (503, True), (504, True), (403, False), (407, False)])
    def test_an_endpoint_that_a_proxy_cannot_connect_to_is_unreachable(self, send, status, is_away):
        with serving(f'HTTP/1.1 {status} Reason\r\nContent-Length: 0\r\n\r\n'.encode()) as proxy:
            outcome = send('https://10.20.30.40/', proxies={'https': proxy.url()})
        assert outcome.error == f'OSError: Tunnel connection failed: {status} Reason'
        assert (outcome.unreachable, outcome.status) == (is_away, None)

    @pytest.mark.parametrize('end', [closes, RESET], ids=['closed', 'reset'])
    def test_an_endpoint_that_closes_the_connection_without_an_answer_is_unreachable(self, send, end):
        """So does a load balancer for TCP with no server behind it."""
        with serving(end) as server:
            outcome = send(server.url())
        assert (outcome.succeeded, outcome.unreachable, outcome.status) == (False, True, None)

    def test_an_endpoint_that_resets_the_connection_before_a_request_is_unreachable(self, send):
        """During the handshake of TLS."""
        with socket.create_server(('127.0.0.1', 0)) as server:
            reset = threading.Thread(target=lambda: server.accept()[0].recv(1))  # the rest stays unread
            reset.start()
            outcome = send(f'https://127.0.0.1:{server.getsockname()[1]}/')
            reset.join()
        assert (outcome.error, outcome.unreachable) == ('ConnectionResetError: Connection reset by peer', True)

    def test_a_proxy_that_closes_the_connection_is_unreachable(self, send):
        with serving(closes) as proxy:
            outcome = send('https://10.20.30.40/', proxies={'https': proxy.url()})
        assert (outcome.succeeded, outcome.unreachable) == (False, True)

    def test_an_unknown_name_is_unreachable(self, send):
        outcome = send('http://nowhere.invalid/')
        assert outcome.unreachable
        assert 'gaierror' in outcome.error

    @pytest.mark.parametrize(
        ('answer', 'reason'),
        [
            (b'', 'closed connection without response'),
            (b'HTTP/1.1 2', 'BadStatusLine: HTTP/1.1 2'),
            (b'garbage\r\n\r\n', 'BadStatusLine: garbage'),
            (b'HTTP/1.1 abc OK\r\n\r\n', "'abc'"),
            (b'\x16\x03\x01\x02\x00\x01' * 50, 'BadStatusLine: \\x16'),
        ],
        ids=['nothing', 'half a line', 'garbage', 'status', 'TLS'],
    )
    def test_an_answer_that_is_no_http_fails_with_the_reason(self, send, answer, reason):
        def parts() -> Iterator[bytes]:
            yield answer

        with serving(parts) as server:
            outcome = send(server.url())
        assert outcome.status is None
        assert reason in outcome.error

    @pytest.mark.parametrize('framing', [b'Content-Length: 100\r\n', b'Transfer-Encoding: chunked\r\n'])
    def test_a_body_that_is_cut_is_a_failure(self, send, framing):
        def parts() -> Iterator[bytes]:
            yield b'HTTP/1.1 200 OK\r\n' + framing + b'\r\n32\r\nhalf of i'

        with serving(parts) as server:
            assert 'IncompleteRead' in send(server.url()).error

    @pytest.mark.parametrize('lines', HEADERS_WITHOUT_END)
    def test_headers_that_are_cut_are_a_failure(self, send, lines):
        """The lost headers might have said where the body ends."""
        with serving(lines) as server:
            outcome = send(server.url())
        assert (outcome.succeeded, outcome.status, outcome.unreachable) == (False, None, False)
        assert 'cut inside the headers' in outcome.error

    def test_headers_that_a_proxy_cuts_are_a_failure(self, send):
        with serving(HEADERS_WITHOUT_END[0]) as proxy:
            assert 'cut inside the headers' in send('http://10.20.30.40/', proxies={'http': proxy.url()}).error

    def test_a_body_may_end_with_the_connection(self, send):
        with serving(b'HTTP/1.1 200 OK\r\n\r\nall') as server:
            outcome = send(server.url())
        assert (outcome.succeeded, outcome.body) == (True, 'all')

    def test_an_answer_shorter_than_announced_is_a_failure(self, send, receiver):
        receiver.answers('/', Answer(200, b'x' * 100, manner=Manner.CUT))
        assert 'IncompleteRead' in send(receiver.url()).error

    def test_headers_without_end_are_not_read(self, send):
        def parts() -> Iterator[bytes]:
            yield b'HTTP/1.1 200 OK\r\n'
            for number in range(5000):
                yield f'X-{number}: {"x" * 1000}\r\n'.encode()

        with serving(parts) as server:
            assert (
                send(server.url()).error
                == f'HTTPException: the headers are longer than {MAX_RESPONSE_READ_BYTES} bytes'
            )

    def test_the_error_shows_no_secret_of_the_url(self, send, receiver):
        receiver.close()
        outcome = send(receiver.url('/hook?token=sesame').replace('http://', 'http://user:sesame@'))
        assert 'refused' in outcome.error
        assert 'sesame' not in outcome.error


class TestConnections:
    def test_connections_are_kept_alive(self, send, receiver):
        for _ in range(3):
            assert send(receiver.url()).succeeded
        assert len({request.connection for request in receiver.requests}) == 1

    def test_a_connection_is_kept_after_an_error_status(self, send, receiver):
        receiver.answers('/', Answer(500, b'x' * 1000), 302, 200)
        for _ in range(3):
            send(receiver.url())
        assert len({request.connection for request in receiver.requests}) == 1

    def test_a_connection_that_the_endpoint_has_closed_is_replaced(self, send, receiver):
        assert send(receiver.url()).succeeded
        receiver.close()
        receiver.open()
        assert send(receiver.url()).succeeded

    @pytest.mark.parametrize('end', [closes, RESET], ids=['closed', 'reset'])
    def test_a_request_that_a_kept_connection_did_not_answer_is_repeated_at_once_on_a_new_one(self, send, end):
        with serving(OK, end, OK) as server:
            outcomes = [send(server.url('/1')), send(server.url('/2'))]
            assert [outcome.error for outcome in outcomes] == ['', '']
            assert [request.split()[1] for request in server.requests] == [b'/1', b'/2', b'/2']
            assert server.connections == 2

    @pytest.mark.parametrize('answers', [[closes], [OK, closes], [OK, cuts]], ids=['new', 'new once more', 'answering'])
    def test_a_request_that_a_new_connection_did_not_answer_has_failed(self, send, answers):
        with serving(*answers) as server:
            for _answer in answers:
                outcome = send(server.url())
            assert 'closed connection without response' in outcome.error
            assert server.connections == (2 if closes in answers[1:] else 1)

    def test_a_repeated_request_fails_once_the_time_of_both_is_over(self, send):
        with serving(OK, closes, None) as server:
            send(server.url())
            assert send(server.url(), timeout=SHORT).error == TOO_LATE
            assert server.connections == 2

    def test_a_connection_with_an_answer_half_read_is_not_used_again(self, send):
        with serving(response(b'x' * 2 * MAX_RESPONSE_READ_BYTES), OK) as server:
            assert send(server.url()).succeeded
            assert send(server.url()).body == 'ok'
            assert server.connections == 2

    def test_cookies_of_the_endpoint_are_not_sent_back(self, send, receiver):
        receiver.answers('/', Answer(200, headers={'Set-Cookie': 'id=1; Path=/'}))
        for _ in range(2):
            send(receiver.url())
        assert receiver.requests[1].header('Cookie') is None
        send(receiver.url(), headers={'Cookie': 'id=2'})
        assert receiver.requests[2].header('Cookie') == 'id=2'


class TestEnvironment:
    def test_proxies_of_the_environment_are_not_used(self, send, receiver, monkeypatch):
        with Receiver() as proxy:
            for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'):
                monkeypatch.setenv(name, proxy.url())
            monkeypatch.setenv('NO_PROXY', '')
            assert send(receiver.url()).succeeded
            assert not proxy.requests
            assert requests.post(receiver.url(), timeout=LONG).ok
            assert proxy.requests, 'requests itself uses what is set'

    def test_passwords_of_netrc_are_not_used(self, send, receiver, monkeypatch, tmp_path):
        (tmp_path / 'netrc').write_text('default login admin password sesame\n')
        monkeypatch.setenv('NETRC', str(tmp_path / 'netrc'))
        assert send(receiver.url()).succeeded
        assert receiver.requests[0].header('Authorization') is None
        assert requests.post(receiver.url(), timeout=LONG).ok
        assert receiver.requests[1].header('Authorization'), 'requests itself uses what is set'

    def test_a_proxy_of_the_request_is_used(self, send):
        with Receiver() as proxy:
            assert send('http://10.20.30.40:81/hook', proxies={'http': proxy.url()}).succeeded
            assert proxy.requests[0].target == 'http://10.20.30.40:81/hook'


def resolve_to(*addresses: str) -> object:
    known = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: object) -> list[tuple]:
        if host.endswith('.example'):
            return [info for address in addresses for info in known(address, port, *args)]
        return known(host, port, *args)

    return getaddrinfo


def networks(*texts: str) -> dict[str, object]:
    return {'blocked_networks': tuple(map(ipaddress.ip_network, texts))}


BLOCKED = [
    '169.254.169.254',
    '0.0.0.0',
    '0.1.2.3',
    '224.0.0.1',
    '255.255.255.255',
    '100.100.100.200',
    '168.63.129.16',
    '192.0.0.192',
    '::',
    'fe80::1',
    'fe80::1%eth0',
    'ff02::1',
    'fd00:ec2::254',
    'fd20:ce::254',
    '::ffff:169.254.169.254',  # mapped
    '::ffff:0:169.254.169.254',  # translated (SIIT)
    '::169.254.169.254',  # compatible
    '64:ff9b::169.254.169.254',  # NAT64
    '64:ff9b:1::169.254.169.254',  # NAT64 of a local network (RFC 8215)
    '2002:a9fe:a9fe::1',  # 6to4
    '2001:0:4136:e378:8000:63bf:5601:5601',  # Teredo
    '2001:db8::5efe:169.254.169.254',  # ISATAP
    'fd00:ec2::23',
    'fd00:42::42',
    'fd00:a9fe:a9fe::1',
    'fd00:c1::a9fe:a9fe',
]
ALLOWED = ['127.0.0.1', '::1', '10.0.0.1', '192.168.1.1', '93.184.216.34', 'fd00::1', '2001:db8::1', '::ffff:10.0.0.1']


class TestBlockedNetworks:
    @pytest.mark.parametrize('address', BLOCKED)
    def test_addresses_that_no_receiver_is_at_are_blocked_by_default(self, address):
        assert is_blocked(address)

    @pytest.mark.parametrize('address', ALLOWED)
    def test_addresses_of_internal_receivers_are_allowed_by_default(self, address):
        assert not is_blocked(address)

    @pytest.mark.parametrize('address', ['127.0.0.1', '::ffff:127.0.0.1', '64:ff9b::7f00:1', '2002:7f00:1::'])
    def test_a_listed_network_is_blocked_in_all_its_forms(self, settings, address):
        settings(**networks('127.0.0.0/8'))
        assert is_blocked(address)

    @pytest.mark.parametrize('address', ['0.0.0.0', '::', '::ffff:0.0.0.0', '::ffff:0:0.0.0.0'])
    def test_an_unspecified_address_is_blocked_with_loopback(self, settings, address):
        settings(**networks('127.0.0.0/8', '::1/128'))
        assert is_blocked(address)
        settings(**networks('10.0.0.0/8'))
        assert not is_blocked(address)

    def test_networks_can_be_added_to_the_default(self, settings):
        assert not is_blocked('10.20.0.1')
        settings(additional_blocked_networks=(ipaddress.ip_network('10.20.0.0/16'),))
        assert is_blocked('10.20.0.1')
        assert is_blocked('169.254.169.254')

    @pytest.mark.parametrize(
        'host',
        [
            '0.0.0.0', '0', '[::ffff:0.0.0.0]', '127.0.0.1', '127.1', '2130706433', '0x7f000001', '017700000001',
            'localhost',
        ],
    )  # fmt: skip
    def test_nothing_is_sent_to_a_blocked_address_however_it_is_written(self, send, receiver, settings, host):
        settings(**networks('127.0.0.0/8', '::1/128'))
        assert 'which is in blocked_networks' in send(f'http://{host}:{receiver.port}/').error
        assert not receiver.requests
        settings(**networks())
        assert send(f'http://{host}:{receiver.port}/').succeeded

    def test_the_error_names_host_address_and_setting(self, send, receiver, settings):
        settings(**networks('127.0.0.0/8'))
        outcome = send(receiver.url())
        assert outcome.error == '127.0.0.1 is at 127.0.0.1, which is in blocked_networks'
        assert not outcome.unreachable

    def test_a_name_that_leads_to_a_blocked_address_is_refused(self, send, receiver, settings, monkeypatch):
        settings(**networks('127.0.0.0/8'))
        monkeypatch.setattr(socket, 'getaddrinfo', resolve_to('127.0.0.1', '127.0.0.2'))
        outcome = send(f'http://rebinding.example:{receiver.port}/')
        assert 'rebinding.example is at 127.0.0.1' in outcome.error
        assert not receiver.requests
        settings(**networks())
        assert send(f'http://rebinding.example:{receiver.port}/').succeeded

    def test_the_allowed_ones_of_several_addresses_are_used(self, send, receiver, settings, monkeypatch):
        settings(**networks('127.0.0.2/32', '::ffff:127.0.0.2/128'))
        monkeypatch.setattr(socket, 'getaddrinfo', resolve_to('127.0.0.2', '127.0.0.1'))
        assert send(f'http://mixed.example:{receiver.port}/').succeeded
        assert len(receiver.requests) == 1

    def test_a_blocked_address_is_not_even_connected_to(self, send, settings, monkeypatch):
        settings(**networks('127.0.0.1/32'))
        with serving(OK) as server:
            monkeypatch.setattr(socket, 'getaddrinfo', resolve_to('127.0.0.1', '127.0.0.3'))
            send(server.url(host='mixed.example'))
            assert server.connections == 0
            settings(**networks())
            send(server.url(host='mixed.example'))
            assert server.connections == 1

    def test_the_name_is_looked_up_once(self, send, receiver, monkeypatch):
        """DNS rebinding needs two look-ups: a check and a connection."""
        known = socket.getaddrinfo
        answers = ['127.0.0.1', '169.254.169.254']

        def getaddrinfo(host: str, *args: object) -> list[tuple]:
            return known(answers.pop(0) if host == 'rebinding.example' else host, *args)

        monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
        assert send(f'http://rebinding.example:{receiver.port}/').succeeded

    def test_through_a_proxy_the_target_is_checked_before(self, send, settings):
        settings(**networks('10.0.0.0/8'))
        with Receiver() as proxy:
            assert 'blocked_networks' in send('http://10.1.2.3/', proxies={'http': proxy.url()}).error
            assert not proxy.requests
            settings(**networks())
            assert send('http://10.1.2.3/', proxies={'http': proxy.url()}).succeeded
            assert len(proxy.requests) == 1

    def test_a_name_that_only_a_proxy_knows_is_asked_for_where_the_setting_says_so(self, send, settings):
        with Receiver() as proxy:
            outcome = send('http://inside.invalid/', proxies={'http': proxy.url()})
            assert outcome.error.startswith('inside.invalid cannot be resolved')
            assert outcome.unreachable
            assert not proxy.requests
            settings(proxy_resolves_names=True)
            assert send('http://inside.invalid/', proxies={'http': proxy.url()}).succeeded
            assert len(proxy.requests) == 1

    def test_the_next_of_several_addresses_is_tried(self, send, receiver, monkeypatch):
        monkeypatch.setattr(socket, 'getaddrinfo', resolve_to('127.0.0.9', '127.0.0.1'))
        assert send(f'http://several.example:{receiver.port}/').succeeded
