"""The preset "RabbitMQ (HTTP)" publishes by the management plugin of a real RabbitMQ."""

import json
import shutil

import pytest
from dcim.models import Site
from support.brokers import AmqpReader
from support.builders import site, subscribe
from support.engine import work

from devstack.brokers import PASSWORD, USER, RabbitMq
from devstack.ports import LOOPBACK, accepts, free_port
from devstack.process import Processes
from webhooks.models import Credential, Delivery, Webhook
from webhooks.presets import all_presets

pytestmark = [
    pytest.mark.usefixtures('committed'),
    pytest.mark.skipif(not shutil.which('rabbitmqctl', path='/usr/sbin'), reason='the distribution has it'),
]


class Managed(RabbitMq):
    """With its management plugin, on the port `http`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.http = free_port()

    def _command(self) -> list[str]:
        command = super()._command()
        self._write('plugins', '[rabbitmq_management].')
        with (self.folder / 'rabbitmq.conf').open('a') as configuration:
            configuration.write(f'management.tcp.ip = {LOOPBACK}\nmanagement.tcp.port = {self.http}\n')
        return command

    def _is_ready(self) -> bool:
        return super()._is_ready() and accepts(self.http)


def subscribed(broker: Managed, exchange: str) -> Webhook:
    """Fill in what the preset leaves to its user."""
    server = f'http://{LOOPBACK}:{broker.http}'
    credential = Credential.objects.create(name=exchange, type='basic', username=USER, secret=PASSWORD, hosts=[server])
    url = all_presets()['rabbitmq'].url.replace('https://rabbitmq.example.com:15671', server)
    url = url.replace('/netbox/', f'/{exchange}/')
    return subscribe(url, Site, credential=credential, max_attempts=1, **all_presets()['rabbitmq'].fields)


def test_a_queue_gets_the_message_and_one_that_no_queue_takes_has_failed(stack, processes: Processes):
    broker = Managed(stack.folder / 'rabbitmq-http', processes)
    broker.start()
    reader = AmqpReader(broker)
    reader.prepare()
    with reader.channel() as channel:
        channel.exchange_declare('lonely', 'topic')
    taken, lost = subscribed(broker, 'netbox'), subscribed(broker, 'lonely')
    place = site(name='Genève')
    work()
    with reader.channel() as channel:
        method, properties, body = channel.basic_get('sites', auto_ack=True)
    broker.stop()
    delivery = Delivery.objects.get(webhook=taken)
    assert delivery.status == 'delivered'
    assert method.routing_key == 'dcim.site.created'
    assert (properties.message_id, properties.content_type) == (str(delivery.uuid), 'application/json')
    assert json.loads(body)['data'] | {'id': place.pk, 'name': 'Genève'} == json.loads(body)['data']
    failed = Delivery.objects.get(webhook=lost)
    assert (failed.status, failed.response_status) == ('failed', 200)
