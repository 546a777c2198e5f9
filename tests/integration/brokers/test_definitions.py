"""Settings and definitions that name no broker, or one that cannot be used."""

from typing import Any

import pytest
from dcim.models import Site
from django.core import checks
from django.core.exceptions import ImproperlyConfigured, ValidationError
from support.builders import NOWHERE, site, subscribe
from support.engine import deliveries, health, work
from support.settings import change_settings

from webhooks import conf
from webhooks.brokers import address, registry
from webhooks.brokers.mqtt import Mqtt
from webhooks.choices import StatusChoices
from webhooks.exceptions import DefinitionError
from webhooks.models import Webhook
from webhooks.services import preview
from webhooks.services.preview_sources import Draft

SECRET = 'a-secret-of-the-broker'
BROKERS = {
    'bus': {'driver': 'redis', 'host': '127.0.0.1', 'port': 9, 'password': SECRET, 'addresses': ['netbox.*']},
    'mail': {'driver': 'amqp'},
    'iot': {'driver': 'mqtt', 'host': 'mqtt.example.com'},
    'jet': {'driver': 'nats', 'servers': ['nats://nats.example.com']},
    'log': {'driver': 'kafka', 'bootstrap.servers': 'kafka.example.com'},
}


@pytest.fixture
def without_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """MQTT's library is missing, with the package that it is in, as paho.mqtt where nobody installed paho."""
    monkeypatch.setattr(Mqtt, 'module', 'no_such_package.mqtt')


class TestSettings:
    @pytest.mark.parametrize(
        'brokers',
        [
            [],
            'nats',
            {'bus': None},
            {'Bus': {'driver': 'nats'}},
            {'my bus': {'driver': 'nats'}},
            {'a/b': {'driver': 'nats'}},
            {3: {'driver': 'nats'}},
            {'bus': {}},
            {'bus': {'driver': 'carrier-pigeon'}},
            {'bus': {'driver': ['nats']}},
            {'bus': {'driver': 'nats', 3: 'x'}},
            {'bus': {'driver': 'nats', 'addresses': 'netbox.*'}},
            {'bus': {'driver': 'nats', 'addresses': [3]}},
        ],
    )
    def test_a_wrong_one_is_named_in_one_line_without_its_secrets(self, brokers: Any):
        if isinstance(brokers, dict):
            brokers = {name: {**found, 'password': SECRET} if found else found for name, found in brokers.items()}
        with pytest.raises(ImproperlyConfigured, match=r"^PLUGINS_CONFIG\['webhooks'\]\['brokers'\]: .+$") as caught:
            conf.resolve({'brokers': brokers}, None)
        assert SECRET not in str(caught.value)

    def test_they_may_be_at_the_top_level(self):
        class Configuration:
            WEBHOOKS_BROKERS = BROKERS

        assert conf.resolve({}, Configuration).brokers == BROKERS

    def test_no_repr_shows_a_secret(self):
        settings = conf.resolve({'brokers': BROKERS}, None)
        assert SECRET not in repr(settings)

    def test_secrets_are_found_in_all_options(self):
        options = {
            'password': 'one-secret',
            'servers': ['nats://user:two-secret@nats.example.com'],
            'sasl.password': 'three-secret',
            'nested': {'token': ['four-secret']},
            'host': 'nats.example.com',
        }
        found = registry.Broker('bus', 'nats', options).secrets
        assert {'one-secret', 'two-secret', 'three-secret', 'four-secret'} <= set(found)
        assert 'nats.example.com' not in found


@pytest.mark.usefixtures('db')
class TestDefinitions:
    @pytest.fixture(autouse=True)
    def brokers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        change_settings(monkeypatch, brokers=BROKERS)

    @pytest.mark.parametrize(
        'url',
        [
            'redis://bus/netbox.sites',
            'redis://bus/netbox.{{ object_type }}',
            'redis://bus/netbox.{% if event == "created" %}new{% else %}old{% endif %}',
            'amqp://mail/exchange/key',
            'amqp://mail//queue',
            'mqtt://iot/netbox/{{ object_type }}',
            'nats://jet/netbox.sites',
            'kafka://log/netbox-changes',
            'REDIS://bus/netbox.sites',
        ],
    )
    def test_a_right_one_is_taken(self, url: str):
        assert subscribe(url, Site).payload_url == url.replace('REDIS', 'redis')

    @pytest.mark.parametrize(
        ('url', 'reason'),
        [
            ('redis://other/netbox.sites', 'There is no broker other in the settings.'),
            ('redis://BUS/netbox.sites', 'There is no broker BUS in the settings.'),
            ('nats://bus/netbox.sites', 'The URL of the broker bus begins with redis://.'),
            ('redis://bus/other', 'The broker bus does not allow this address.'),
            ('redis://bus/', 'This is not a valid address for the broker: it is empty.'),
            ('redis://bus', 'This is not a valid address for the broker: it is empty.'),
            ('redis://{{ data.name }}/netbox.x', "Write the broker's name itself"),
            ('redis://bus{{ data.name }}/netbox.x', "Write the broker's name itself"),
            ('redis://bus/netbox.x?a=b', 'Write ? and #'),
            ('redis://bus/netbox.x#a', 'Write ? and #'),
            ('redis://bus/netbox.x%0a', 'Enter an address without control characters'),
            ('redis://user:word@bus/netbox.x', 'There is no broker'),
            ('redis://bus:6379/netbox.x', 'There is no broker'),
            ('redis://127.0.0.1/netbox.x', 'There is no broker'),
            ('amqp://mail/key', 'This is not a valid address for the broker: write exchange/routing key'),
            ('mqtt://iot/netbox/#', 'Write ? and #'),
            ('mqtt://iot/netbox/+', 'This is not a valid address for the broker: a topic'),
            ('mqtt://iot/$SYS/broker', 'This is not a valid address for the broker: a topic'),
            ('nats://jet/netbox.*', 'This is not a valid address for the broker: a subject'),
            ('nats://jet/net box', 'This is not a valid address for the broker: a subject'),
            ('nats://jet/$JS.API.STREAM.DELETE.X', 'This is not a valid address for the broker: a subject'),
            ('kafka://log/net/box', 'This is not a valid address for the broker: a topic'),
            ('sqs://bus/x', 'Enter a URL that begins with http:// or https://'),
        ],
    )
    def test_a_wrong_url_is_refused_with_its_reason(self, url: str, reason: str):
        with pytest.raises(ValidationError) as caught:
            subscribe(url, Site)
        assert caught.value.message_dict['payload_url'][0].startswith(reason)

    @pytest.mark.parametrize('field', ['success_conditions', 'ca_file_path'])
    def test_a_field_that_only_http_has_is_refused_for_a_broker(self, field: str):
        value = {'attr': 'status', 'value': 200} if field == 'success_conditions' else '/ca.pem'
        with pytest.raises(ValidationError) as caught:
            subscribe('redis://bus/netbox.sites', Site, **{field: value})
        assert field in caught.value.message_dict

    def test_a_missing_library_is_refused_with_the_line_for_pip(self, monkeypatch):
        monkeypatch.setattr(registry, 'find_spec', lambda _module: None)
        with pytest.raises(ValidationError, match=r'pip install netbox-webhooks\[nats\]'):
            subscribe('nats://jet/netbox.sites', Site)

    @pytest.mark.usefixtures('without_parent')
    def test_a_library_whose_package_is_missing_is_refused_with_the_line_for_pip(self):
        with pytest.raises(ValidationError, match=r'pip install netbox-webhooks\[mqtt\]'):
            subscribe('mqtt://iot/netbox', Site)

    def test_headers_stay_at_another_address_of_the_broker_and_no_other(self):
        webhook = subscribe('redis://bus/netbox.sites', Site, additional_headers='X-Key: abcdef')
        webhook.payload_url = 'redis://bus/netbox.more'
        webhook.full_clean()
        webhook.payload_url = 'mqtt://iot/netbox'
        with pytest.raises(ValidationError, match='headers'):
            webhook.full_clean()

    def test_the_preview_shows_the_address(self, admin_user):
        webhook = subscribe('redis://bus/netbox.{{ data.slug }}', Site)
        changed = site()
        shown = preview.show(Draft.of(webhook), admin_user)
        assert (shown.method, shown.url) == ('PUBLISH', f'redis://bus/netbox.{changed.slug}')

    @pytest.mark.parametrize('name', ['netbox.a#1', 'netbox.a?b', 'netbox.100%23', 'netbox.a b'])
    def test_urlencode_puts_any_value_into_an_address(self, admin_user, name):
        webhook = subscribe('redis://bus/{{ data.name | urlencode }}', Site)
        site(name=name)
        assert address.split(preview.show(Draft.of(webhook), admin_user).url).address == name

    def test_a_value_that_has_to_be_encoded_names_the_filter(self, admin_user):
        webhook = subscribe('redis://bus/netbox.{{ data.name }}', Site)
        site(name='a#1')
        with pytest.raises(DefinitionError, match=r'through urlencode, as in \{\{ data.name \| urlencode \}\}'):
            preview.show(Draft.of(webhook), admin_user)


@pytest.mark.usefixtures('committed')
class TestSending:
    @pytest.fixture(autouse=True)
    def brokers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        change_settings(monkeypatch, brokers=BROKERS)

    def test_a_rendered_address_that_is_not_allowed_fails(self):
        subscribe('redis://bus/{{ data.name }}', Site)
        site(name='rq:queue:low')
        work()
        (failed,) = deliveries(StatusChoices.FAILED)
        assert failed.error == 'not sent: payload_url: The broker bus does not allow this address.'

    @pytest.mark.parametrize('template', ['{{ data.name }}', '{{ data.name }}://bus/netbox.x'])
    def test_an_objects_data_names_no_broker(self, template: str):
        subscribe(template, Site)
        site(name='redis://bus/netbox.x' if '://' not in template else 'redis')
        work()
        (failed,) = deliveries(StatusChoices.FAILED)
        assert 'begins with http://' in failed.error

    def test_a_broker_that_left_the_settings_lets_deliveries_wait(self, monkeypatch):
        webhook = subscribe('redis://bus/netbox.sites', Site)
        site()
        change_settings(monkeypatch, brokers={})
        work()
        (waiting,) = deliveries(StatusChoices.PENDING)
        assert waiting.error == 'There is no broker bus in the settings.'
        assert health(webhook).unreachable == 1

    def test_a_library_that_was_removed_lets_deliveries_wait(self, request):
        webhook = subscribe('mqtt://iot/netbox', Site)
        site()
        request.getfixturevalue('without_parent')
        work()
        (waiting,) = deliveries(StatusChoices.PENDING)
        assert waiting.error.endswith('pip install netbox-webhooks[mqtt]')
        assert health(webhook).unreachable == 1

    @pytest.mark.parametrize(
        ('options', 'url', 'word'),
        [
            ({'driver': 'nats', 'server': ['nats://127.0.0.1:9']}, 'nats://bus/netbox', 'server'),
            ({'driver': 'kafka', 'bootstrap.server': '127.0.0.1:9'}, 'kafka://bus/netbox', 'bootstrap.server'),
            ({'driver': 'kafka', 'delivery.timeout.ms': 'long'}, 'kafka://bus/netbox', 'message.timeout.ms'),
            ({'driver': 'amqp', 'hosts': '127.0.0.1'}, 'amqp://bus/netbox/sites', 'hosts'),
            ({'driver': 'mqtt', 'hosts': '127.0.0.1'}, 'mqtt://bus/netbox', 'hosts'),
            ({'driver': 'redis', 'hosts': '127.0.0.1'}, 'redis://bus/netbox', 'hosts'),
        ],
    )
    def test_a_wrong_option_is_named_and_lets_deliveries_wait(self, monkeypatch, options: Any, url: str, word: str):
        change_settings(monkeypatch, brokers={'bus': options})
        webhook = subscribe(url, Site, timeout=5)
        site()
        work()
        (waiting,) = deliveries(StatusChoices.PENDING)
        assert waiting.error.startswith('the options of the broker bus are wrong: ')
        assert word in waiting.error
        assert health(webhook).unreachable == 1

    def test_a_secret_is_masked_in_the_error(self, monkeypatch):
        options = {'driver': 'redis', 'host': SECRET, 'password': SECRET}
        change_settings(monkeypatch, brokers={'bus': options})
        subscribe('redis://bus/netbox.sites', Site)
        site()
        work()
        (waiting,) = deliveries(StatusChoices.PENDING)
        assert waiting.error
        assert SECRET not in waiting.error


@pytest.mark.usefixtures('committed')
class TestChecks:
    def test_a_missing_library_is_a_warning(self, monkeypatch):
        change_settings(monkeypatch, brokers=BROKERS)
        assert 'webhooks.W006' not in [found.id for found in checks.run_checks(tags=['webhooks'])]
        monkeypatch.setattr(registry, 'find_spec', lambda _module: None)
        found = [one for one in checks.run_checks(tags=['webhooks']) if one.id == 'webhooks.W006']
        assert len(found) == 4

    def test_a_library_whose_package_is_missing_is_a_warning(self, request, monkeypatch):
        change_settings(monkeypatch, brokers=BROKERS)
        assert 'webhooks.W006' not in [found.id for found in checks.run_checks(tags=['webhooks'])]
        request.getfixturevalue('without_parent')
        (found,) = [one for one in checks.run_checks(tags=['webhooks']) if one.id == 'webhooks.W006']
        assert 'pip install netbox-webhooks[mqtt]' in found.msg

    def test_a_webhook_whose_broker_is_gone_is_a_warning(self, monkeypatch):
        change_settings(monkeypatch, brokers=BROKERS)
        subscribe(NOWHERE, Site)
        webhook = subscribe('redis://bus/netbox.sites', Site)
        databases: dict[str, Any] = {'tags': ['webhooks'], 'databases': ['default']}
        assert 'webhooks.W007' not in [found.id for found in checks.run_checks(**databases)]
        change_settings(monkeypatch, brokers={})
        (found,) = [one for one in checks.run_checks(**databases) if one.id == 'webhooks.W007']
        assert webhook.name in found.msg
        assert 'There is no broker bus' in found.msg
        Webhook.objects.update(enabled=False)
        assert 'webhooks.W007' not in [found.id for found in checks.run_checks(**databases)]
