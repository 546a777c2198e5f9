import json
import re
from pathlib import Path
from typing import Any

import pytest
from core.models import ObjectType
from dcim.models import Site
from extras.models import CustomField
from standardwebhooks import Webhook as Verifier
from support.builders import NOWHERE, site, subscribe
from support.builtin import request_by
from support.engine import deliveries, dispatch_all, work
from support.log import event

from devstack.receiver import Received, Receiver
from webhooks.models import Attempt, Event, Webhook
from webhooks.payload import formats
from webhooks.services import redelivery
from webhooks.templating import renderer

DOCUMENTATION = Path(__file__).parents[3] / 'docs' / 'templates.md'

pytestmark = pytest.mark.usefixtures('committed')


def received(receiver: Receiver, count: int = 1) -> list[Received]:
    work()
    return receiver.wait_for(count)


def failure() -> str:
    work()
    (delivery,) = deliveries('failed')
    assert delivery.attempts.get().error == delivery.error
    return delivery.error


class TestRendered:
    def test_url_headers_and_body_are_rendered(self, receiver: Receiver, netbox_user):
        subscribe(
            receiver.url('/{{ object_type }}/{{ event }}?id={{ data.id }}'),
            Site,
            additional_headers='X-Object: {{ data.name | header_safe }}\nX-Plain: plain\nX-User: {{ username }}',
            body_template='{"text": {{ (username ~ " " ~ event ~ " " ~ data.display) | tojson }}}',
            http_content_type='application/vnd.chat+json',
        )
        with request_by(netbox_user):
            place = site(name='Genève "1"')
        (request,) = received(receiver)
        assert request.target == f'/dcim.site/created?id={place.pk}'
        assert request.header('X-Object') == 'Genève "1"'
        assert (request.header('X-Plain'), request.header('X-User')) == ('plain', 'admin')
        assert request.header('Content-Type') == 'application/vnd.chat+json'
        assert request.json() == {'text': 'admin created Genève "1"'}

    def test_a_missing_value_is_null_in_json(self, receiver: Receiver):
        values = '[{{ data.tenant.name | tojson }}, {{ data.nothing | tojson }}, {{ [data.region.slug] | tojson }}]'
        subscribe(receiver.url('/'), Site, body_template=values)
        site()
        assert received(receiver)[0].json() == [None, None, [None]]

    def test_they_see_the_names_of_netbox_and_ours(self, receiver: Receiver, netbox_user):
        names = (
            'event', 'timestamp', 'object_type', 'model', 'data', 'request', 'snapshots', 'username', 'request_id',
            'id', 'sequence', 'signal_received_timestamp',
        )  # fmt: skip
        template = '{' + ', '.join(f'"{name}": {{{{ {name} | tojson }}}}' for name in names) + '}'
        subscribe(receiver.url('/'), Site, body_template=template, include_snapshots=True)
        with request_by(netbox_user, '/dcim/sites/add/'):
            place = site(name='Bern')
        (request,) = received(receiver)
        seen, event = request.json(), Event.objects.get()
        assert (seen['event'], seen['object_type'], seen['model']) == ('created', 'dcim.site', 'site')
        assert seen['timestamp'] == event.timestamp.isoformat()
        assert seen['signal_received_timestamp'] == event.timestamp.timestamp()
        assert seen['data']['id'] == place.pk
        assert seen['request']['path'] == '/dcim/sites/add/'
        assert seen['snapshots']['postchange']['name'] == 'Bern'
        assert (seen['username'], seen['request_id']) == ('admin', str(event.request_id))
        assert (seen['id'], seen['sequence']) == (str(event.uuid), event.sequence)

    @pytest.mark.parametrize(
        ('fields', 'is_seen'),
        [
            ({}, False),
            ({'include_snapshots': True}, True),
            ({'conditions': {'attr': 'name', 'value': 'Bern'}}, True),
        ],
    )
    def test_snapshots_that_another_webhook_has_asked_for_are_not_seen(self, receiver: Receiver, fields, is_seen):
        subscribe(receiver.url('/other'), Site, include_snapshots=True)
        subscribe(receiver.url('/'), Site, body_template='{{ snapshots | tojson }}', **fields)
        site(name='Bern')
        [seen] = [request.json() for request in received(receiver, 2) if request.path == '/']
        assert ('Bern' in json.dumps(seen)) is is_seen
        assert is_seen or seen is None

    def test_the_signature_is_of_what_was_rendered(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, body_template='{"name": {{ data.name|tojson }}}', secret='plain')
        site(name='Bern')
        (request,) = received(receiver)
        names = {name.lower(): value for name, value in request.headers}
        assert Verifier(b'plain').verify(request.body, names) == {'name': 'Bern'}

    def test_a_secret_in_a_header_is_not_in_the_log(self, receiver: Receiver):
        subscribe(receiver.url('/?key=hush'), Site, additional_headers='Authorization: Token hush-{{ event }}')
        site()
        (request,) = received(receiver)
        assert request.header('Authorization') == 'Token hush-created'
        assert 'hush' not in json.dumps(list(Attempt.objects.values()), default=str)


class TestFailing:
    def test_a_wrong_body_template_names_its_line_and_nothing_is_sent(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, body_template='one\n{{ data.tenant.name }}\n{{ data.nothing.more }}')
        site()
        error = failure()
        assert error.startswith('not sent: body_template: UndefinedError: ')
        assert error.endswith('(line 3)')
        assert receiver.requests == []

    @pytest.mark.parametrize('text', ['one\r\nX-Evil: two', 'one\nHost: elsewhere.example.com', 'one\x00', 'one\x7f'])
    def test_a_header_to_which_an_object_would_add_another_fails(self, receiver: Receiver, text: str):
        subscribe(receiver.url('/'), Site, additional_headers='X-Name: {{ data.comments }}')
        site(comments=text.replace('\x00', '\x01'))
        reason = 'The value of X-Name contains a control character or a line break.'
        assert failure() == f'not sent: additional_headers: {reason}'
        assert receiver.requests == []

    def test_header_safe_lets_it_go(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, additional_headers='X-Name: {{ data.comments | header_safe }}')
        site(comments='one\r\nX-Evil: two')
        (request,) = received(receiver)
        assert request.header('X-Name') == 'oneX-Evil: two'
        assert request.header('X-Evil') is None

    def test_a_header_that_is_no_latin_fails(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, additional_headers='X-Name: {{ data.name }}')
        site(name='東京')
        assert 'The value of X-Name contains a character that is not allowed in headers.' in failure()

    @pytest.mark.parametrize(
        ('url', 'reason'),
        [
            ('{{ data.comments }}', 'payload_url: Enter a URL that begins with http:// or https://'),
            (
                'http://{{ data.nothing }}/',
                'payload_url: Enter a URL that begins with http:// or https:// and has a host',
            ),
            ('http://127.0.0.1:9/{{ data.name }}', 'payload_url: Enter a valid URL, without spaces'),
            ('http://127.0.0.1:9/{{ data.nothing.more }}', 'payload_url: UndefinedError'),
            (r'http://127.0.0.1:9/{{ "\ud800" }}', 'payload_url: the result contains a character'),
            (r'http://127.0.0.1:9/{{ "x"|replace(**{"\x00": 1}) }}', 'payload_url: TypeError'),
        ],
    )
    def test_a_url_that_cannot_be_called_fails(self, url: str, reason: str):
        subscribe(url, Site)
        site(name='a b', comments='file:///etc/passwd')
        assert reason in failure()

    def test_a_template_that_runs_on_fails(self, receiver: Receiver, monkeypatch):
        monkeypatch.setattr(renderer, 'KILL_MARGIN_SECONDS', 60.0)  # a busy machine starts its process late
        loops = '{% for a in range(99999) %}' * 2 + '{% endfor %}' * 2
        subscribe(receiver.url('/slow'), Site, body_template=loops)
        subscribe(receiver.url('/fine'), Site)
        site()
        assert 'the template takes more than 2 seconds (line 1)' in failure()
        assert [request.path for request in receiver.requests] == ['/fine']

    def test_a_delivery_goes_out_once_its_template_is_mended(self, receiver: Receiver):
        webhook = subscribe(receiver.url('/'), Site, body_template='{{ 1 / 0 }}')
        site()
        failure()
        Webhook.objects.filter(pk=webhook.pk).update(body_template='mended')
        redelivery.redeliver(redelivery.select(webhook))
        (request,) = received(receiver)
        assert request.body == b'mended'


def test_a_template_that_changes_its_context_changes_no_other(receiver: Receiver):
    """Other templates and requests see the original context."""
    change: dict[str, Any] = {'body_template': "{% set _ = data.update({'name': 'changed'}) %}{{ data.name }}"}
    subscribe(receiver.url('/'), Site, **change)
    subscribe(receiver.url('/'), Site, body_template='{{ data.name }}')
    site(name='as it is')
    assert sorted(request.body for request in received(receiver, 2)) == [b'as it is', b'changed']


class TestDocumentation:
    @pytest.fixture
    def blocks(self) -> list[str]:
        text = DOCUMENTATION.read_text()
        return re.findall(r'```\w*\n(.*?)\n```', text, re.DOTALL)

    def test_the_example_of_the_docs_renders(self, receiver: Receiver, netbox_user, blocks: list[str]):
        field = CustomField.objects.create(name='cost_center', type='text')
        field.object_types.set([ObjectType.objects.get_for_model(Site)])
        template, sent, *_rest = blocks
        webhook = subscribe(
            receiver.url("/rooms/{{ data.tenant.slug or 'noc' }}"),
            Site,
            additional_headers='X-Object: {{ data.name | header_safe }}',
            body_template=template,
        )
        with request_by(netbox_user):
            site(name='Berlin 1', custom_field_data={'cost_center': '4711'})
        (request,) = received(receiver)
        head, body = sent.split('\n\n', 1)
        assert request.body.decode() == body
        assert request.target == '/rooms/noc'
        for line in head.splitlines()[1:]:
            name, value = line.split(': ')
            assert request.header(name) == value
        assert webhook.additional_headers.reveal() in DOCUMENTATION.read_text()

    def test_the_docs_name_all_that_is_seen(self):
        webhook = subscribe(NOWHERE, Site, include_snapshots=True)
        marks = {
            'test': True, 'backfill_for': 1, 'partial': ['a'], 'caused_by': ['dcim.interface'],
            'changelog_message': 'm',
            'request': {'path': '/', 'user': 'admin', 'GET': ''}, 'snapshots': {'prechange': None, 'postchange': {}},
        }  # fmt: skip
        seen = json.loads(formats.template_context(webhook, [event(site(), **marks)])).keys()
        table = DOCUMENTATION.read_text().partition('## What they see')[2].partition('\n## ')[0]
        assert {'caused_by', 'backfill'} <= seen
        assert seen <= set(re.findall(r'`(\w+)`', table))

    def test_the_conditions_of_the_docs_hold(self, blocks: list[str]):
        (conditions,) = [json.loads(block) for block in blocks if block.startswith('{\n  "and"')]
        subscribe(NOWHERE, Site, conditions=conditions)
        place = site(status='planned')
        for fields in ({'name': 'x'}, {'status': 'active'}, {'name': 'y'}):
            for name, value in fields.items():
                setattr(place, name, value)
            place.save()
        dispatch_all()
        assert [one.event.payload_data['status']['value'] for one in deliveries()] == ['active']
        assert [one.event.payload_data['name'] for one in deliveries()] == ['x']

    def test_the_error_of_the_docs_is_what_is_said(self, receiver: Receiver, blocks: list[str]):
        subscribe(receiver.url('/'), Site, body_template='\n\n{{ data.status.site.name }}')
        site()
        assert failure() in blocks
