"""What each driver keeps: it publishes once confirmed, names what is wrong, and never hangs."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.brokers import PATIENT, READERS, Reader, Relay, Sender, sending
from support.settings import change_settings

from devstack.brokers import MOST, PASSWORD, Broker
from devstack.ports import free_port
from devstack.process import wait_until

pytestmark = pytest.mark.usefixtures('bus')
# Seconds that a broker has which says nothing.
SHORT = 2.0


@pytest.fixture
def send(reader: Reader) -> Iterator[Sender]:
    with sending(reader) as sender:
        yield sender


class TestPublishing:
    def test_a_confirmed_message_is_there_with_key_id_headers_and_body(self, send, reader):
        before = len(reader.read())
        number = str(uuid.uuid4())
        outcome = send(body=b'{"n": 1}', id=number)
        assert (outcome.error, outcome.unreachable, outcome.status) == ('', False, None)
        (got,) = reader.wait_for(before + 1)[before:]
        assert (got.address, got.id, got.body) == (reader.address, number, b'{"n": 1}')
        assert got.key in ('dcim.site:1', '')
        assert {'content-type', 'x-mark'} <= got.headers.keys()

    def test_the_outcome_shows_what_the_broker_said(self, send, driver):
        shown = {
            'nats': {'stream', 'sequence'},
            'redis': {'stream', 'id'},
            'mqtt': {'topic', 'reason'},
            'amqp': {'exchange', 'routing_key', 'delivery_tag'},
            'kafka': {'topic', 'partition', 'offset'},
        }
        confirmation = send().headers
        assert confirmation.keys() == shown[driver]
        assert all(confirmation.values())

    def test_a_header_of_the_brokers_own_does_nothing(self, send, reader):
        before = len(reader.wait_for(1) if send().succeeded else [])
        assert send(headers={'Content-Type': 'text/plain', 'Nats-Rollup': 'all', 'CC': 'x', 'BCC': 'x'}).succeeded
        # MQTT may bring one twice, on a busy machine.
        assert reader.wait_for(before + 1)

    def test_a_broken_line_in_a_header_is_refused(self, send):
        outcome = send(headers={'Content-Type': 'a\r\nNats-Rollup: all'})
        assert 'line break' in outcome.error
        assert not outcome.unreachable


class TestRefusals:
    def test_a_message_that_is_too_large_is_a_failure(self, send, driver):
        if driver == 'redis':
            pytest.skip('Redis takes up to 512 MB')
        outcome = send(body=b'x' * (4 * MOST), timeout=PATIENT)
        assert outcome.error
        assert not outcome.unreachable

    def test_an_address_that_nobody_takes_is_a_failure(self, send, reader):
        if not reader.unknown:
            pytest.skip('any address is there')
        outcome = send(reader.unknown)
        assert outcome.error
        assert not outcome.unreachable

    def test_a_missing_right_is_a_failure(self, send, reader):
        if not reader.forbidden:
            pytest.skip('this server has no rights')
        outcome = send(reader.forbidden)
        assert outcome.error
        assert not outcome.unreachable
        assert send().succeeded

    def test_wrong_credentials_are_a_failure_that_shows_no_secret(self, bus, reader, monkeypatch):
        if bus.driver == 'kafka':
            pytest.skip('this server knows no logins')
        wrong = f'{PASSWORD}-no-more'
        change_settings(monkeypatch, brokers={'bus': _with_password(bus.options, wrong)})
        with sending(reader) as send:
            outcome = send()
        assert outcome.error
        assert not outcome.unreachable
        assert wrong not in outcome.error


class TestAway:
    def test_a_stopped_broker_is_unreachable(self, reader, monkeypatch):
        options = reader.broker.options
        port = str(free_port())
        change_settings(monkeypatch, brokers={'bus': _moved(options, reader.broker.shown_port, port)})
        with sending(reader) as send:
            outcome = send(timeout=SHORT)
        assert outcome.unreachable
        assert outcome.error

    def test_a_slow_one_is_waited_for(self, send, relay):
        relay.delay = 0.3
        outcome = send()
        assert outcome.error == ''
        assert outcome.duration >= relay.delay

    def test_one_that_never_answers_is_unreachable_in_time(self, reader, relay):
        relay.cut()
        relay.hangs = True
        with sending(reader) as send:
            outcome = send(timeout=SHORT)
        assert outcome.unreachable
        assert SHORT * 0.9 < outcome.duration < PATIENT / 2

    def test_one_that_never_answers_leaves_no_connections_open(self, reader, relay):
        relay.cut()
        relay.hangs = True
        with sending(reader) as send:
            for _ in range(8):
                assert send(timeout=SHORT / 4).unreachable
            assert relay.connections
            assert wait_until(lambda: relay.established() <= 2, PATIENT)

    def test_a_message_that_waits_long_for_a_silent_one_does_not_hold_up_others_once_it_answers(self, reader, relay):
        relay.cut()
        connections = relay.connections
        relay.hangs = True
        with sending(reader) as send, ThreadPoolExecutor(1) as pool:
            patient = pool.submit(send, timeout=3 * PATIENT)
            assert wait_until(lambda: relay.connections > connections, PATIENT)
            # What is open stays silent. What is opened from now on works.
            relay.hangs = False
            assert send().error == ''
            relay.cut()
            patient.result()

    def test_one_that_stops_to_confirm_is_unreachable_in_time(self, send, relay):
        assert send().succeeded
        relay.hangs = True
        outcome = send(timeout=SHORT)
        assert outcome.unreachable
        assert outcome.duration < PATIENT / 2

    def test_one_that_resets_connections_is_unreachable(self, reader, relay):
        relay.cut()
        relay.resets = True
        with sending(reader) as send:
            outcome = send(timeout=SHORT)
        assert outcome.unreachable

    def test_after_a_lost_connection_it_goes_on(self, send, relay):
        assert send().succeeded
        relay.cut()
        outcomes = [send(timeout=SHORT * 5)]
        while not outcomes[-1].succeeded and len(outcomes) < 10:
            outcomes.append(send(timeout=SHORT * 5))
        assert outcomes[-1].succeeded
        assert [one.error for one in outcomes[:-1] if not one.unreachable] == []

    def test_connections_that_end_while_nothing_is_under_way_cost_no_attempt(self, send, relay):
        with ThreadPoolExecutor(8) as pool:
            for _ in range(2):
                assert {one.result().error for one in [pool.submit(send) for _ in range(24)]} == {''}
                relay.cut()

    def test_a_full_one_is_unreachable(self, start_broker, driver, monkeypatch):
        if driver in ('mqtt', 'kafka'):
            pytest.skip('this server is never full')
        broker = start_broker(driver)
        reader = READERS[driver](broker)
        reader.prepare()
        reader.fill()
        change_settings(monkeypatch, brokers={'bus': broker.options})
        with sending(reader) as send:
            outcome = send(reader.full)
        assert outcome.unreachable
        assert outcome.error


def test_a_new_process_of_a_killed_broker_is_used(start_broker: Callable[..., Broker], driver, monkeypatch):
    broker = start_broker(driver)
    reader = READERS[driver](broker)
    reader.prepare()
    own = {'delivery.timeout.ms': 3000} if driver == 'kafka' else {}
    change_settings(monkeypatch, brokers={'bus': broker.options | own})
    with sending(reader) as send:
        assert send().succeeded
        broker.kill()
        assert send(timeout=SHORT).unreachable
        broker.start()
        if driver == 'kafka':
            reader.prepare()  # it forgets
        outcomes = [send(timeout=SHORT * 5)]
        while not outcomes[-1].succeeded and len(outcomes) < 10:
            outcomes.append(send(timeout=SHORT * 5))
        assert outcomes[-1].succeeded
    reader.close()


def test_a_broker_that_moves_is_found_again(reader: Reader, start_broker, driver, monkeypatch):
    """A name leads elsewhere: the connection breaks, and the next one goes to the new place."""
    if driver == 'kafka':
        pytest.skip('its servers say themselves where they are')
    second = start_broker(driver)
    other = READERS[driver](second)
    other.prepare()
    moving = Relay(reader.broker.port)
    change_settings(
        monkeypatch, brokers={'bus': _moved(reader.broker.options, reader.broker.shown_port, str(moving.port))}
    )
    with sending(reader) as send:
        assert send().succeeded
        moving.target = second.port
        moving.cut()
        outcomes = [send(timeout=SHORT * 5)]
        while not outcomes[-1].succeeded and len(outcomes) < 10:
            outcomes.append(send(timeout=SHORT * 5))
    assert len(other.wait_for(1)) == 1
    moving.close()
    other.close()


def _with_password(options: dict[str, Any], password: str) -> dict[str, Any]:
    if 'servers' in options:
        return options | {'servers': [one.replace(PASSWORD, password) for one in options['servers']]}
    return options | {'password': password}


def _moved(options: dict[str, Any], before: int, port: str) -> dict[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if isinstance(value, str):
            return value.replace(str(before), port)
        return int(port) if value == before else value

    return {name: moved(value) for name, value in options.items()}
