import json
from collections.abc import Callable

import pytest
from dcim.models import ConsolePort, Device, Location, Site
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from extras.models import ConfigContext, Tag
from support.builders import NOWHERE, device, recorded, site, subscribe
from support.engine import work
from support.settings import change_settings
from wireless.models import WirelessLAN

from devstack.receiver import Receiver
from webhooks import object_types
from webhooks.constants import DEFAULT_MODELS
from webhooks.models import Event
from webhooks.services import trial

pytestmark = pytest.mark.usefixtures('committed')

MAKE = """
from dcim.models import Location, Site
from extras.models import Tag
from wireless.models import WirelessLAN
place = Site.objects.get()
attic = Location.objects.create(site=place, name='Attic', slug='attic')
attic.description = 'dusty'
attic.save()
WirelessLAN.objects.create(ssid='guests', scope=place)
Tag.objects.create(name='core', slug='core')
"""

LIST = """
import json
from webhooks import object_types
print(json.dumps(sorted(object_types.by_label())))
"""

ASK = """
from rest_framework.test import APIClient
client = APIClient(headers={{'authorization': {token!r}}})
for label in ('dcim.location', 'dcim.region'):
    body = {{'name': label, 'object_types': [label], 'type_create': True, 'payload_url': 'http://127.0.0.1:9/'}}
    answer = client.post('/api/plugins/webhooks/webhooks/', body, format='json')
    print(label, answer.status_code, *([list(answer.json())] if answer.status_code == 400 else []))
"""


def allow(*labels: str) -> str:
    return f"PLUGINS_CONFIG = {{'webhooks': {{'allowed_models': {list(labels)}}}}}"


def subscribed(receiver: Receiver, *models: type[Model]) -> None:
    site(name='Bern')
    subscribe(receiver.url('/'), *models, payload_format='netbox')


def sent(receiver: Receiver, count: int) -> list[tuple[str, str, str]]:
    work()
    bodies = [request.json() for request in receiver.wait_for(count)]
    return sorted((body['object_type'], body['event'], body['data']['display']) for body in bodies)


class TestAdded:
    def test_models_that_are_named_are_taken_by_the_api_and_sent(self, receiver, make_netbox, api_token: str):
        subscribed(receiver, Site, Location, WirelessLAN, Tag)
        netbox = make_netbox(allow('dcim.Location', 'wireless.wirelesslan'))
        result = netbox.run('shell', '-c', MAKE + ASK.format(token=api_token))
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-2:] == ['dcim.location 201', "dcim.region 400 ['object_types']"]
        assert sent(receiver, 3) == [
            ('dcim.location', 'created', 'Attic'),
            ('dcim.location', 'updated', 'Attic'),
            ('wireless.wirelesslan', 'created', 'guests'),
        ]

    def test_with_a_star_all_models_are_sent_except_our_own(self, receiver: Receiver, make_netbox: Callable):
        subscribed(receiver, Site, Location, WirelessLAN, Tag)
        result = make_netbox(allow('*')).run('shell', '-c', MAKE + LIST)
        assert result.returncode == 0, result.stderr
        assert sent(receiver, 4) == [
            ('dcim.location', 'created', 'Attic'),
            ('dcim.location', 'updated', 'Attic'),
            ('extras.tag', 'created', 'core'),
            ('wireless.wirelesslan', 'created', 'guests'),
        ]
        found = set(json.loads(result.stdout.splitlines()[-1]))
        assert found > {*DEFAULT_MODELS, 'dcim.location', 'extras.tag', 'users.user'}
        assert not [label for label in found if label.startswith('webhooks.')]

    def test_without_the_setting_they_are_not_heard(self, receiver: Receiver):
        subscribed(receiver, Site, Location)
        exec(MAKE, {})
        assert not Event.objects.exists()
        place = site()
        assert list(Event.objects.values_list('object_id', flat=True)) == [place.pk]


class TestTakenOut:
    """A webhook keeps the model as its object type."""

    @pytest.mark.parametrize('model', [ConfigContext, ConsolePort])
    def test_its_changes_are_not_recorded(self, model: type[Model]):
        """NetBox tells us of them: they may concern devices."""
        server = device()
        subscribe(NOWHERE, model, Device)
        ConfigContext.objects.create(name='NTP', data={'ntp': 'a'})
        ConsolePort.objects.create(device=server, name='con0').delete()
        server.save()
        assert {event.object_type.model for event in recorded()} == {'device'}

    def test_a_test_sends_no_object_of_it(self, receiver: Receiver):
        ConsolePort.objects.create(device=device(), name='con0')
        trial.send_test(subscribe(receiver.url('/'), ConsolePort))
        assert [request.json()['object_type'] for request in receiver.requests] == ['webhooks.webhook']


class TestWrong:
    @pytest.mark.parametrize(
        ('label', 'reason'),
        [
            ('sessions.session', "allowed_models: 'sessions.session' cannot be sent, because it has no REST API"),
            ('extras.cachedvalue', "allowed_models: 'extras.cachedvalue' cannot be sent, because it has no REST API"),
            ('extras.scriptmodule', "allowed_models: 'extras.scriptmodule' cannot be sent, because it has no REST API"),
            ('core.objecttype', "allowed_models: 'core.objecttype' cannot be sent, because it uses multi-table"),
            ('dcim.nothing', "allowed_models: there is no model 'dcim.nothing'"),
            ('nothing.site', "allowed_models: there is no model 'nothing.site'"),
        ],
    )
    def test_a_wrong_model_is_named(self, monkeypatch: pytest.MonkeyPatch, label: str, reason: str):
        change_settings(monkeypatch, allowed_models=(*DEFAULT_MODELS, label))
        with pytest.raises(ImproperlyConfigured) as refused:
            object_types.allowed_models()
        assert reason in str(refused.value)

    def test_the_start_stops_with_a_line_that_names_it(self, make_netbox: Callable):
        result = make_netbox("WEBHOOKS_ALLOWED_MODELS = ['dcim.nothing']").run('check')
        assert result.returncode != 0
        assert "allowed_models: there is no model 'dcim.nothing'" in result.stderr.strip().splitlines()[-1]
