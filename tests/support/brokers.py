"""Reads back what brokers hold, and a relay in front of them that can fail in any way."""

import asyncio
import json
import socket
import ssl
import struct
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from devstack.brokers import PASSWORD, USER, Broker
from devstack.ports import LOOPBACK
from devstack.process import wait_until
from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

# Seconds that a message may take on a busy machine.
PATIENT = 60.0
# The kernel's number of this state of a connection.
ESTABLISHED = 1
# For what the engine does whichever broker there is: one that has keys and refuses addresses. `--long`: all of them.
ANY_DRIVER = pytest.mark.parametrize(
    'driver', ['amqp', *(pytest.param(one, marks=pytest.mark.long) for one in ('kafka', 'mqtt', 'nats', 'redis'))]
)


@dataclass(frozen=True)
class Got:
    """A message as a reader gets it. `key` and `id` are '' where the broker has none of its own."""

    address: str
    key: str
    id: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Reader(ABC):
    """Prepares `broker` for messages below netbox, and reads them all, the oldest first."""

    # An address that is accepted, one that no reader has prepared, one that the user may not use, and one that is full.
    address = 'netbox.sites'
    unknown = ''
    forbidden = ''
    full = ''
    # Of addresses with a template.
    separator = '.'

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def read(self) -> list[Got]: ...

    def fill(self) -> None:
        """Make `full` an address that takes no more."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027  (most keep no connection)
        """End connections."""

    def wait_for(self, number: int, timeout: float = 60) -> list[Got]:
        got: list[Got] = []

        def have_come() -> bool:
            got[:] = self.read()
            return len(got) >= number

        assert wait_until(have_come, timeout, interval=0.1), f'{len(got)} of {number} messages arrived'
        return got


class NatsReader(Reader):
    unknown, forbidden, full = 'nowhere.sites', 'forbidden.sites', 'full.sites'

    def prepare(self) -> None:
        async def add(stream: Any) -> None:
            await stream.add_stream(name='NETBOX', subjects=['netbox.>'])

        self._with(add)

    def fill(self) -> None:
        async def add(stream: Any) -> None:
            from nats.js.api import DiscardPolicy

            await stream.add_stream(name='FULL', subjects=['full.>'], max_msgs=1, discard=DiscardPolicy.NEW)
            await stream.publish('full.sites', b'')

        self._with(add)

    def read(self) -> list[Got]:
        async def read(stream: Any) -> list[Got]:
            state = (await stream.stream_info('NETBOX')).state
            found = [await stream.get_msg('NETBOX', number) for number in range(1, state.last_seq + 1)]
            return [
                Got(one.subject, '', one.headers.get('Nats-Msg-Id', ''), dict(one.headers), one.data) for one in found
            ]

        return self._with(read)

    def _with(self, work: Any) -> Any:
        async def run() -> Any:
            import nats

            options = {name: value for name, value in self.broker.options.items() if name != 'driver'}
            shown, real = str(self.broker.shown_port), str(self.broker.port)
            options['servers'] = [one.replace(shown, real) for one in options['servers']]
            if self.broker.tls:
                options['tls'] = client_context(self.broker.tls)
            connection = await nats.connect(**options)
            try:
                return await work(connection.jetstream())
            finally:
                await connection.close()

        return asyncio.run(run())


class RedisReader(Reader):
    forbidden = 'forbidden'

    def prepare(self) -> None:
        self._got: dict[tuple[bytes, bytes], Got] = {}

    def read(self) -> list[Got]:
        with closing(self._client()) as client:
            for stream in client.keys('netbox*'):
                for number, entry in client.xrange(stream):
                    if (stream, number) not in self._got:
                        self._got[stream, number] = self._as_got(stream, entry)
        return list(self._got.values())

    def _as_got(self, stream: bytes, entry: dict[bytes, bytes]) -> Got:
        headers = json.loads(entry[b'headers'])
        return Got(stream.decode(), entry[b'key'].decode(), entry[b'id'].decode(), headers, entry[b'body'])

    def _client(self) -> Any:
        import redis

        options = {name: value for name, value in self.broker.options.items() if name not in ('driver', 'username')}
        return redis.Redis(**options | {'port': self.broker.port})

    def fill(self) -> None:
        self.full = self.address
        with closing(self._client()) as client:
            client.config_set('maxmemory', 1)


class MqttReader(Reader):
    address, forbidden, separator = 'netbox/sites', 'forbidden/sites', '/'

    def prepare(self) -> None:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self._got: list[Got] = []
        self._is_there = threading.Event()
        self._client = client = Client(CallbackAPIVersion.VERSION2, client_id='reader', protocol=MQTTv5)
        client.username_pw_set(USER, PASSWORD)
        if self.broker.tls:
            client.tls_set_context(client_context(self.broker.tls))
        client.on_connect = lambda *_: client.subscribe('netbox/#', qos=1)
        client.on_subscribe = lambda *_: self._is_there.set()
        client.on_message = lambda _client, _data, message: self._got.append(self._as_got(message))
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 3600
        client.reconnect_delay_set(1, 1)
        client.connect(LOOPBACK, self.broker.port, clean_start=False, properties=kept)
        client.loop_start()
        assert self._is_there.wait(30)

    def _as_got(self, message: Any) -> Got:
        headers = dict(message.properties.UserProperty)
        assert message.properties.ContentType == headers['content-type']
        return Got(message.topic, headers.pop('key'), headers.pop('id'), headers, message.payload)

    def read(self) -> list[Got]:
        return list(self._got)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class AmqpReader(Reader):
    address, unknown, forbidden, full = 'netbox/sites', 'netbox/nowhere', 'forbidden/sites', 'netbox/full'

    def prepare(self) -> None:
        self._got: list[Got] = []
        with self.channel() as channel:
            channel.exchange_declare('netbox', 'topic', durable=True)
            channel.exchange_declare('forbidden', 'topic', durable=True)
            channel.queue_declare('sites', durable=True)
            for key in ('sites', 'sites.#', 'dcim.#', '*.*.*'):
                channel.queue_bind('sites', 'netbox', key)

    def fill(self) -> None:
        with self.channel() as channel:
            channel.queue_declare('full', arguments={'x-max-length': 1, 'x-overflow': 'reject-publish'})
            channel.queue_bind('full', 'netbox', 'full')
            channel.basic_publish('netbox', 'full', b'')

    def read(self) -> list[Got]:
        with self.channel() as channel:
            while (found := channel.basic_get('sites', auto_ack=True))[0]:
                method, properties, body = found
                headers = dict(properties.headers)
                assert properties.content_type == headers['content-type']
                where = f'{method.exchange}/{method.routing_key}'
                self._got.append(Got(where, headers.pop('key'), properties.message_id, headers, body))
        return list(self._got)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        import pika

        tls = pika.SSLOptions(client_context(self.broker.tls), LOOPBACK) if self.broker.tls else None
        login = pika.PlainCredentials(USER, PASSWORD)
        parameters = pika.ConnectionParameters(LOOPBACK, self.broker.port, credentials=login, ssl_options=tls)
        with closing(pika.BlockingConnection(parameters)) as connection:
            yield connection.channel()


class KafkaReader(Reader):
    """The server makes a topic that it does not know."""

    def prepare(self) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient(self._options)
        for future in admin.create_topics([NewTopic(self.address, 3, 1)]).values():
            future.result(30)

    def read(self) -> list[Got]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(self._options | {'group.id': 'reader', 'enable.partition.eof': True})
        got: list[tuple[tuple[int, int], Got]] = []
        try:
            topics = [one for one in consumer.list_topics(timeout=30).topics.values() if one.topic.startswith('netbox')]
            parts = [TopicPartition(one.topic, number, 0) for one in topics for number in one.partitions]
            consumer.assign(parts)
            open_parts = len(parts)
            while open_parts and (message := consumer.poll(30)) is not None:
                if message.error():
                    open_parts -= 1
                    continue
                headers = {name: value.decode() for name, value in message.headers() or ()}
                one = Got(message.topic(), (message.key() or b'').decode(), headers.pop('id'), headers, message.value())
                got.append((message.timestamp(), one))
        finally:
            consumer.close()
        return [one for _when, one in sorted(got, key=lambda pair: pair[0])]

    @property
    def _options(self) -> dict[str, Any]:
        options = {name: value for name, value in self.broker.options.items() if name != 'driver'}
        # With TLS or a login it sends all its clients to the door before it.
        if 'security.protocol' in options:
            return options
        return options | {'bootstrap.servers': f'{LOOPBACK}:{self.broker.port}'}


READERS: dict[str, type[Reader]] = {
    'amqp': AmqpReader,
    'kafka': KafkaReader,
    'mqtt': MqttReader,
    'nats': NatsReader,
    'redis': RedisReader,
}


def client_context(tls: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.authority)
    context.load_cert_chain(tls.certificate, tls.key)
    return context


def options_of(broker: Broker) -> dict[str, Any]:
    """As the operator writes them, with the context that Python libraries take for TLS."""
    has_context = broker.tls and broker.driver in ('amqp', 'mqtt', 'nats')
    return broker.options | ({'tls': client_context(broker.tls)} if has_context else {})


class Relay:
    """Passes connections on to `port`, until it is told to hang, to reset them, or to be slow.

    `delay`: seconds that all data needs, in each direction.
    """

    def __init__(self, port: int, listens: int = 0) -> None:
        self.target = port
        self.hangs = self.resets = False
        self.delay = 0.0
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, listens))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def established(self) -> int:
        """Return how many connections neither side has ended."""
        states = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for one in self._open]
        return states.count(ESTABLISHED)

    def cut(self) -> None:
        """Reset all connections that are open."""
        for one in self._open:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(near)
            if self.resets:
                self.cut()
                continue
            if self.hangs:
                continue
            try:
                far = socket.create_connection((LOOPBACK, self.target))
            except OSError:
                self.cut()
                continue
            self._open.append(far)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                # What hangs, hangs in both directions.
                while self.hangs:
                    threading.Event().wait(0.02)
                threading.Event().wait(self.delay)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Sender:
    """Publishes by the door that the sender uses."""

    def __init__(self, client: Client, reader: Reader) -> None:
        self._client, self._reader = client, reader

    def __call__(self, address: str = '', timeout: float = PATIENT, **fields: Any) -> Outcome:
        address = address or self._reader.address
        return self._client.send(
            Request(
                **{
                    'method': 'PUBLISH',
                    'url': self._reader.broker.url(address),
                    'headers': {'Content-Type': 'application/json', 'X-Mark': 'mark'},
                    'body': b'{}',
                    'timeout': timeout,
                    'key': 'dcim.site:1',
                    'id': str(uuid.uuid4()),
                }
                | fields
            )
        )


@contextmanager
def sending(reader: Reader) -> Iterator[Sender]:
    client = Client(4)
    try:
        yield Sender(client, reader)
    finally:
        client.close()
