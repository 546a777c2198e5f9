"""The AsyncAPI document, checked by AsyncAPI's own parser where npm installed it (scripts/receivers)."""

import json
import os
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dcim.models import Device, Site
from django.core.management import CommandError, call_command
from support.builders import NOWHERE, site, subscribe
from support.engine import work
from support.settings import change_settings

from devstack.receiver import Receiver
from webhooks.security import signing

pytestmark = pytest.mark.usefixtures('committed')

BROKERS = {
    'bus': {'driver': 'nats', 'servers': ['nats://nats.example.com'], 'password': 'a-secret-of-the-broker'},
    'log': {'driver': 'kafka', 'bootstrap.servers': 'kafka.example.com'},
    'rabbit': {'driver': 'amqp', 'host': 'rabbit.example.com'},
    'home': {'driver': 'mqtt', 'host': 'mqtt.example.com'},
}
PARSE = """
const { Parser } = require('@asyncapi/parser');
new Parser().parse(require('fs').readFileSync(0, 'utf8')).then(({ diagnostics, document }) => {
  const wrong = diagnostics.filter((one) => one.severity === 0).map((one) => [one.message, one.path]);
  console.log(JSON.stringify({ wrong, channels: document ? document.channels().all().length : 0 }));
});
"""


@pytest.fixture(autouse=True)
def brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    change_settings(monkeypatch, brokers=BROKERS)


def document() -> dict[str, Any]:
    output = StringIO()
    call_command('webhooks_schema', asyncapi=True, stdout=output)
    return json.loads(output.getvalue())


def all_webhooks() -> None:
    subscribe('nats://bus/netbox.{{ object_type }}.{{ event }}', Site, Device, secret='0123456789abcdef')
    subscribe('kafka://log/netbox-changes', Site, payload_format='cloudevents', description='For the lake')
    subscribe('kafka://log/netbox-sets', Site, change_set=True)
    subscribe('nats://bus/{% if event == "created" %}new{% else %}old{% endif %}', Site, body_template='{{ event }}')
    subscribe('amqp://rabbit/changes/netbox', Site)
    subscribe('https://user:word@example.com:8443/hook?token=abc', Site, payload_format='netbox')
    subscribe('', Site)


def test_a_host_from_a_template_with_brackets_breaks_no_document():
    subscribe("https://{{ data['name'] }}.example.com/hook", Site)
    subscribe(NOWHERE, Site)
    shown = document()
    templated, _other = shown['channels'].values()
    assert (templated['address'], len(shown['servers'])) == ('/hook', 2)


def test_it_names_channels_servers_keys_and_no_secret():
    all_webhooks()
    shown = document()
    nats, kafka, sets, computed, _amqp, http = shown['channels'].values()
    assert nats['address'] == 'netbox.{object_type}.{event}'
    assert nats['parameters']['object_type'] == {'description': '{{ object_type }}'}
    assert nats['messages'].keys() == {'dcim.site', 'dcim.device'}
    assert computed['address'] == '{address}'
    assert kafka['servers'] == [{'$ref': '#/servers/kafka-log'}]
    assert http['address'].startswith('/hook')
    assert shown['servers']['nats-bus']['host'] == 'bus'
    keys = [
        one['bindings']['kafka']['key']['pattern']
        for one in shown['components']['messages'].values()
        if 'bindings' in one
    ]
    assert keys[0] == '^(dcim.site|webhooks.webhook):[0-9]+$'
    assert keys[1].startswith('^webhook:')
    text = json.dumps(shown)
    assert not [
        one for one in ('example.com"', 'a-secret', 'word', 'abc') if one in text.replace('example.com:8443', '')
    ]
    assert sets['messages']


@pytest.mark.parametrize(
    ('url', 'id_name', 'key_name'),
    [
        ('nats://bus/netbox', 'Nats-Msg-Id', None),
        ('kafka://log/netbox', 'id', None),
        ('amqp://rabbit/changes/netbox', None, 'key'),
        ('mqtt://home/netbox', 'id', 'key'),
        ('http://127.0.0.1:9/', None, None),
    ],
)
def test_it_names_the_headers_that_carry_id_and_key_and_the_webhooks_own(url, id_name, key_name):
    subscribe(url, Site, additional_headers='X-Tenant: a-secret-word')
    shown = document()
    (message,) = shown['components']['messages'].values()
    headers = message['headers']['properties']
    usual = {'content-type', 'user-agent', 'x-tenant', 'webhook-id', 'webhook-timestamp'}
    assert headers.keys() == usual | {name for name in (id_name, key_name) if name}
    if id_name:
        assert headers[id_name] == {'type': 'string', 'format': 'uuid'}
    if key_name:
        assert headers[key_name]['pattern'] == '^(dcim.site|webhooks.webhook):[0-9]+$'
    assert 'a-secret-word' not in json.dumps(shown)


@pytest.mark.parametrize(
    ('secret', 'signatures'),
    [
        ('0123456789abcdef', {'webhook-signature', 'x-hook-signature'}),
        (signing.generate(signing.PRIVATE), {'webhook-signature'}),
        ('', set()),
    ],
    ids=['shared', 'key_pair', 'none'],
)
def test_it_names_the_signatures_that_come(receiver: Receiver, secret: str, signatures: set[str]):
    subscribe(receiver.url('/hook'), Site, secret=secret)
    site()
    work()
    (message,) = document()['components']['messages'].values()
    assert {name for name in message['headers']['properties'] if 'signature' in name} == signatures
    assert {name.lower() for name, _ in receiver.requests[0].headers if 'signature' in name.lower()} == signatures


@pytest.mark.parametrize(
    ('url', 'binding'),
    [
        ('amqp://rabbit/changes/netbox.{{ event }}', {'is': 'routingKey', 'exchange': {'name': 'changes'}}),
        ('amqp://rabbit//tasks', {'is': 'queue', 'queue': {'name': 'tasks'}}),
    ],
)
def test_a_channel_of_rabbitmq_names_its_exchange_or_queue(url, binding):
    subscribe(url, Site)
    (channel,) = document()['channels'].values()
    assert channel['bindings'] == {'amqp': binding}


def test_it_leaves_out_disabled_webhooks():
    subscribe(NOWHERE, Site, name='On')
    subscribe(NOWHERE, Site, name='Off', enabled=False)
    assert [channel['title'] for channel in document()['channels'].values()] == ['On']


def test_a_payload_fits_its_schema(receiver: Receiver):
    subscribe(receiver.url('/hook'), Site)
    site()
    work()
    shown = document()
    (message,) = shown['components']['messages'].values()
    schema = message['payload'] | {'components': shown['components']}
    payload = receiver.requests[0].json()
    jsonschema.validate(payload, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload | {'event': 'renamed'}, schema)


@pytest.mark.skipif('RECEIVERS' not in os.environ, reason='scripts/receivers installs the parser')
def test_its_own_parser_finds_nothing_wrong():
    all_webhooks()
    folder = Path(os.environ['RECEIVERS'])
    answer = subprocess.run(
        ['node', '-e', PARSE], input=json.dumps(document()), capture_output=True, text=True, check=True, cwd=folder
    )
    assert json.loads(answer.stdout) == {'wrong': [], 'channels': 6}


@pytest.mark.parametrize('arguments', [[], ['dcim.site', '--asyncapi']])
def test_a_model_or_asyncapi_is_asked_for(arguments: list[str]):
    subscribe(NOWHERE, Site)
    with pytest.raises(CommandError, match='name a model, or write one of --asyncapi'):
        call_command('webhooks_schema', *arguments)
