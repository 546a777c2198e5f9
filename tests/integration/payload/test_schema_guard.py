"""Keys that webhooks name, and payloads no longer have: before and after an upgrade, in checks, and on Status."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from core.models import ObjectType
from dcim.api.serializers import SiteSerializer
from dcim.models import Cable, CablePath, Device, Interface, Rack, Site
from django.core import checks
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from extras.models import CustomField, SavedFilter
from jsonschema import Draft202012Validator
from rest_framework import serializers
from support.builders import NOWHERE, subscribe
from support.engine import work
from support.objects import make_device, make_site

from devstack.receiver import Receiver
from webhooks.models import Webhook
from webhooks.payload import schema_guard

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/webhooks/'
LOOP = '{% for tag in data.tags | sort(attribute="name") %}{{ tag.colour | upper }}{% endfor %}'


def schema(*options: str) -> tuple[str, int]:
    """Return what the command prints, and its exit code."""
    output = StringIO()
    try:
        call_command('webhooks_schema', *options, stdout=output)
    except SystemExit as ended:
        return output.getvalue(), ended.code
    return output.getvalue(), 0


@pytest.fixture(scope='module')
def all_keys(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> str:
    """To read them takes a second, and they are always the same."""
    path = tmp_path_factory.mktemp('keys') / 'keys.json'
    with django_db_blocker.unblock():
        assert schema('--save', str(path)) == ('', 0)
    return path.read_text()


@pytest.fixture
def saved(tmp_path: Path, all_keys: str) -> Path:
    path = tmp_path / 'keys.json'
    path.write_text(all_keys)
    return path


@pytest.fixture
def of_older_netbox(saved: Path) -> Path:
    """The keys of a NetBox whose sites had three keys more, and one of another type, and one less."""
    shown = json.loads(saved.read_text())
    keys = shown['object_types']['dcim.site']
    keys |= dict.fromkeys(['contact', 'zone', 'zone.code', 'tags.colour'], 'string')
    keys |= {'facility': 'integer', '?continent': 'filter'}
    del keys['time_zone']
    saved.write_text(json.dumps(shown | {'netbox': '4.6.0'}))
    return saved


class TestCompare:
    def test_the_same_netbox_has_the_same_keys(self, saved: Path):
        shown, code = schema('--compare', str(saved))
        assert (shown.splitlines()[1:], code) == (['No payload has other keys.'], 0)
        keys = json.loads(saved.read_text())['object_types']['dcim.site']
        assert keys['status.value'] == 'string' and keys['region.name'] == 'string' and keys['tags'] == 'array'

    def test_each_key_that_came_went_or_changed_is_named(self, of_older_netbox: Path):
        shown, code = schema('--compare', str(of_older_netbox))
        assert code == 0
        assert shown.splitlines()[1:] == [
            '', 'dcim.site', '  + time_zone', '  - ?continent', '  - contact', '  - tags.colour',
            '  - zone',
            '  ~ facility: integer → string',
        ]  # fmt: skip

    def test_webhooks_that_name_a_key_that_went_are_named(self, of_older_netbox: Path):
        named = [
            ({'conditions': {'or': [{'attr': 'zone.code', 'value': 1}]}}, 'Conditions: zone.code'),
            ({'body_template': LOOP}, 'Body template: tags.colour'),
            ({'payload_url': 'http://example.com/{{ data["contact"] | urlencode }}'}, 'URL: contact'),
            ({'additional_headers': 'X-Zone: {{ data.zone.code }}'}, 'Additional headers: zone.code'),
            ({'only_if_changed': ['contact']}, 'Only if changed: contact'),
            ({'fields': {'dcim.site': ['id', 'zone']}}, 'Fields: zone'),
            ({'omit': {'dcim.site': ['zone.code']}}, 'Omit: zone.code'),
            ({'filters': {'dcim.site': 'status=active&continent=7'}}, 'Filters: ?continent'),
            ({'filters': {'dcim.site': 'filter=south&status=active'}}, 'Filters: ?continent'),
        ]
        SavedFilter.objects.create(name='South', slug='south', shared=True, parameters={'continent': [7]})
        subscribe(NOWHERE, Site, name='Other', body_template='{{ data.facility }}')
        subscribe(NOWHERE, Rack, name='Racks', body_template='{{ data.contact }}')
        for number, (fields, _shown) in enumerate(named):
            webhook = subscribe(NOWHERE, Site, name=f'CMDB {number}')
            # As of before the upgrade: now it could not be saved.
            Webhook.objects.filter(pk=webhook.pk).update(**fields)
        text, code = schema('--compare', str(of_older_netbox))
        assert code == 2
        assert text.splitlines()[-len(named) - 1 :] == [
            'These webhooks name a key that went:',
            *(f'  CMDB {number}: {shown}' for number, (_fields, shown) in enumerate(named)),
        ]

    def test_webhooks_that_name_a_key_that_went_from_an_expanded_object_are_named(self, saved: Path):
        shown = json.loads(saved.read_text())
        for label in ('dcim.device', 'dcim.manufacturer'):
            shown['object_types'].setdefault(label, {})['chassis'] = 'string'
        saved.write_text(json.dumps(shown))
        named = [
            ({'conditions': {'attr': 'device.chassis', 'value': 1}}, 'Conditions: device.chassis'),
            ({'omit': {'dcim.interface': ['device.chassis']}}, 'Omit: device.chassis'),
            ({'body_template': '{{ data.device.device_type.manufacturer.chassis }}'},
             'Body template: device.device_type.manufacturer.chassis'),
            ({'body_template': '{{ data.device.site.chassis }}'}, ''),
        ]  # fmt: skip
        for number, (fields, _shown) in enumerate(named):
            webhook = subscribe(NOWHERE, Interface, name=f'CMDB {number}')
            Webhook.objects.filter(pk=webhook.pk).update(**fields)
        text, code = schema('--compare', str(saved))
        assert code == 2
        lines = [f'  CMDB {number}: {shown}' for number, (_fields, shown) in enumerate(named) if shown]
        assert text.splitlines()[-len(lines) - 1 :] == ['These webhooks name a key that went:', *lines]
        assert 'dcim.manufacturer\n  - chassis\n' in text and '+' not in text

    def test_a_changed_serializer_is_noticed(self, saved: Path, monkeypatch):
        fields = [name for name in SiteSerializer.Meta.fields if name != 'facility']
        monkeypatch.setattr(SiteSerializer.Meta, 'fields', (*fields, 'asset'))
        declared = {**SiteSerializer._declared_fields, 'asset': serializers.CharField(source='name')}
        monkeypatch.setattr(SiteSerializer, '_declared_fields', declared)
        shown, _code = schema('--compare', str(saved))
        assert shown.splitlines()[1:] == ['', 'dcim.site', '  + asset', '  - facility']

    @pytest.mark.parametrize('text', ['', '[]', '{"netbox": "4.7.0"}', '{"netbox": "4.7.0", "object_types": 3}'])
    def test_another_file_is_refused(self, tmp_path: Path, text: str):
        path = tmp_path / 'other.json'
        path.write_text(text)
        with pytest.raises(CommandError, match='was not written by --save'):
            schema('--compare', str(path))

    def test_a_file_that_cannot_be_read_or_written_is_named(self, tmp_path: Path):
        for option in ('--save', '--compare'):
            with pytest.raises(CommandError, match=r'cannot (read|write) .*: No such file or directory'):
                schema(option, str(tmp_path / 'none' / 'keys.json'))


def warnings() -> list[str]:
    found = checks.run_checks(tags=['webhooks'], databases=['default'])
    return [one.msg for one in found if one.id == 'webhooks.W010']


class TestUnknownKeys:
    def test_known_keys_are_no_warning(self):
        CustomField.objects.create(name='owner', type='text').object_types.set([ObjectType.objects.get_for_model(Site)])
        subscribe(
            NOWHERE,
            Site,
            Device,
            expand=['site', 'tenant'],
            conditions={'and': [{'attr': 'status.value', 'value': 'a'}, {'attr': 'snapshots.prechange.x', 'value': 1}]},
            body_template='{{ data.site.region.name }}{{ data.serial }}{{ data.custom_fields.owner }}{{ data.display }}'
            '{{ data.local_context_data.anything.goes }}',
        )
        ends = '{% for end in data.a_terminations %}{{ end.object.display }}{% endfor %}'
        subscribe(NOWHERE, Cable, body_template=ends, fields={'dcim.cable': ['a_terminations.object_id']})
        saved = SavedFilter.objects.create(name='a', slug='a', shared=True, parameters={'region__n': ['null']})
        query = f'status=active&name__ic=a&cf_owner=x&filter_id={saved.pk}&sort=name'
        subscribe(NOWHERE, Site, filters={'dcim.site': query})
        assert warnings() == []

    def test_checks_and_status_name_an_unknown_key(self, admin_pages: Client):
        status = reverse('plugins:webhooks:status')
        assert 'Unknown keys' not in admin_pages.get(status).content.decode()
        webhook = subscribe(NOWHERE, Site, name='CMDB', body_template='{{ data.serial }} {{ data.custom_fields.none }}')
        assert warnings() == [
            'No payload has this key: CMDB: Body template: custom_fields.none',
            'No payload has this key: CMDB: Body template: serial',
        ]
        page = admin_pages.get(status).content.decode()
        assert 'Unknown keys' in page
        assert 'CMDB: Body template: serial' in page
        webhook.object_types.clear()  # event rules may send anything
        assert warnings() == []

    def test_a_webhook_that_was_saved_by_a_script_is_no_error(self):
        webhook = subscribe(NOWHERE, Site)
        Webhook.objects.filter(pk=webhook.pk).update(conditions=['attr', {'attr': 5}])
        assert [str(named.key) for named in schema_guard.unknown(Webhook.objects.all())] == ['5']


class TestEndpoints:
    def test_bodies_of_each_type_fit_the_schema_of_their_webhook(self, receiver: Receiver, api_client):
        webhook = subscribe(
            receiver.url('/'), Site, Device, expand=['site'], fields={'dcim.device': ['id', 'site.name']}
        )
        make_site()
        make_device()
        work()
        found = api_client.get(f'{API}{webhook.pk}/schema/').json()
        validator = Draft202012Validator(found)
        types = {request.json()['object_type'] for request in receiver.requests}
        assert types == {'dcim.site', 'dcim.device'}
        for request in receiver.requests:
            validator.validate(request.json())
        wrong = receiver.requests[0].json()
        del wrong['data']['id']
        assert not validator.is_valid(wrong)

    def test_a_type_that_netbox_does_not_describe_may_have_any_body(self, api_client):
        webhook = subscribe(NOWHERE, Site, CablePath)
        described, listed = (api_client.get(f'{API}{address}') for address in (f'{webhook.pk}/schema/', 'asyncapi/'))
        assert (described.status_code, listed.status_code) == (200, 200)
        assert Draft202012Validator(described.json()).is_valid({'object_type': 'dcim.cablepath'})
        messages = listed.json()['components']['messages']
        assert {name.partition('.')[2]: 'payload' in one for name, one in messages.items()} == {
            'dcim.cablepath': False,
            'dcim.site': True,
        }

    @pytest.mark.parametrize('address', ['{pk}/schema/', 'asyncapi/'])
    def test_a_document_that_has_not_changed_is_not_sent_again(self, api_client, address: str):
        webhook = subscribe(NOWHERE, Site)
        url = API + address.format(pk=webhook.pk)
        first = api_client.get(url)
        known = {'If-None-Match': first['ETag']}
        assert (first.status_code, api_client.get(url, headers=known).status_code) == (200, 304)
        webhook.payload_format = 'thin'
        webhook.save()
        assert api_client.get(url, headers=known).status_code == 200

    def test_a_reader_gets_the_channels_of_visible_webhooks(self, api_client, clerk_api, grant):
        subscribe(NOWHERE, Site, name='pub')
        subscribe(NOWHERE, Site, name='other')
        assert len(api_client.get(f'{API}asyncapi/').json()['channels']) == 2
        grant(Webhook, 'view', name='pub')
        assert [one['title'] for one in clerk_api.get(f'{API}asyncapi/').json()['channels'].values()] == ['pub']
