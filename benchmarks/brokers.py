"""Messages a second to each broker, beside HTTP's instant endpoint, by the whole engine in one process."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dcim.models import Site

from benchmarks.report import Row
from benchmarks.sides import HOOK, OURS, Bed
from devstack.brokers import BROKERS, Broker, Nats
from devstack.process import Processes
from webhooks import conf
from webhooks.choices import StatusChoices
from webhooks.engine.process import inline
from webhooks.models import Delivery, Webhook

ADDRESSES = {'amqp': '/sites', 'kafka': 'sites', 'mqtt': 'netbox/sites', 'nats': 'netbox.sites', 'redis': 'netbox'}


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
