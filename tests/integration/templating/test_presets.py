"""Presets send each service's documented format."""

import hmac
import json
import re
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Any

import pytest
from dcim.models import Device, Site
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from support.admin_browser import filled
from support.builders import NOWHERE, site, subscribe
from support.builtin import request_by
from support.engine import work

from devstack.receiver import Answer, Receiver
from webhooks.models import Credential, Delivery, Event, Webhook
from webhooks.presets import all_presets

pytestmark = pytest.mark.usefixtures('committed')

WEBHOOKS = '/api/plugins/webhooks/webhooks/'
# Only these answers count as success.
ANSWERS = {
    'mattermost': b'ok',
    'rabbitmq': b'{"routed": true}',
    'splunk': b'{"text": "Success", "code": 0}',
    'zabbix': b'{"jsonrpc": "2.0", "result": {"response": "success", "data": [{"itemid": "1"}]}, "id": 1}',
}
TOKEN = 'Authorization: Bearer t0ken'
HARMFUL = '<!channel> & [link](https://evil.example.com) *x* {{ 7 * 7 }} "quoted" \\ \u2028'
ESCAPED = HARMFUL.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def create(api_client: Any, receiver: Receiver, preset: str, path: str = '/', **fields: Any) -> dict[str, Any]:
    begun = all_presets()[preset].fields
    if preset == 'awx':
        fields = {'additional_headers': TOKEN, **fields}
    if 'hmac(' in begun.get('additional_headers', ''):
        fields = {'secret': 's3cret', **fields}
    if 'credential.' in str(begun):
        host = receiver.url().rstrip('/')
        made = Credential(name=preset, type='template', secret='t0ken', hosts=[host])
        made.save()
        fields = {'credential': made.pk, **fields}
    receiver.answers(path, Answer(200, ANSWERS.get(preset, b'')))
    body = {
        'name': preset, 'preset': preset, 'payload_url': receiver.url(path), 'object_types': ['dcim.site'],
        'type_create': True, **fields,
    }  # fmt: skip
    answer = api_client.post(WEBHOOKS, body, format='json')
    assert answer.status_code == 201, answer.content
    return answer.json()


def sent(receiver: Receiver, name: str = HARMFUL) -> Any:
    place = site(name=name)
    assert work() == '1 delivered'
    (request,) = receiver.requests
    assert request.header('Content-Type').partition(';')[0] in ('application/json', 'application/json-rpc')
    return place, request.json()


class TestBodies:
    def test_slack_gets_blocks_without_marks_of_others(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'slack')
        _place, body = sent(receiver)
        assert body.keys() == {'text', 'blocks'}
        rich, context = body['blocks']
        assert rich == {
            'type': 'rich_text',
            'elements': [
                {
                    'type': 'rich_text_section',
                    'elements': [
                        {'type': 'text', 'text': f'dcim.site {HARMFUL}', 'style': {'bold': True}},
                        {'type': 'text', 'text': ' was created'},
                    ],
                }
            ],
        }
        assert context['type'] == 'context'
        assert context['elements'] == [{'type': 'plain_text', 'emoji': False, 'text': 'not in a request'}]
        assert body['text'] == f'dcim.site {ESCAPED} was created, not in a request'

    def test_teams_gets_a_card_without_markdown(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'teams')
        _place, body = sent(receiver)
        assert body['type'] == 'message'
        (attachment,) = body['attachments']
        assert attachment['contentType'] == 'application/vnd.microsoft.card.adaptive'
        card = attachment['content']
        assert (card['type'], card['version']) == ('AdaptiveCard', '1.4')
        assert {block['type'] for block in card['body']} == {'RichTextBlock'}
        runs = [run for block in card['body'] for run in block['inlines']]
        assert {run['type'] for run in runs} == {'TextRun'}
        assert [run['text'] for run in runs] == [f'dcim.site {HARMFUL}', ' was created', 'not in a request']

    @pytest.mark.parametrize(
        'preset', ['discord', 'googlechat', 'mattermost', 'pagerduty', 'servicenow', 'slack', 'teams']
    )
    def test_people_read_that_a_test_is_one(self, receiver: Receiver, api_client, preset: str):
        made = create(api_client, receiver, preset)
        sent(receiver, 'Bern')
        assert api_client.post(f'{WEBHOOKS}{made["id"]}/test/').json()['status'] == 'delivered'
        change, trial = (request.body.decode() for request in receiver.requests)
        assert 'Test: ' not in change
        assert 'Test: ' in trial

    def test_awx_gets_variables(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'awx')
        place, body = sent(receiver)
        assert body.keys() == {'extra_vars'}
        variables = body['extra_vars']['netbox']
        assert (variables['event'], variables['object_type'], variables['id']) == ('created', 'dcim.site', place.pk)
        assert variables['data']['name'] == HARMFUL
        assert variables['sequence'] > 0
        assert f'Authorization: {receiver.requests[0].header("Authorization")}' == TOKEN

    @pytest.mark.parametrize('preset', ['eda', 'github_form', 'nodered'])
    def test_the_default_payload_is_signed(self, receiver: Receiver, api_client, preset: str):
        create(api_client, receiver, preset)
        _place, body = sent(receiver)
        assert body['data']['name'] == HARMFUL
        signature = hmac.digest(b's3cret', receiver.requests[0].body, 'sha256').hex()
        assert receiver.requests[0].header('X-Hub-Signature-256') == f'sha256={signature}'

    def test_github_gets_ten_keys_at_most(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'github')
        place, body = sent(receiver)
        assert body.keys() == {'event_type', 'client_payload'}
        assert len(body['client_payload']) <= 10
        assert (body['client_payload']['id'], body['client_payload']['display']) == (place.pk, HARMFUL)
        assert receiver.requests[0].header('Accept') == 'application/vnd.github+json'

    def test_gitlab_gets_a_token_and_a_variable(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'gitlab')
        place, body = sent(receiver)
        assert (body['token'], body['ref'], list(body['variables'])) == ('t0ken', 'main', ['NETBOX'])
        variable = json.loads(body['variables']['NETBOX'])
        assert (variable['id'], variable['display'], variable['event']) == (place.pk, HARMFUL, 'created')

    @pytest.mark.parametrize('preset', ['jenkins', 'n8n', 'stackstorm'])
    def test_the_default_payload_is_not_changed(self, receiver: Receiver, api_client, preset: str):
        create(api_client, receiver, preset)
        place, body = sent(receiver)
        assert (body['event'], body['data']['id'], body['data']['name']) == ('created', place.pk, HARMFUL)

    def test_eventbridge_gets_the_signature_that_it_checks(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'eventbridge', secret='whsec_' + 32 * 'A')
        place, body = sent(receiver)
        assert body['data']['id'] == place.pk
        (request,) = receiver.requests
        signed = f'{request.header("webhook-id")}.{request.header("webhook-timestamp")}.'.encode() + request.body
        digest = b64encode(hmac.digest(b64decode(32 * 'A'), signed, 'sha256')).decode()
        assert request.header('webhook-signature') == f'v1,{digest}'

    def test_stackstorm_gets_a_key(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'stackstorm')
        sent(receiver)
        assert receiver.requests[0].header('St2-Api-Key') == 't0ken'

    def test_logstash_gets_no_field_that_it_sets_itself(self, receiver: Receiver, api_client):
        """It sets `event`, `host`, `http`, `url` and `user_agent`, and parses nothing if one is a text."""
        create(api_client, receiver, 'logstash')
        place, body = sent(receiver)
        assert body.keys() == {'netbox'}
        change = body['netbox']
        assert (change['event'], change['object_type'], change['id']) == ('created', 'dcim.site', place.pk)
        assert (change['data']['name'], datetime.fromisoformat(change['timestamp']).tzinfo is None) == (HARMFUL, False)

    def test_mattermost_gets_names_as_code(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'mattermost')
        _place, body = sent(receiver, '@channel `x` *y*')
        assert body == {'text': "`dcim.site @channel 'x' *y*` was created, not in a request"}

    @pytest.mark.parametrize(('preset', 'key'), [('discord', 'content'), ('googlechat', 'text')])
    def test_a_chat_gets_names_as_code(self, receiver: Receiver, api_client, preset: str, key: str):
        create(api_client, receiver, preset)
        _place, body = sent(receiver, '@everyone `x` *y*')
        assert body[key] == "`dcim.site @everyone 'x' *y*` was created, not in a request"
        assert preset != 'discord' or body['allowed_mentions'] == {'parse': []}

    def test_githubs_form_names_event_and_delivery(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'github_form')
        sent(receiver)
        (request,) = receiver.requests
        assert request.header('X-GitHub-Event') == 'netbox'
        assert request.header('X-GitHub-Delivery') == request.header('webhook-id')

    def test_splunk_gets_the_whole_change_as_event(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'splunk')
        place, body = sent(receiver)
        assert receiver.requests[0].header('Authorization') == 'Splunk t0ken'
        assert body['time'] == Event.objects.get().timestamp.timestamp()
        assert (body['event']['event'], body['event']['data']['id']) == ('created', place.pk)

    def test_elasticsearch_gets_one_document_for_each_change(self, receiver: Receiver, api_client):
        url = receiver.url('/netbox-changes/_doc/{{ id }}')
        create(api_client, receiver, 'elasticsearch', payload_url=url)
        place, body = sent(receiver)
        (request,) = receiver.requests
        assert (request.method, request.path) == ('PUT', f'/netbox-changes/_doc/{Event.objects.get().uuid}')
        assert request.header('Authorization') == 'ApiKey t0ken'
        assert (body['event']['action'], body['netbox']['id']) == ('created', place.pk)
        assert datetime.fromisoformat(body['@timestamp']) == Event.objects.get().timestamp

    def test_loki_gets_a_line_with_few_labels(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'loki')
        place, body = sent(receiver)
        (stream,) = body['streams']
        assert stream['stream'] == {'job': 'netbox', 'event': 'created', 'object_type': 'dcim.site'}
        ((moment, line),) = stream['values']
        assert abs(int(moment) / 1e9 - Event.objects.get().timestamp.timestamp()) < 1e-5
        assert (json.loads(line)['id'], json.loads(line)['display']) == (place.pk, HARMFUL)

    def test_rabbitmq_gets_a_message_and_says_whether_a_queue_took_it(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'rabbitmq')
        place, body = sent(receiver)
        assert body['routing_key'] == 'dcim.site.created'
        assert body['properties']['message_id'] == str(Delivery.objects.get().uuid)
        assert json.loads(body['payload'])['data']['id'] == place.pk
        receiver.answers('/', Answer(200, b'{"routed": false}'))
        site(name='Bern', slug='bern')
        work()
        assert Delivery.objects.order_by('pk').last().status == 'pending'

    def test_pagerduty_gets_a_change_event(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'pagerduty')
        place, body = sent(receiver)
        assert body['routing_key'] == 't0ken'
        payload = body['payload']
        assert payload['summary'] == f'dcim.site {HARMFUL} was created'
        assert (payload['source'], payload['custom_details']['id']) == ('NetBox', place.pk)
        assert datetime.fromisoformat(payload['timestamp']).tzinfo

    def test_servicenow_gets_a_record(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'servicenow')
        place, body = sent(receiver)
        (record,) = body['records']
        assert {*map(type, record.values())} == {str}
        assert (record['node'], record['resource']) == (HARMFUL, f'dcim.site {place.pk}')
        assert json.loads(record['additional_info'])['id'] == place.pk

    def test_zabbix_gets_a_value_and_says_whether_it_took_it(self, receiver: Receiver, api_client):
        create(api_client, receiver, 'zabbix')
        place, body = sent(receiver)
        assert (body['jsonrpc'], body['method'], body['id']) == ('2.0', 'history.push', 1)
        (param,) = body['params']
        assert json.loads(param['value'])['id'] == place.pk
        for refusal in (
            b'{"jsonrpc": "2.0", "error": {"code": -32602, "message": "Invalid params."}, "id": 1}',
            b'{"jsonrpc": "2.0", "result": {"response": "success", "data": [{"error": "No item."}]}, "id": 1}',
        ):
            receiver.answers('/', Answer(200, refusal))
            site(name=refusal[:40].decode(), slug=str(len(refusal)))
            work()
            assert Delivery.objects.order_by('pk').last().status == 'pending'

    def test_awx_gets_nothing_until_there_is_a_token(self, api_client, netbox_user, client):
        body = {'name': 'awx', 'preset': 'awx', 'payload_url': NOWHERE, 'type_create': True}
        answer = api_client.post(WEBHOOKS, body, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['additional_headers'])
        assert '<token>' in answer.json()['additional_headers'][0]
        client.force_login(netbox_user)
        for path in ('/plugins/webhooks/webhooks/add/',):
            answer = client.post(path, {**filled(), **all_presets()['awx'].fields})
            assert 'with your own token' in answer.content.decode()
        assert not Webhook.objects.exists()

    def test_a_preset_without_a_url_makes_no_feed(self, api_client, netbox_user, client):
        body = {'name': 'slack', 'preset': 'slack', 'payload_url': NOWHERE, 'type_create': True}
        for path, sent in ((WEBHOOKS, {**body, 'payload_url': ''}), (f'{WEBHOOKS}?omit=payload_url', body)):
            answer = api_client.post(path, sent, format='json')
            assert (answer.status_code, list(answer.json())) == (400, ['payload_url'])
        client.force_login(netbox_user)
        for path in ('/plugins/webhooks/webhooks/add/',):
            assert 'name="preset" value="slack"' in client.get(path, {'preset': 'slack'}).content.decode()
            body = {**filled(), 'payload_url': '', **all_presets()['slack'].fields}
            for _again in range(2):
                answer = client.post(path, {**body, 'preset': 'slack'}).content.decode()
                assert 'Enter the address that Slack gave you' in answer
                assert 'name="preset" value="slack"' in answer
            assert not Webhook.objects.exists()
        client.post('/plugins/webhooks/webhooks/add/', body)
        assert Webhook.objects.get().is_feed

    def test_the_message_of_a_preset_names_the_user(self, receiver: Receiver, api_client, netbox_user):
        for preset in all_presets():
            create(api_client, receiver, preset, path=f'/{preset}')
        with request_by(netbox_user):
            site()
        assert work() == f'{len(all_presets())} delivered'
        request_id = str(Event.objects.get().request_id)
        for request in receiver.requests:
            preset, text = request.path[1:], json.dumps(request.json())
            if preset in ('slack', 'teams'):
                assert text.count('by admin') == (2 if preset == 'slack' else 1), preset
                assert 'not in a request' not in text, preset
            elif preset in ('discord', 'googlechat', 'mattermost'):
                assert 'by `admin`' in text, preset
            else:
                assert 'admin' in text, preset
                assert request_id in text, preset


class TestChosen:
    def test_the_fields_are_ordinary_ones(self, receiver: Receiver, api_client):
        for name, preset in all_presets().items():
            made = create(api_client, receiver, name, http_method='PUT')
            webhook = Webhook.objects.get(pk=made['id'])
            expected = {**preset.fields, 'http_method': 'PUT'}
            headers = webhook.additional_headers
            begun = expected.pop('additional_headers', '')
            assert (headers.reveal() if headers else '') == (TOKEN if name == 'awx' else begun), name
            assert {field: getattr(webhook, field) for field in expected} == expected, name
            assert 'preset' not in made
            answer = api_client.patch(f'{WEBHOOKS}{made["id"]}/', {'body_template': '{}'}, format='json')
            assert answer.json()['body_template'] == '{}', name

    def test_it_is_for_new_webhooks(self, receiver: Receiver, api_client):
        made = create(api_client, receiver, 'slack')
        answer = api_client.patch(f'{WEBHOOKS}{made["id"]}/', {'preset': 'teams'}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['preset'])

    def test_another_name_is_refused(self, receiver: Receiver, api_client):
        answer = api_client.post(WEBHOOKS, {'name': 'x', 'preset': 'nobody'}, format='json')
        assert answer.status_code == 400
        assert 'preset' in answer.json()

    @pytest.mark.parametrize('path', ['/plugins/webhooks/webhooks/add/'])
    def test_the_form_is_filled_in(self, netbox_user, path: str):
        browser = Client()
        browser.force_login(netbox_user)
        plain, filled = [browser.get(path + query).content.decode() for query in ('', '?preset=teams')]
        assert 'AdaptiveCard' in filled
        assert 'AdaptiveCard' not in plain
        assert 'powerplatform' in filled
        assert browser.get(f'{path}?preset=nobody').status_code == 200
        assert Site.objects.count() == 0

    def test_the_page_says_which_is_chosen_and_folds_what_it_fills_in(self, netbox_user):
        browser = Client()
        browser.force_login(netbox_user)
        path = '/plugins/webhooks/webhooks/add/'
        plain, filled = [browser.get(path + query).content.decode() for query in ('', '?preset=teams')]
        assert [page.count('aria-current="true"') for page in (plain, filled)] == [0, 1]
        assert [len(re.findall(r'<details[^>]* open', page)) for page in (plain, filled)] == [0, 0]

    def test_the_form_of_a_preset_begins_with_the_fields_to_fill_in(self, netbox_user):
        browser = Client()
        browser.force_login(netbox_user)
        for name, preset in all_presets().items():
            page = browser.get(f'/plugins/webhooks/webhooks/add/?preset={name}').content.decode()
            first = page[: page.index('<details')]
            for asked in ('name', 'payload_url', *preset.asks):
                assert f'name="{asked}"' in first, name
            assert 'name="object_types_1"' in first, name
            for given in {*preset.fields}.difference(preset.asks):
                assert f'name="{given}"' not in first, name
                assert f'name="{given}"' in page, name
            assert ('name="generate_secret"' in first) is preset.is_signed, name

    def test_one_that_uses_a_credential_asks_for_it(self):
        for preset in all_presets().values():
            uses = any('credential.' in value for value in preset.fields.values() if isinstance(value, str))
            assert not uses or 'credential' in preset.asks

    def test_another_keeps_what_was_typed(self, netbox_user):
        browser = Client()
        browser.force_login(netbox_user)
        types = ContentType.objects.get_for_models(Site, Device).values()
        typed = {
            **filled(),
            'name': 'CMDB <1>',
            'payload_url': 'https://a.example/in',
            'object_types_1': [one.pk for one in types],
            'conditions': '{"attr": "name", "value": "é"}',
            'type_update': '',
            'preset': 'teams',
            **all_presets()['teams'].fields,
            # As a browser sends it.
            'body_template': all_presets()['teams'].fields['body_template'].replace('\n', '\r\n'),
        }
        answer = browser.post(
            '/plugins/webhooks/webhooks/add/', {**typed, '_preset': 'slack'}, headers={'HX-Request': 'true'}
        )
        form = answer.context['form']
        assert form.chosen_preset.name == 'slack'
        page = answer.content.decode()
        assert 'value="CMDB &lt;1&gt;"' in page
        assert 'value="https://a.example/in"' in page
        assert '{&quot;attr&quot;: &quot;name&quot;, &quot;value&quot;: &quot;é&quot;}' in page
        assert 'AdaptiveCard' not in page
        assert 'rich_text' in page
        assert sorted(map(int, form['object_types'].value())) == sorted(one.pk for one in types)
        assert not form['type_update'].value()
        assert form['type_create'].value()
        assert not Webhook.objects.exists()

    @pytest.mark.parametrize('path', ['/plugins/webhooks/webhooks/add/'])
    def test_it_needs_a_url(self, netbox_user, path: str):
        browser = Client()
        browser.force_login(netbox_user)
        answer = browser.post(path, {**filled(), 'payload_url': '', 'preset': 'teams'})
        assert 'Enter the address that Microsoft Teams gave you' in answer.content.decode()
        assert not Webhook.objects.exists()

    def test_it_needs_a_url_in_the_rest_api_too(self, api_client):
        body = {'name': 'x', 'preset': 'teams', 'payload_url': '', 'type_create': True}
        answer = api_client.post(WEBHOOKS, body, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['payload_url'])

    def test_the_page_of_a_webhook_that_is_there_offers_none(self, netbox_user):
        browser = Client()
        browser.force_login(netbox_user)
        webhook = subscribe(NOWHERE, Site)
        page = browser.get(f'/plugins/webhooks/webhooks/{webhook.pk}/edit/').content.decode()
        assert webhook.name in page
        assert '?preset=' not in page

    @pytest.mark.parametrize('path', ['/plugins/webhooks/webhooks/add/'])
    def test_the_page_offers_them(self, netbox_user, path: str):
        browser = Client()
        browser.force_login(netbox_user)
        page = browser.get(path).content.decode()
        for preset in all_presets().values():
            assert f'?preset={preset.name}"' in page
            assert preset.label in page
