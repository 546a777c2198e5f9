"""Messages to each broker, beside HTTP's instant endpoint: how many a second, how soon, and beside one that hangs."""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
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


def measure(bed: Bed) -> Iterator[Row]:
    count = 500 if bed.quick else 2000
    before = conf.get()
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder) / 'logs')
        started = [one(Path(folder) / driver, processes) for driver, one in BROKERS.items() if driver in READY]
        try:
            for broker in started:
                broker.start()
                READY[broker.driver](broker)
            conf._settings = replace(before, brokers={broker.driver: broker.options for broker in started})
            _rate(bed, 50, bed.receiver.url(HOOK))  # the first rendering takes longer
            yield Row('HTTP, instant endpoint, in one process', 'a second', [_rate(bed, count, bed.receiver.url(HOOK))])
            for broker in started:
                url = broker.url(ADDRESSES[broker.driver], broker.driver)
                yield Row(f'{broker.driver}, in one process', 'a second', [_rate(bed, count, url)])
            yield from _delays(bed, started, Path(folder))
        finally:
            conf._settings = before
            for broker in started:
                broker.stop()


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


def _delays(bed: Bed, brokers: list[Broker], folder: Path) -> Iterator[Row]:
    """From the save's answer to the endpoint or the subscriber, with an idle worker."""
    count = 10 if bed.quick else 40
    with socket.create_server((LOOPBACK, 0)) as hanging:
        hangs = {'driver': 'redis', 'host': LOOPBACK, 'port': hanging.getsockname()[1]}
        options = {broker.driver: broker.options for broker in brokers} | {'hanging': hangs}
        conf._settings = replace(conf.get(), brokers=options)
        environment = _configuration(folder, options)

        def delays(url: str, wait_for: Callable[[int], float]) -> list[float]:
            with bed.subscribed(OURS, Site):
                Webhook.objects.update(payload_url=url)
                with bed.worker(environment):
                    return [_delay(bed, number, wait_for) for number in range(1, count + 2)][1:]

        def arrived(number: int) -> float:
            return bed.receiver.wait_for(number, timeout=120)[number - 1].arrived

        yield _row('HTTP', delays(bed.receiver.url(HOOK), arrived))
        for broker in brokers:
            with subscribers.subscribed(broker) as heard:

                def told(number: int, heard: list[float] = heard) -> float:
                    if not wait_until(lambda: len(heard) >= number, 120, interval=0.001):
                        raise RuntimeError(f'message {number} did not come')
                    return heard[number - 1]

                yield _row(broker.driver, delays(broker.url(ADDRESSES[broker.driver], broker.driver), told))
        with bed.subscribed(OURS, Tenant, count=4), bed.subscribed(OURS, Site):
            Webhook.objects.filter(object_types__model='tenant').update(payload_url='redis://hanging/netbox')
            bed.save([Tenant(name=f'tenant {number}', slug=f'tenant-{number}') for number in range(100)])
            with bed.worker(environment):
                figures = [_delay(bed, number, arrived) for number in range(1, count + 2)][1:]
        yield _row('HTTP, beside four webhooks of a broker that hangs', figures)


def _row(what: str, delays: list[float]) -> Row:
    return Row(f'answer to arrival, p50, {what}', 'ms', [percentile(delays, 0.5)])


def _delay(bed: Bed, number: int, arrived: Callable[[int], float]) -> float:
    bed.save(bed.new_sites(1))
    answered = time.time()
    return (arrived(number) - answered) * 1000


def _configuration(folder: Path, brokers: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Write a configuration with these brokers, and return the environment of a worker that uses it."""
    name = 'configuration_with_brokers'
    usual = os.environ.get('NETBOX_CONFIGURATION', 'netbox.configuration')
    (folder / f'{name}.py').write_text(f'from {usual} import *\nPLUGINS_CONFIG["webhooks"]["brokers"] = {brokers!r}\n')
    return {'NETBOX_CONFIGURATION': name, 'PYTHONPATH': f'{folder}{os.pathsep}{os.environ["PYTHONPATH"]}'}


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
