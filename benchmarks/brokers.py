"""Messages to each broker, beside HTTP's instant endpoint: how many a second, how soon, and beside one that hangs."""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from dcim.models import Site
from tenancy.models import Tenant

from benchmarks import subscribers
from benchmarks.report import Row, percentile
from benchmarks.sides import HOOK, OURS, Bed
from benchmarks.subscribers import ADDRESSES
from devstack.brokers import BROKERS, Broker, Nats
from devstack.ports import LOOPBACK
from devstack.process import Processes, wait_until
from webhooks import conf
from webhooks.choices import StatusChoices
from webhooks.engine.process import inline
from webhooks.models import Delivery, Webhook

# Accepts connections, and never answers.
HANGING = 'hanging'


def measure(bed: Bed) -> Iterator[Row]:
    with _running() as brokers, socket.create_server((LOOPBACK, 0)) as silent:
        hangs = {'driver': 'redis', 'host': LOOPBACK, 'port': silent.getsockname()[1]}
        with _configured({broker.driver: broker.options for broker in brokers} | {HANGING: hangs}):
            yield from _rates(bed, brokers)
            yield from _delays(bed, brokers)


@contextmanager
def _running() -> Iterator[list[Broker]]:
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder) / 'logs')
        brokers = [one(Path(folder) / driver, processes) for driver, one in BROKERS.items() if driver in READY]
        try:
            for broker in brokers:
                broker.start()
                READY[broker.driver](broker)
            yield brokers
        finally:
            for broker in brokers:
                broker.stop()


def _rates(bed: Bed, brokers: list[Broker]) -> Iterator[Row]:
    count = 500 if bed.quick else 2000
    _rate(bed, 50, bed.receiver.url(HOOK))  # the first rendering takes longer
    yield Row('HTTP, instant endpoint, in one process', 'a second', [_rate(bed, count, bed.receiver.url(HOOK))])
    for broker in brokers:
        yield Row(f'{broker.driver}, in one process', 'a second', [_rate(bed, count, _url(broker))])


def _url(broker: Broker) -> str:
    return broker.url(ADDRESSES[broker.driver], broker.driver)


def _rate(bed: Bed, count: int, url: str) -> float:
    with bed.subscribed(OURS, Site):
        Webhook.objects.update(payload_url=url)
        bed.save(bed.new_sites(count))
        began = time.monotonic()
        inline.run(seconds=300)
        took = time.monotonic() - began
        delivered = Delivery.objects.filter(status=StatusChoices.DELIVERED).count()
        if delivered != count:
            raise RuntimeError(f'{delivered} of {count} went to {url}')
        return count / took


def _delays(bed: Bed, brokers: list[Broker]) -> Iterator[Row]:
    """From the save's answer to the endpoint or the subscriber, with an idle worker."""
    count = 10 if bed.quick else 40

    def arrived(number: int) -> float:
        return bed.receiver.wait_for(number, timeout=120)[number - 1].arrived

    with bed.subscribed(OURS, Site), bed.worker():
        yield from _rows('HTTP', bed, count, arrived)
    for broker in brokers:
        with bed.subscribed(OURS, Site), subscribers.subscribed(broker) as heard:
            Webhook.objects.update(payload_url=_url(broker))
            with bed.worker():
                yield from _rows(broker.driver, bed, count, partial(_told, heard))
    with bed.subscribed(OURS, Tenant, count=4), bed.subscribed(OURS, Site):
        Webhook.objects.filter(object_types__model='tenant').update(payload_url=f'redis://{HANGING}/netbox')
        bed.save(bed.new_tenants(100))
        with bed.worker():
            yield from _rows('HTTP, beside four webhooks of a broker that hangs', bed, count, arrived)


def _told(heard: list[float], number: int) -> float:
    if not wait_until(lambda: len(heard) >= number, 120, interval=0.001):
        raise RuntimeError(f'message {number} did not come')
    return heard[number - 1]


def _rows(what: str, bed: Bed, count: int, arrived: Callable[[int], float]) -> Iterator[Row]:
    delays = [_delay(bed, number, arrived) for number in range(1, count + 2)][1:]
    yield Row(f'answer to arrival, p50, {what}', 'ms', [percentile(delays, 0.5)])
    yield Row(f'answer to arrival, worst, {what}', 'ms', [max(delays)])


def _delay(bed: Bed, number: int, arrived: Callable[[int], float]) -> float:
    bed.save(bed.new_sites(1))
    answered = time.time()
    return (arrived(number) - answered) * 1000


@contextmanager
def _configured(brokers: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """Let this process know these brokers, and workers that start meanwhile."""
    before, path = conf.get(), Path(os.environ['NETBOX_ROOT'], 'conf', 'configuration.py')
    text = path.read_text()
    path.write_text(f"{text}PLUGINS_CONFIG = {{'webhooks': {{'brokers': {brokers!r}}}}}\n")
    conf._settings = replace(before, brokers=brokers)
    try:
        yield
    finally:
        conf._settings = before
        path.write_text(text)


def _stream(broker: Broker) -> None:
    from devstack.demo_broker import make_stream

    make_stream(broker)


def _nothing(_broker: Broker) -> None:
    """Any address is there."""


def _queue(broker: Broker) -> None:
    import pika

    login = pika.PlainCredentials(broker.options['username'], broker.options['password'])
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port, credentials=login))
    connection.channel().queue_declare('sites', durable=True)
    connection.close()


READY = {Nats.driver: _stream, 'redis': _nothing, 'kafka': _nothing, 'mqtt': _nothing, 'amqp': _queue}
