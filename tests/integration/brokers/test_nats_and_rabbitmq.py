"""What only NATS and RabbitMQ do: many messages share one connection, and one of them must not harm the others."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.brokers import PATIENT, NatsReader, Reader, Relay, Sender, options_of, sending
from support.settings import change_settings

from devstack.brokers import MOST, Nats
from devstack.ports import free_port
from devstack.process import Processes, wait_until
from webhooks.brokers import nats, registry
from webhooks.brokers.driver import Lost, Message

pytestmark = pytest.mark.usefixtures('bus')
# Seconds that a broker has which says nothing.
SHORT = 2.0


class Discreet(Nats):
    """It tells nobody its streams."""

    denied = (*Nats.denied, '$JS.API.STREAM.NAMES')


@pytest.fixture
def send(reader: Reader) -> Iterator[Sender]:
    with sending(reader) as sender:
        yield sender


def message(address: str) -> Message:
    headers = {'content-type': 'application/json'}
    return Message(address=address, key='dcim.site:1', id=str(uuid.uuid4()), headers=headers, body=b'{}')


@pytest.mark.parametrize('driver', ['amqp'])
class TestRabbitMq:
    @pytest.mark.parametrize('name', ['Content-Type', 'X-' + 'a' * 300])
    def test_a_message_that_cannot_be_sent_fails_and_later_ones_get_their_own_answers(self, send: Sender, name: str):
        assert send().succeeded
        outcome = send(headers={'Content-Type': 'application/json'} | {name: 'b' * 300})
        assert [send().error for _ in range(2)] == ['', '']
        assert outcome.error == 'the name of a header or the content type is longer than 255 bytes'
        assert not outcome.unreachable

    def test_no_error_names_a_virtual_host_that_is_missing(self, reader: Reader, monkeypatch: pytest.MonkeyPatch):
        options = options_of(reader.broker)
        # A login beside the URL.
        url = f'amqp://{options.pop("host")}:{options.pop("port")}/production%2Feast'
        change_settings(monkeypatch, brokers={'bus': {**options, 'url': url}})
        with sending(reader) as send:
            error = send().error
        assert 'vhost' in error and '********' in error
        assert 'production' not in error

    def test_a_message_that_closes_the_channel_is_the_only_one_refused(self, send: Sender, relay: Relay):
        assert send().succeeded
        # So long the others are under way beside it.
        relay.delay = 0.2
        with ThreadPoolExecutor(7) as pool:
            large = pool.submit(send, body=b'x' * (MOST + 1))
            others = [pool.submit(send) for _ in range(6)]
            assert [one.result().error for one in others] == [''] * 6
        outcome = large.result()
        assert outcome.error.startswith('406')
        assert not outcome.unreachable

    def test_two_messages_that_close_a_channel_at_once_are_both_refused(self, send: Sender, relay: Relay):
        assert send().succeeded
        relay.delay = 0.2
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(lambda _: send(body=b'x' * (MOST + 1)), range(2)))
        assert [(one.error[:3], one.unreachable) for one in outcomes] == [('406', False)] * 2

    def test_a_message_that_closes_the_channel_after_its_timeout_has_no_other_refused(self, send: Sender, relay: Relay):
        assert send().succeeded
        relay.hangs = True
        assert send(body=b'x' * (MOST + 1), timeout=SHORT).unreachable
        relay.delay = 0.2
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(send)
            relay.hangs = False
            assert other.result().error == ''

    def test_a_connection_that_ends_while_a_message_waits_for_a_channel_is_lost(self, relay: Relay):
        """The message knows the connection already, and waits until another message has opened a channel."""
        driver = registry.find('amqp', 'bus').open()
        opening, background = driver._opening, driver._background
        try:
            driver.publish(message('netbox/sites'), SHORT)
            # Both look at the connection before one of them opens a channel.
            background.run(opening.acquire(), SHORT)
            relay.hangs = True
            with ThreadPoolExecutor(2) as pool:
                messages = [pool.submit(driver.publish, message(one), PATIENT) for one in ('/sites', 'amq.topic/sites')]
                assert wait_until(lambda: len(opening._waiters or ()) == 2, PATIENT)
                background._loop.call_soon_threadsafe(opening.release)
                assert wait_until(lambda: opening.locked() and len(opening._waiters) == 1, PATIENT)
                relay.hangs = False
                relay.cut()
                assert [type(one.exception()) for one in messages] == [Lost, Lost]
        finally:
            driver.close()

    def test_a_return_that_came_too_late_does_not_refuse_the_next_attempt(self, send, reader, relay):
        assert send().succeeded
        number = str(uuid.uuid4())
        relay.hangs = True
        assert send('netbox/late', id=number, timeout=SHORT).unreachable
        relay.hangs = False
        # The broker answers in turn: after this it has returned the first.
        assert send().succeeded
        with reader.channel() as channel:
            channel.queue_bind('sites', 'netbox', 'late')
        before = len(reader.read())
        assert send('netbox/late', id=number).error == ''
        assert [one.id for one in reader.wait_for(before + 1)[before:]] == [number]

    def test_each_attempt_of_a_message_that_no_queue_takes_is_refused(self, send, relay):
        """Also after some were given up."""
        assert send().succeeded
        number = str(uuid.uuid4())
        relay.hangs = True
        for _ in range(2):
            assert send('netbox/lost', id=number, timeout=SHORT).unreachable
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(send, 'netbox/lost', id=number)
            relay.hangs = False
            outcome = last.result()
        assert outcome.error.startswith('312')
        assert not outcome.unreachable


@pytest.mark.parametrize('driver', ['nats'])
class TestNats:
    def test_a_message_that_is_too_large_by_its_headers_leaves_the_connection_to_others(self, send, relay):
        assert send().succeeded
        connections = relay.connections
        outcome = send(body=b'x' * (MOST - 10))
        assert outcome.error == f'the message is larger than {MOST} bytes'
        assert not outcome.unreachable
        assert send().succeeded
        assert relay.connections == connections

    def test_the_largest_message_arrives(self, send: Sender, reader: Reader):
        assert send(headers={}, body=b'').succeeded
        before = len(reader.read())
        lines = ('NATS/1.0', f'Nats-Msg-Id: {uuid.uuid4()}', '', '')
        largest = MOST - len('\r\n'.join(lines))
        assert send(headers={}, body=b'x' * largest).error == ''
        assert len(reader.wait_for(before + 1)[-1].body) == largest
        assert send(headers={}, body=b'x' * (largest + 1)).error == f'the message is larger than {MOST} bytes'

    def test_a_subject_of_1024_bytes_arrives_and_a_longer_one_is_no_address(self, send: Sender, reader: Reader):
        longest = 'netbox.' + 'a' * (nats.MAX_SUBJECT_BYTES - len('netbox.'))
        before = len(reader.read())
        assert send(longest).error == ''
        assert reader.wait_for(before + 1)[-1].address == longest
        nats.Nats.check_address(longest)
        with pytest.raises(ValueError, match='1,024 bytes'):
            nats.Nats.check_address(longest + 'a')

    def test_a_missing_right_is_a_failure_for_a_subject_with_capitals(self, send: Sender):
        outcome = send('forbidden.Sites', timeout=5 * SHORT)
        assert 'permissions violation' in outcome.error
        assert not outcome.unreachable

    def test_a_subject_that_is_allowed_gets_its_own_answer_beside_a_forbidden_one_in_other_letters(
        self, send, relay, monkeypatch
    ):
        # Acknowledgements may take longer on a busy machine.
        monkeypatch.setattr(nats, 'VIOLATION_SECONDS', 2 * SHORT)
        assert send().succeeded
        # So long all of them are under way.
        relay.delay = 0.1
        with ThreadPoolExecutor(6) as pool:
            subjects = ('netbox.DENIED', 'netbox.denied')
            allowed, forbidden = ([pool.submit(send, one) for _ in range(3)] for one in subjects)
            assert [one.result().error for one in allowed] == [''] * 3
        assert [one.result().unreachable for one in forbidden] == [False] * 3
        assert all('permissions violation' in one.result().error for one in forbidden)

    def test_a_login_that_may_not_ask_for_streams_reads_that_no_stream_takes_the_subject(
        self, stack, processes: Processes, monkeypatch
    ):
        broker = Discreet(stack.folder / 'nats-discreet', processes)
        broker.start()
        change_settings(monkeypatch, brokers={'bus': broker.options})
        with sending(NatsReader(broker)) as send:
            outcome = send('nowhere.sites')
        broker.stop()
        assert (outcome.error, outcome.unreachable) == ('no stream takes the subject nowhere.sites', False)

    @pytest.mark.parametrize('how', ['hangs', 'resets', 'stopped'])
    def test_the_next_server_of_the_list_is_used(self, bus, reader, monkeypatch, how):
        first = Relay(bus.port)
        if how == 'stopped':
            first.close()
        else:
            setattr(first, how, True)
        (second,) = bus.options['servers']
        servers = [second.replace(str(bus.shown_port), str(first.port)), second]
        options = {'servers': servers, 'dont_randomize': True, 'connect_timeout': SHORT / 4}
        change_settings(monkeypatch, brokers={'bus': bus.options | options})
        with sending(reader) as send:
            assert send().error == ''
        first.close()

    def test_an_attempt_without_a_connection_names_the_reason(self, bus, reader, monkeypatch):
        change_settings(monkeypatch, brokers={'bus': bus.options | {'servers': [f'nats://127.0.0.1:{free_port()}']}})
        with sending(reader) as send:
            outcome = send(timeout=5 * SHORT)
        assert outcome.unreachable
        assert outcome.error.startswith('no connection: ')
        assert 'Connect call failed' in outcome.error

    @pytest.mark.parametrize('by', ['default', 'option'])
    def test_a_connection_that_falls_silent_is_given_up_after_three_pings(self, bus, reader, relay, monkeypatch, by):
        seconds = SHORT / 4
        if by == 'option':
            change_settings(monkeypatch, brokers={'bus': options_of(bus) | {'ping_interval': seconds}})
        else:
            monkeypatch.setattr(nats, 'PING_INTERVAL_SECONDS', seconds)
        with sending(reader) as send:
            assert send().succeeded
            connections = relay.connections
            relay.hangs = True

            def is_given_up() -> bool:
                return send(timeout=SHORT).unreachable and relay.connections > connections

            assert wait_until(is_given_up, 15 * SHORT)
            relay.hangs = False
            relay.cut()
            assert send().succeeded
