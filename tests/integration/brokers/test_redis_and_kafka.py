"""What only the clients of Redis and Kafka do: a limit of connections, and a producer that dies."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.brokers import Reader, Relay

from devstack.process import wait_until
from webhooks.brokers.driver import Away, Message
from webhooks.brokers.kafka import Kafka
from webhooks.brokers.redis import MAX_CONNECTIONS, Redis

# Seconds.
PATIENCE = 60.0
# Milliseconds that Kafka's client tries to deliver a message.
DELIVERY_TIMEOUT = 6000


def message(reader: Reader, body: bytes, key: str = 'dcim.site:1') -> Message:
    return Message(address=reader.address, key=key, id=body.decode(), headers={}, body=body)


class TestRedis:
    @pytest.fixture
    def driver(self) -> str:
        return 'redis'

    def test_more_messages_at_once_than_connections_are_all_confirmed(self, reader: Reader):
        options = {name: value for name, value in reader.broker.options.items() if name not in ('driver', 'addresses')}
        count = 3 * MAX_CONNECTIONS
        before, together = len(reader.read()), threading.Barrier(count)
        redis = Redis(options)

        def publish(number: int) -> object:
            together.wait(PATIENCE)
            return redis.publish(message(reader, str(number).encode()), PATIENCE)

        try:
            with ThreadPoolExecutor(count) as pool:
                assert len(list(pool.map(publish, range(count)))) == count
        finally:
            redis.close()
        assert len(reader.wait_for(before + count)) == before + count


class TestKafkasOptions:
    @pytest.fixture
    def driver(self) -> str:
        return 'kafka'

    def test_they_are_checked_without_fetching_a_token(self):
        """The server of tokens may be away, and all brokers would wait."""
        asked: list[str] = []
        login = {'security.protocol': 'SASL_SSL', 'sasl.mechanisms': 'OAUTHBEARER', 'oauth_cb': asked.append}
        Kafka({'bootstrap.servers': '127.0.0.1:9', **login}).close()
        assert not asked

    def test_a_number_may_be_text(self, reader: Reader):
        options = {name: value for name, value in reader.broker.options.items() if name not in ('driver', 'addresses')}
        kafka = Kafka(options | {'delivery.timeout.ms': '30000'})
        try:
            assert kafka.publish(message(reader, b'text'), PATIENCE)
        finally:
            kafka.close()


class TestAProducerThatDies:
    """Kafka's client gives a message up long after its webhook's timeout."""

    @pytest.fixture
    def driver(self) -> str:
        return 'kafka'

    @pytest.fixture
    def kafka(self, reader: Reader) -> Iterator[Kafka]:
        options = {name: value for name, value in reader.broker.options.items() if name not in ('driver', 'addresses')}
        made = Kafka(options | {'delivery.timeout.ms': DELIVERY_TIMEOUT, 'reconnect.backoff.max.ms': 200})
        made.publish(message(reader, b'first'), PATIENCE)
        yield made
        made.close()

    def lose_two(self, kafka: Kafka, reader: Reader, relay: Relay) -> None:
        """Nobody waits any more for these two. The client gives up the older one some seconds before the newer one."""
        *_former, thread = [one for one in threading.enumerate() if one.name == 'webhooks-kafka']
        relay.resets = True
        relay.cut()
        # Two partitions: in one, the broker refuses what follows a lost message.
        for body, key, seconds in ((b'older', 'dcim.site:2', 4), (b'newer', 'dcim.site:1', 1)):
            with pytest.raises(Away):
                kafka.publish(message(reader, body, key), seconds)
        assert wait_until(lambda: not thread.is_alive(), PATIENCE)
        relay.resets = False
        relay.cut()

    def test_it_is_started_anew_though_nobody_waits_for_the_message_any_more(self, kafka, reader, relay):
        self.lose_two(kafka, reader, relay)
        assert kafka.publish(message(reader, b'second'), PATIENCE)
        assert reader.read()[-1].body == b'second'

    def test_messages_of_a_dead_producer_do_not_come_after_newer_ones(self, kafka, reader, relay):
        before = len(reader.read())
        self.lose_two(kafka, reader, relay)
        kafka.publish(message(reader, b'newest'), PATIENCE)

        def has_more() -> bool:
            return len(reader.read()) > before + 1

        assert not wait_until(has_more, DELIVERY_TIMEOUT / 1000, interval=0.5)
        assert reader.read()[-1].body == b'newest'
