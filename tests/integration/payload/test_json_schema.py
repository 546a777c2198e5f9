"""Payloads fit `webhooks_schema`, which allows nothing else."""

import json
from io import StringIO
from typing import Any

import pytest
from dcim.models import Cable, PowerPort, Rack, Region, Site, VirtualDeviceContext
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import Model
from django.utils import translation
from drf_spectacular.settings import spectacular_settings
from extras.models import ConfigContext
from jsonschema import Draft202012Validator, FormatChecker
from support.builders import subscribe
from support.builtin import request_by
from support.engine import dispatch_all, in_thread, work
from support.objects import MAKERS, VARIANTS, change, make_site
from support.objects.anything import make_anything
from support.objects.surroundings import make_region, named
from support.rest import get
from vpn.models import IKEProposal

from devstack.receiver import Received, Receiver
from webhooks.constants import DEFAULT_MODELS
from webhooks.models import ListWalk
from webhooks.outbox import scope
from webhooks.payload import json_schema
from webhooks.services.trial import send_test
from webhooks.storable import nodes

FORMATS = ('default', 'netbox', 'cloudevents')
# `date-time` and `uri-reference` need additional packages.
CHECKER = FormatChecker(['uuid', 'date'])


def schema(label: str, *options: str) -> dict[str, Any]:
    output = StringIO()
    call_command('webhooks_schema', label, *options, stdout=output)
    return json.loads(output.getvalue())


def validator(label: str, *options: str) -> Draft202012Validator:
    shown = schema(label, *options)
    Draft202012Validator.check_schema(shown)
    return Draft202012Validator(shown, format_checker=CHECKER)


def errors(of: Draft202012Validator, body: Any) -> list[str]:
    return [f'{error.json_path}: {error.message[:200]}' for error in of.iter_errors(body)]


def sent(receiver: Receiver, count: int = 1) -> list[Received]:
    work()
    return receiver.wait_for(count)


@pytest.mark.usefixtures('committed')
class TestPayloads:
    def test_payloads_of_all_models_fit(self, receiver: Receiver, netbox_user):
        models = [apps.get_model(label) for label in DEFAULT_MODELS]
        validators = {label: validator(label) for label in DEFAULT_MODELS}
        subscribe(receiver.url('/'), *models)
        made: list[Model] = []
        for make in [*MAKERS.values(), *VARIANTS.values()]:
            with request_by(netbox_user):
                made.append(make())
            change(made[-1])
        work()
        assert {request.json()['object_type'] for request in receiver.requests} == set(DEFAULT_MODELS)
        for request in receiver.requests:
            body = request.json()
            of = validators[body['object_type']]
            assert not errors(of, body), (body['object_type'], body)
            assert body['data'].keys() == of.schema['$defs']['data']['properties'].keys()

    def test_blank_columns_fit_though_netbox_describes_them_as_never_null(self, api_client):
        for model in (Cable, ConfigContext, IKEProposal, PowerPort, VirtualDeviceContext):
            shown = schema(model._meta.label_lower)
            Draft202012Validator.check_schema(shown)
            data = get(api_client, make_anything(model))
            assert None in data.values()
            assert not errors(Draft202012Validator({'$ref': '#/$defs/data', '$defs': shown['$defs']}), data)

    def test_payloads_in_all_formats_fit(self, receiver: Receiver, netbox_user):
        kinds = {'plain': False, 'snapshots': True}
        for name in FORMATS:
            for kind, snapshots in kinds.items():
                url = receiver.url(f'/{name}/{kind}')
                subscribe(url, Site, payload_format=name, include_snapshots=snapshots)
        with request_by(netbox_user):
            place = make_site()
        change(place)
        bare = Site.objects.create(**named('bare'))
        bare.delete()
        validators = {name: validator('dcim.site', '--format', name) for name in FORMATS}
        assert all(errors(of, {}) for of in validators.values())
        requests = sent(receiver, 4 * 2 * len(FORMATS))
        assert {request.path for request in requests} == {f'/{name}/{kind}' for name in FORMATS for kind in kinds}
        for request in requests:
            assert not errors(validators[request.path.split('/')[1]], request.json()), request.path

    def test_change_sets_fit(self, receiver: Receiver):
        for name in FORMATS:
            subscribe(receiver.url(f'/{name}'), Site, Rack, change_set=True, payload_format=name)
        with transaction.atomic():
            place = Site.objects.create(**named('site'))
            Rack.objects.create(name='rack', site=place)
        for request in sent(receiver, len(FORMATS)):
            name, body = request.path[1:], request.json()
            of = validator('dcim.site', '--format', name, '--change-set')
            assert not errors(of, body), name
            data = body[0]['data'] if name == 'cloudevents' else body['changes'][0]['data']
            data['id'] = 'none'
            assert errors(of, body), name

    def test_a_merged_branch_fits(self, receiver: Receiver):
        branch = {'id': 7, 'name': 'New site in Bern'}
        for name in FORMATS:
            for option in ('single', 'change-set'):
                url = receiver.url(f'/{name}/{option}')
                subscribe(url, Site, payload_format=name, change_set=option == 'change-set')
        with transaction.atomic():
            scope.note_branch(branch)
            Site.objects.create(**named('site'))
        for request in sent(receiver, 2 * len(FORMATS)):
            _, name, option = request.path.split('/')
            of = validator('dcim.site', '--format', name, *(['--change-set'] if option == 'change-set' else []))
            body = request.json()
            assert not errors(of, body), request.path
            shown = body[0] if isinstance(body, list) else body
            if name == 'cloudevents':
                assert (shown['branch'], shown['branchid']) == (branch['name'], branch['id'])
                shown['branchid'] = 'none'
            else:
                assert shown['transaction']['branch'] == branch
                del shown['transaction']['branch']['id']
            assert errors(of, body), request.path

    def test_the_payload_of_an_object_whose_relations_went_along_fits(self, receiver: Receiver):
        """Only the region's id is still known."""
        subscribe(receiver.url('/'), Site)
        region = make_region()
        place = make_site(region=region)
        with transaction.atomic():
            place.save()
            Region.objects.filter(pk=region.pk).delete()
        of = validator('dcim.site')
        assert errors(of, {})
        for request in sent(receiver, 2):
            assert not errors(of, request.json())

    def test_the_payload_of_a_test_event_fits(self, receiver: Receiver, netbox_user):
        make_site()
        send_test(subscribe(receiver.url('/'), Site), netbox_user)
        (request,) = receiver.wait_for(1)
        assert request.json()['test'] is True
        assert not errors(validator('dcim.site'), request.json())

    def test_a_change_from_before_snapshots_were_switched_on_fits(self, receiver: Receiver):
        """Its state before is not known any more."""
        webhooks = {f'/{name}': subscribe(receiver.url(f'/{name}'), Site) for name in FORMATS}
        make_site()
        dispatch_all()
        for path, webhook in webhooks.items():
            webhook.payload_format, webhook.include_snapshots = path[1:], True
            webhook.save()
        for request in sent(receiver, len(webhooks)):
            shown = request.json()['data'] if request.path == '/cloudevents' else request.json()
            assert (shown['snapshots'], shown['differences']) == (None, None)
            of = Draft202012Validator(json_schema.of_webhook(webhooks[request.path], Site), format_checker=CHECKER)
            assert not errors(of, request.json()), request.path

    def test_a_ping_and_all_that_a_list_sends_fit(self, receiver: Receiver, netbox_user):
        """An object that is gone without an event has only its id."""
        webhooks = {}
        for name in (*FORMATS, 'thin'):
            for snapshots in {False, name != 'thin'}:
                path = f'/{name}/{snapshots}'
                listed = {'filters': {'dcim.site': 'status=active'}, 'include_snapshots': snapshots}
                webhooks[path] = subscribe(receiver.url(path), Site, payload_format=name, **listed)
                send_test(webhooks[path], netbox_user)
        place, gone = Site.objects.create(**named('site')), Site.objects.create(**named('gone'))
        work()
        with transaction.atomic():
            place.status = 'planned'
            place.save()
        Site.objects.filter(pk=gone.pk)._raw_delete('default')
        ListWalk.objects.update(asked=True)
        requests = sent(receiver, 5 * len(webhooks))
        assert len(requests) == 5 * len(webhooks)
        for request in requests:
            of = Draft202012Validator(json_schema.of_webhook(webhooks[request.path], Site), format_checker=CHECKER)
            assert not errors(of, request.json()), (request.path, request.json())

    def test_another_payload_does_not_fit(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site)
        with transaction.atomic():
            place = make_site()
        of = validator('dcim.site')
        work()
        (request,) = [sent for sent in receiver.requests if sent.json()['data']['id'] == place.pk]
        assert not errors(of, request.json())
        for *parents, last, value in (
            ('event', 'changed'),
            ('model', 'Rack'),
            ('object_type', 'dcim.rack'),
            ('sequence', '7'),
            ('id', 'no uuid'),
            ('data', 'name', None),
            ('data', 'status', 'active'),
            ('data', 'status', 'value', 'gone'),
            ('data', 'latitude', 91),
            ('data', 'tenant', 5),
            ('data', 'tags', 0, 'color', 7),
        ):
            body = parent = request.json()
            for key in parents:
                parent = parent[key]
            parent[last] = value
            assert errors(of, body), (*parents, last)

    @pytest.mark.parametrize('language', ['de', 'ja'])
    def test_the_labels_of_choices_are_in_the_language_of_payloads(self, receiver: Receiver, api_client, language: str):
        webhook = subscribe(receiver.url('/'), Site)
        Site.objects.create(**named('site'))
        (request,) = sent(receiver)
        address = f'/api/plugins/webhooks/webhooks/{webhook.pk}/schema/'
        with translation.override('en', deactivate=True):  # the request's language would stay
            shown = api_client.get(address, HTTP_ACCEPT_LANGUAGE=language).json()
        assert not errors(Draft202012Validator(shown, format_checker=CHECKER), request.json())

    def test_a_key_may_not_be_missing(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site)
        make_site()
        of = validator('dcim.site')
        body = sent(receiver)[0].json()
        for key in body['data']:
            assert errors(of, {**body, 'data': {k: v for k, v in body['data'].items() if k != key}})


class TestCommand:
    def test_the_schema_describes_expanded_objects_as_a_whole(self, db):
        shown = schema('dcim.interface', '--expand', 'device.site', '--expand', 'tagged_vlans')
        definitions = shown['$defs']
        assert definitions['device.site']['required'] == schema('dcim.site')['$defs']['data']['required']
        assert {'$ref': '#/$defs/device'} in definitions['data']['properties']['device']['anyOf']
        assert {'$ref': '#/$defs/device.site'} in definitions['device']['properties']['site']['anyOf']
        assert {'$ref': '#/$defs/tagged_vlans'} in definitions['data']['properties']['tagged_vlans']['items']['anyOf']
        assert 'device' not in schema('dcim.interface')['$defs']

    def test_an_unknown_key_is_an_error(self, db):
        with pytest.raises(CommandError, match='nothing: in the chosen object types'):
            schema('dcim.interface', '--expand', 'nothing')

    def test_any_model_with_a_page_in_the_api_has_a_schema(self, db):
        assert schema('dcim.location')['title'] == 'dcim.location, format default'
        title = 'dcim.location, format netbox, change set'
        assert schema('DCIM.Location', '--format', 'netbox', '--change-set')['title'] == title

    @pytest.mark.parametrize('label', ['dcim.nothing', 'nothing', 'a.b.c'])
    def test_an_unknown_model_is_an_error(self, db, label: str):
        with pytest.raises(CommandError, match='there is no model'):
            schema(label)

    def test_no_model_is_an_error(self, db):
        with pytest.raises(CommandError, match='name a model'):
            schema('')

    def test_a_model_without_a_page_in_the_api_is_an_error(self, db):
        with pytest.raises(CommandError, match=r'dcim\.cablepath has no page in the REST API'):
            schema('dcim.cablepath')

    def test_settings_of_the_schema_view_are_as_before(self, db):
        schema('dcim.site')
        assert spectacular_settings.OAS_VERSION == '3.0.3'

    def test_they_are_as_before_though_several_schemas_are_made_at_once(self, db):
        threads = [in_thread(lambda: [schema(label) for label in DEFAULT_MODELS]) for _ in range(4)]
        for thread in threads:
            thread.join(60)
        assert spectacular_settings.OAS_VERSION == '3.0.3'

    def test_all_references_are_in_it(self, db):
        shown = schema('dcim.device')
        text = json.dumps(shown)
        assert '#/components/' not in text
        referred = {part.split('"')[0] for part in text.split('#/$defs/')[1:]}
        assert referred <= shown['$defs'].keys()


def test_no_choice_is_named_twice(db):
    choices = [node['anyOf'] for node in nodes(schema('dcim.site')) if isinstance(node, dict) and 'anyOf' in node]
    assert choices
    assert not [one for one in choices if any(one.count(choice) > 1 for choice in one)]
