"""Subscribers of brokers, which note when each message comes."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from devstack.brokers import Broker
from devstack.ports import LOOPBACK

ADDRESSES = {'amqp': '/sites', 'kafka': 'sites', 'mqtt': 'netbox/sites', 'nats': 'netbox.sites', 'redis': 'netbox'}


@contextmanager
def subscribed(broker: Broker) -> Iterator[list[float]]:
    """Subscribe in a thread, and yield the list of unix seconds that grows meanwhile."""
    heard: list[float] = []
    is_ready, is_over = threading.Event(), threading.Event()
    thread = threading.Thread(target=_LISTEN[broker.driver], args=(broker, heard, is_ready.set, is_over))
    thread.start()
    if not is_ready.wait(60):
        raise RuntimeError(f'no subscription to {broker.driver}')
    yield heard
    is_over.set()
    thread.join()


def _nats(broker: Broker, heard: list[float], ready: Callable[[], None], is_over: threading.Event) -> None:
    async def listen() -> None:
        import nats

        connection = await nats.connect(servers=broker.options['servers'])

        async def note(_message: Any) -> None:
            heard.append(time.time())

        await connection.subscribe(ADDRESSES['nats'], cb=note)
        await connection.flush()
        ready()
        await asyncio.to_thread(is_over.wait)
        await connection.close()

    asyncio.run(listen())


def _redis(broker: Broker, heard: list[float], ready: Callable[[], None], is_over: threading.Event) -> None:
    import redis

    stream = ADDRESSES['redis']
    client = redis.Redis(**{name: value for name, value in broker.options.items() if name != 'driver'})
    last = client.xinfo_stream(stream)['last-generated-id']
    ready()
    while not is_over.is_set():
        for _stream, entries in client.xread({stream: last}, block=200):
            heard.extend(time.time() for _entry in entries)
            last = entries[-1][0]
    client.close()


def _mqtt(broker: Broker, heard: list[float], ready: Callable[[], None], is_over: threading.Event) -> None:
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.username_pw_set(broker.options['username'], broker.options['password'])
    client.on_connect = lambda *_: client.subscribe(ADDRESSES['mqtt'], qos=1)
    client.on_subscribe = lambda *_: ready()
    client.on_message = lambda *_: heard.append(time.time())
    client.connect(LOOPBACK, broker.port)
    client.loop_start()
    is_over.wait()
    client.disconnect()
    client.loop_stop()


def _amqp(broker: Broker, heard: list[float], ready: Callable[[], None], is_over: threading.Event) -> None:
    import pika

    login = pika.PlainCredentials(broker.options['username'], broker.options['password'])
    connection = pika.BlockingConnection(pika.ConnectionParameters(LOOPBACK, broker.port, credentials=login))
    channel = connection.channel()
    channel.queue_purge('sites')
    channel.basic_consume('sites', lambda *_: heard.append(time.time()), auto_ack=True)
    ready()
    while not is_over.is_set():
        connection.process_data_events(time_limit=0.2)
    with suppress(pika.exceptions.AMQPError):
        connection.close()


def _kafka(broker: Broker, heard: list[float], ready: Callable[[], None], is_over: threading.Event) -> None:
    from confluent_kafka import OFFSET_END, Consumer, TopicPartition

    consumer = Consumer({'bootstrap.servers': broker.options['bootstrap.servers'], 'group.id': 'bench'})
    topic = consumer.list_topics(ADDRESSES['kafka'], 30).topics[ADDRESSES['kafka']]
    consumer.assign([TopicPartition(topic.topic, number, OFFSET_END) for number in topic.partitions])
    consumer.poll(2)
    ready()
    while not is_over.is_set():
        message = consumer.poll(0.2)
        if message is not None and not message.error():
            heard.append(time.time())
    consumer.close()


_LISTEN = {'amqp': _amqp, 'kafka': _kafka, 'mqtt': _mqtt, 'nats': _nats, 'redis': _redis}
