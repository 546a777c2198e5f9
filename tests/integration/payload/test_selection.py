"""`fields` and `omit` leave keys out of all that a webhook sends; the format `thin` leaves the object out."""

import json
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from core.models import ObjectType
from dcim.models import Device, Region, Site
from django.db import transaction
from django.db.models import Model
from extras.models import CustomField
from ipam.models import IPAddress
from jsonschema import Draft202012Validator
from support.builders import NOWHERE, interface, site, subscribe
from support.builtin import request_by
from support.engine import work
from support.kinds import some_kinds
from support.objects import change, make_device, make_site
from support.rest import api_url, get, without_host

from devstack.receiver import Receiver
from webhooks.choices import FormatChoices
from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.models import Attempt, Webhook
from webhooks.payload import json_schema
from webhooks.payload.kept import body_of
from webhooks.rendering import keys
from webhooks.services import trial

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/webhooks/'
SECRET = 'community-of-the-device'
THREE = {'dcim.site': ['id', 'name', 'status']}
UNSENT = {'dcim.site': ['description', 'custom_fields.snmp', 'tenant']}


@pytest.fixture
def snmp(committed) -> None:
    """A custom field of sites that no receiver should get."""
    CustomField.objects.create(name='snmp', type='text').object_types.set([ObjectType.objects.get_for_model(Site)])


def saved_site(**fields: Any) -> Site:
    place = site(description=SECRET, facility='MUC', custom_field_data={'snmp': SECRET}, **fields)
    place.snapshot()
    return place


def bodies(receiver: Receiver) -> list[str]:
    work()
    return [request.body.decode() for request in receiver.requests]


class TestAsInNetBox:
    @some_kinds
    def test_any_keys_are_sent_as_netbox_shows_them(
        self, receiver: Receiver, api_client, make: Callable[[], Model], pytestconfig: pytest.Config
    ):
        seeds = range(4) if pytestconfig.getoption('--long') else (2,)
        instance = make()
        model = type(instance)
        known = sorted(keys.shown(model))
        label = model._meta.label_lower
        picks = {
            f'/{name}/{seed}': (name, random.Random(f'{label}{name}{seed}').sample(known, k=1 + seed * 3))
            for name in ('fields', 'omit')
            for seed in seeds
        }
        for path, (name, picked) in picks.items():
            subscribe(receiver.url(path), model, kinds=('updated',), **{name: {label: picked}})
        change(instance)
        work()
        for path, (name, picked) in picks.items():
            answer = api_client.get(api_url(instance), {name: ','.join(picked)})
            *_, request = (one for one in receiver.requests if one.path == path)
            assert request.json()['data'] == without_host(json.loads(answer.content)), (name, picked)


@pytest.mark.usefixtures('snmp')
class TestEverywhere:
    def test_a_left_out_value_stands_in_no_body(self, receiver: Receiver):
        ways = [*product(('default', 'netbox', 'cloudevents'), (False, True), ({'fields': THREE}, {'omit': UNSENT}))]
        webhooks = [
            subscribe(
                receiver.url('/'),
                Site,
                include_snapshots=True,
                payload_format=payload_format,
                change_set=change_set,
                conditions={'attr': 'facility', 'value': 'MUC'},
                **chosen,
            )
            for payload_format, change_set, chosen in ways
        ]
        place = saved_site(name='Munich')
        place.description, place.name = f'{SECRET}!', 'München'
        place.save()
        place.delete()
        sent = bodies(receiver)
        assert all('name' in body and SECRET not in body for body in sent)
        kept = [body_of(attempt).text for attempt in Attempt.objects.all()]
        assert sorted(kept) == sorted(sent)
        assert [webhook.deliveries.count() for webhook in webhooks] == [3] * len(ways)
        assert len(sent) == 3 * len(ways)

    def test_conditions_see_what_is_not_sent(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, conditions={'attr': 'facility', 'value': 'MUC'}, fields=THREE)
        saved_site(name='Munich')
        site(name='Berlin', slug='berlin', facility='BER')
        (body,) = bodies(receiver)
        assert json.loads(body)['data']['name'] == 'Munich'

    def test_only_if_changed_sees_what_is_not_sent(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, kinds=('updated',), only_if_changed=['facility'], fields=THREE)
        place = saved_site()
        for values in ({'name': 'Other'}, {'facility': 'BER'}):
            change_to(Site.objects.get(pk=place.pk), **values)
        (body,) = bodies(receiver)
        assert json.loads(body)['data'].keys() == {'id', 'name', 'status'}

    def test_a_template_gets_only_what_is_sent(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, fields=THREE, body_template='{{ data | tojson }}')
        place = saved_site()
        (body,) = bodies(receiver)
        assert json.loads(body) == {
            'id': place.pk, 'name': place.name, 'status': {'value': 'active', 'label': 'Active'}
        }  # fmt: skip

    def test_a_feed_gets_only_what_is_sent(self, api_client):
        feed = subscribe('', Site, omit=UNSENT)
        saved_site()
        work()
        (item,) = api_client.get(f'{API}{feed.pk}/feed/').json()['items']
        assert SECRET not in item['body']
        assert 'facility' in json.loads(item['body'])['data']

    def test_a_test_sends_only_what_is_sent(self, receiver: Receiver, netbox_user):
        webhook = subscribe(receiver.url('/'), Site, fields=THREE)
        saved_site()
        trial.send_test(webhook, netbox_user)
        (request,) = receiver.requests
        assert request.json()['data'].keys() == {'id', 'name', 'status'}

    def test_other_webhooks_get_all(self, receiver: Receiver):
        subscribe(receiver.url('/some'), Site, fields=THREE)
        subscribe(receiver.url('/same'), Site, fields=THREE)
        subscribe(receiver.url('/all'), Site)
        saved_site()
        work()
        sent = {request.path: request.json()['data'] for request in receiver.requests}
        assert sent['/some'] == sent['/same'] and sent['/some'].keys() == {'id', 'name', 'status'}
        assert sent['/all']['custom_fields']['snmp'] == SECRET

    def test_snapshots_and_differences_follow(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, kinds=('updated',), include_snapshots=True, fields=THREE)
        place = saved_site(name='Munich')
        change_to(place, name='München', description='')
        shown = json.loads(bodies(receiver)[0])
        assert shown['snapshots']['postchange'] == {'name': 'München', 'status': 'active'}
        assert shown['differences']['changed'] == {'name': ['Munich', 'München']}

    def test_a_generic_relation_leaves_its_columns_behind_in_no_snapshot(self, receiver: Receiver):
        subscribe(receiver.url('/'), IPAddress, include_snapshots=True, omit={'ipam.ipaddress': ['assigned_object']})
        IPAddress.objects.create(address='192.0.2.1/24', assigned_object=interface(make_device()))
        shown = json.loads(bodies(receiver)[-1])
        assert 'assigned_object' not in shown['data']
        assert not {'assigned_object_id', 'assigned_object_type'} & shown['snapshots']['postchange'].keys()


def change_to(instance: Model, **values: Any) -> None:
    instance.snapshot()
    # Outside of a transaction nobody knows the state before.
    with transaction.atomic():
        for name, value in values.items():
            setattr(instance, name, value)
        instance.save()


class TestDots:
    def test_keys_of_related_objects_can_be_chosen(self, receiver: Receiver, api_client):
        label = {'dcim.device': ['name', 'site.name', 'site.region.name', 'status.value', 'tags.slug']}
        subscribe(receiver.url('/'), Device, expand=['site'], fields=label)
        region = Region.objects.create(name='Europe', slug='europe')
        with transaction.atomic():
            machine = make_device()
            Site.objects.filter(pk=machine.site_id).update(region=region)
        data = json.loads(bodies(receiver)[-1])['data']
        assert data == {
            'name': machine.name,
            'site': {'name': machine.site.name, 'region': {'name': 'Europe'}},
            'status': {'value': machine.status},
            'tags': [{'slug': tag['slug']} for tag in get(api_client, machine)['tags']],
        }

    def test_a_key_goes_before_those_below_it(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, fields={'dcim.site': ['status.value', 'status']})
        subscribe(receiver.url('/'), Site, omit={'dcim.site': ['status', 'status.value']})
        site()
        work()
        shown = sorted((request.json()['data'] for request in receiver.requests), key=len)
        assert shown[0] == {'status': {'value': 'active', 'label': 'Active'}}
        assert 'status' not in shown[1]


class TestRefusals:
    SENT = {'name': 'One', 'payload_url': NOWHERE, 'type_update': True, 'object_types': ['dcim.site']}

    @pytest.mark.parametrize('name', ['fields', 'omit'])
    def test_a_wrong_value_is_named(self, api_client, name: str):
        for value, reason in (
            ({'dcim.site': ['id', 'stattus']}, 'dcim.site has no key stattus. Did you mean status'),
            ({'dcim.site': ['region.nmae']}, 'dcim.site has no key region.nmae. Did you mean region.name'),
            ({'dcim.site': ['custom_fields.none']}, 'dcim.site has no key custom_fields.none.'),
            ({'dcim.rack': ['id']}, 'dcim.rack: this webhook has no such object type.'),
            ({'dcim.site': []}, 'dcim.site: list one key or more'),
            ({'dcim.site': 'id'}, 'dcim.site: list one key or more'),
            ({'dcim.site': [1]}, 'dcim.site: list one key or more'),
            ({'dcim.site': ['id'] * 201}, 'dcim.site: no more than 200 keys'),
            (['id'], 'Enter a JSON object'),
            ('', 'Enter a JSON object'),
        ):
            answer = api_client.post(API, {**self.SENT, name: value}, format='json')
            assert (answer.status_code, [*answer.json()]) == (400, [name]), value
            assert reason in str(answer.json()[name])
        assert not Webhook.objects.exists()

    def test_a_type_has_one_of_both(self, api_client):
        answer = api_client.post(API, {**self.SENT, 'fields': THREE, 'omit': UNSENT}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['omit'])

    def test_both_are_saved_by_rest_and_import(self, api_client):
        answer = api_client.post(API, {**self.SENT, 'fields': THREE}, format='json')
        assert (answer.status_code, answer.json()['fields'], answer.json()['omit']) == (201, THREE, None)
        fields = {**self.SENT, 'name': 'Two', 'object_types': 'dcim.site', 'omit': '{"dcim.site": ["tenant"]}'}
        form = WebhookImportForm(fields)
        assert form.is_valid(), form.errors
        assert [*WebhookImportForm({**fields, 'omit': '{"dcim.site": ["tennant"]}'}).errors] == ['omit']

    def test_a_removed_object_type_is_named(self, api_client):
        pk = api_client.post(API, {**self.SENT, 'fields': THREE}, format='json').json()['id']
        answer = api_client.patch(f'{API}{pk}/', {'object_types': ['dcim.rack']}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['fields'])


class TestThin:
    def test_it_names_the_change_and_sends_no_data(self, receiver: Receiver, api_client, netbox_user):
        webhook = subscribe(receiver.url('/'), Site, payload_format=FormatChoices.THIN)
        with request_by(netbox_user):
            place = saved_site(name='Munich')
        created = json.loads(bodies(receiver)[0])
        event = webhook.deliveries.get().event
        assert {name: created[name] for name in created.keys() - {'signal_received_timestamp'}} == {
            'event': 'created',
            'model': 'Site',
            'object_type': 'dcim.site',
            'object_id': place.pk,
            'url': api_url(place),
            'changed': None,
            'id': str(event.uuid),
            'sequence': event.sequence,
            'username': netbox_user.username,
            'request_id': str(event.request_id),
        }
        change_to(place, name='München', facility='')
        place.delete()
        work()
        updated, deleted = (request.json() for request in receiver.requests[1:])
        assert (updated['changed'], deleted['changed']) == (['facility', 'name'], None)
        assert deleted['object_id'] == created['object_id']
        assert SECRET not in str(receiver.requests[0].body)

    def test_it_fits_its_schema(self, receiver: Receiver, netbox_user):
        thin = {'payload_format': FormatChoices.THIN}
        schemas = {
            path: Draft202012Validator(
                json_schema.of_webhook(subscribe(receiver.url(path), Site, change_set=change_set, **thin), Site)
            )
            for path, change_set in (('/single', False), ('/set', True))
        }
        with request_by(netbox_user):
            place = make_site()
        change(place)
        work()
        assert {request.path for request in receiver.requests} == schemas.keys()
        for request in receiver.requests:
            schemas[request.path].validate(request.json())

    @pytest.mark.parametrize(
        'other', [{'fields': THREE}, {'omit': UNSENT}, {'expand': ['region']}, {'include_snapshots': True}], ids=str
    )
    def test_it_leaves_nothing_to_choose(self, api_client, other: dict):
        sent = {**TestRefusals.SENT, 'payload_format': 'thin', **other}
        answer = api_client.post(API, sent, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, [*other])


def test_bodies_fit_the_schema_of_their_webhook(receiver: Receiver):
    chosen = {'/fields': {'fields': THREE}, '/omit': {'omit': {'dcim.site': ['region.url', 'tenant', 'tags.color']}}}
    schemas = {
        path: json_schema.of_webhook(subscribe(receiver.url(path), Site, **options), Site)
        for path, options in chosen.items()
    }
    make_site()
    work()
    assert {request.path for request in receiver.requests} == schemas.keys()
    for request in receiver.requests:
        schema = schemas[request.path]
        Draft202012Validator(schema).validate(request.json())
        assert schema['$defs']['data']['properties'].keys() == request.json()['data'].keys()
