"""Sockets are given back, and a machine without any left is not the endpoint's fault."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator

import certifi
import pytest
from support.descriptors import left, sockets_to
from support.loopback import OK, serving
from support.settings import change_settings

from devstack.process import wait_until
from webhooks.transport import connections, deadline
from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

# Seconds. No passing test reaches LONG.
SHORT, LONG = 0.05, 30.0


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(16)
    yield client
    client.close()


@pytest.fixture
def send(client: Client) -> Callable[..., Outcome]:
    def send(url: str, **fields: object) -> Outcome:
        return client.send(Request(method='POST', url=url, headers={}, body=b'{}', **{'timeout': LONG} | fields))

    return send


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def kept(seconds: float) -> None:
        monkeypatch.setattr(connections, 'MAX_IDLE_SECONDS', seconds)
        monkeypatch.setattr(deadline, 'TIDY_SECONDS', SHORT)

    return kept


def answers_and_closes() -> Iterator[bytes]:
    yield OK


class TestIdle:
    @pytest.mark.parametrize('answer', [OK, answers_and_closes], ids=['open', 'closed by the endpoint'])
    @pytest.mark.parametrize('is_proxy', [False, True], ids=['direct', 'proxy'])
    def test_connections_without_a_request_are_closed(self, send, kept, answer, is_proxy):
        kept(LONG)
        with serving(answer) as server:
            fields = {'proxies': {'http': server.url()}} if is_proxy else {}
            url = 'http://10.20.30.40/' if is_proxy else server.url()
            threads = [threading.Thread(target=send, args=[url], kwargs=fields) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sockets_to(server.port)
            kept(0)
            assert wait_until(lambda: not sockets_to(server.port), timeout=LONG)

    def test_threads_that_use_a_proxy_first_get_connections_that_it_knows(self, monkeypatch):
        adapter = connections.GuardedAdapter()
        made, connect_by = [], connections._connect_by

        def take() -> None:
            manager = adapter.proxy_manager_for('http://10.20.30.40:3128')
            made.append(manager.pool_classes_by_scheme['http'].ConnectionCls)

        def connect(*args: object) -> None:
            """Another thread comes in between."""
            monkeypatch.setattr(connections, '_connect_by', connect_by)
            thread = threading.Thread(target=take)
            thread.start()
            thread.join(LONG)
            connect_by(*args)

        monkeypatch.setattr(connections, '_connect_by', connect)
        take()
        assert len(made) == 2
        assert all(hasattr(one, 'answered_at') for one in made)

    def test_a_connection_in_use_is_not_closed_as_idle(self, send, kept):
        kept(0)
        may_end = threading.Event()

        def parts() -> Iterator[bytes]:
            yield OK[:-1]
            assert may_end.wait(LONG)
            yield OK[-1:]

        with serving(parts) as server, serving(OK) as other:
            outcomes: list[Outcome] = []
            thread = threading.Thread(target=lambda: outcomes.append(send(server.url())))
            thread.start()
            assert wait_until(lambda: server.requests, timeout=LONG)
            send(other.url())
            assert wait_until(lambda: not sockets_to(other.port), timeout=LONG)
            assert sockets_to(server.port) == 1
            may_end.set()
            thread.join()
        assert outcomes[0].succeeded

    def test_a_connection_that_was_just_used_is_used_again(self, client, send, kept, monkeypatch):
        kept(LONG)
        sweeps, close = [], connections._close_idle
        monkeypatch.setattr(connections, '_close_idle', lambda kept: sweeps.append(close(kept)))
        with serving(OK) as server:
            assert wait_until(lambda: send(server.url()).succeeded and len(sweeps) > 3, timeout=LONG)
            assert server.connections == 1


class TestShortage:
    @pytest.mark.parametrize('count', [0, 1])
    def test_without_descriptors_nothing_is_said_about_the_endpoint(self, send, count):
        with socket.create_server(('127.0.0.1', 0)) as listener:
            port = listener.getsockname()[1]
            with left(count):
                outcome = send(f'http://127.0.0.1:{port}/')
            assert not sockets_to(port)
        assert (outcome.starved, outcome.unreachable, outcome.succeeded) == (True, False, False)
        assert outcome.error == 'OSError: Too many open files'

    @pytest.mark.parametrize('count', [0, 1])
    @pytest.mark.parametrize('proxies', [{}, {'http': 'http://127.0.0.1:9'}], ids=['direct', 'proxy'])
    def test_a_name_that_cannot_be_looked_up_for_that_reason_is_not_unknown(self, send, count, proxies):
        outcome = send('http://nowhere.invalid/', proxies=proxies)
        assert (outcome.starved, outcome.unreachable) == (False, True)
        with left(count):
            outcome = send('http://nowhere.invalid/', proxies=proxies)
        assert (outcome.starved, outcome.unreachable) == (True, False)

    @pytest.mark.parametrize('code', [errno.EINVAL, socket.EAI_NONAME, socket.EAI_SYSTEM])
    def test_it_does_not_matter_what_the_machine_says_of_such_a_look_up(self, send, monkeypatch, code):
        """Each service for names (nsswitch.conf) has an error of its own for it."""

        def look_up(*_args: object) -> None:
            raise socket.gaierror(code, 'Invalid argument')

        monkeypatch.setattr(socket, 'getaddrinfo', look_up)
        with left(0):
            outcome = send('http://nowhere.invalid/')
        assert (outcome.starved, outcome.unreachable) == (True, False)
        outcome = send('http://nowhere.invalid/')
        assert (outcome.starved, outcome.unreachable) == (False, True)

    def test_a_kept_connection_needs_one_too(self, send):
        with serving(OK) as server:
            assert send(server.url()).succeeded
            with left(0):
                assert send(server.url()).starved
            assert send(server.url()).succeeded

    def test_a_refused_connection_is_no_shortage(self, send):
        with socket.create_server(('127.0.0.1', 0)) as listener:
            port = listener.getsockname()[1]
        outcome = send(f'http://127.0.0.1:{port}/')
        assert (outcome.starved, outcome.unreachable) == (False, True)

    def test_a_ca_file_that_cannot_be_opened_for_that_reason_is_not_missing(self, send):
        with socket.create_server(('127.0.0.1', 0)) as listener, left(2):
            outcome = send(f'https://127.0.0.1:{listener.getsockname()[1]}/', verify=certifi.where())
        assert (outcome.starved, outcome.error) == (True, 'OSError: Too many open files')


class TestBrokers:
    @pytest.fixture
    def publish(self, monkeypatch: pytest.MonkeyPatch, client: Client) -> Callable[[], Outcome]:
        change_settings(monkeypatch, brokers={'r': {'driver': 'redis', 'host': 'nowhere.invalid'}})
        request = Request(method='POST', url='redis://r/events', headers={}, body=b'{}', timeout=LONG)

        def publish() -> Outcome:
            return client.send(request)

        return publish

    def test_a_name_that_cannot_be_looked_up_for_that_reason_is_not_unknown(self, publish, monkeypatch):
        """Each service for names (nsswitch.conf) has an error of its own for it."""

        def look_up(*_args: object, **_others: object) -> None:
            raise socket.gaierror(errno.EINVAL, 'Invalid argument')

        monkeypatch.setattr(socket, 'getaddrinfo', look_up)
        outcome = publish()
        assert (outcome.starved, outcome.unreachable) == (False, True)
        with left(0):
            outcome = publish()
        assert (outcome.starved, outcome.unreachable) == (True, False)
        assert outcome.error == 'OSError: [Errno 24] Too many open files'
