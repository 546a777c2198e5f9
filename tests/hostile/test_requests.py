"""schemathesis makes requests from the API's description, with existing ids.

`scripts/test --fuzz` sends ten thousand as superuser and clerk; otherwise a few, always the same.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from dcim.models import Device, Site
from django.contrib.contenttypes.models import ContentType
from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator
from extras.models import NotificationGroup
from rest_framework.test import APIClient
from schemathesis import GenerationMode
from support.admin_browser import filled, page_of
from support.builders import NOWHERE, site, subscribe
from support.log import change_set, delivery, event

from devstack.receiver import Receiver
from webhooks.api.urls import urlpatterns
from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Event, Health, Webhook

HOME = 'api/plugins/webhooks/'
# Requests for an operation in its turn, at most.
MOST_IN_A_ROW = 5
# Seconds: no request may hold a web thread longer.
PATIENCE = 30


class World:
    """A deleted webhook is made anew."""

    def __init__(self, receiver: Receiver, user: Any) -> None:
        self._url = receiver.url('/')
        place = site(name='Bern')
        self._webhooks = [subscribe(self._url, Site, name=f'Webhook {number}').pk for number in range(2)]
        events = [event(place, username=user.username), event(place, error='no such thing', data='')]
        webhook = Webhook.objects.get(pk=self._webhooks[0])
        deliveries = [delivery(one, webhook, status=status) for one in events for status in StatusChoices.values()]
        deliveries += change_set(events, webhook)
        group = NotificationGroup.objects.create(name='Operators')
        self._ids = {
            'webhooks': self._webhooks,
            'events': [one.pk for one in events],
            'deliveries': [one.pk for one in deliveries],
        }
        self._columns = {
            'id': sorted({pk for ids in self._ids.values() for pk in ids}),
            'webhook_id': self._webhooks,
            'event_id': self._ids['events'],
            'delivery_id': self._ids['deliveries'],
            'object_id': [place.pk],
            'object_type': ['dcim.site', 'dcim.device', 'auth.user'],
            'object_type_id': [one.pk for one in ContentType.objects.get_for_models(Site, Device).values()],
            'object_types': ['dcim.site', 'dcim.device'],
            'ignore_users': [user.pk],
            'ignore_user_id': [user.pk],
            'notification_groups': [group.pk],
            'notification_group_id': [group.pk],
            'ordering': ['id', '-id', 'name', 'status', '-created', 'object_repr', '-object_id', 'dispatched_at'],
        }
        self._texts = {
            # Made-up URLs are invalid, so requests go nowhere else.
            'payload_url': [
                self._url,
                f'{self._url}?key=k3y',
                f'{self._url}{{{{ data.name }}}}',
                'http://127.0.0.1:9/',
            ],
            'additional_headers': ['X-A: {{ data.name }}', 'X-A: ********', 'A: b\nC: d', 'X-A: {% for %}'],
            'body_template': ['{{ data.name }}', '{{ data | tojson }}', '{% for %}', '{{ 1 / 0 }}'],
            'secret': ['whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0', 'whsk_', '********', 'summer2026'],
            'http_content_type': ['application/json', 'application/x-www-form-urlencoded', 'a/b\r\nX: y'],
        }
        self._conditions = {'and': [{'attr': 'name', 'op': 'regex', 'value': '(a+)+$'}]}

    def ids(self, path: str) -> list[int]:
        return self._ids[path.split('/')[4]]

    def restore(self) -> None:
        for pk in set(self._webhooks) - set(Webhook.objects.values_list('pk', flat=True)):
            # A worker would do this later. The log is found by the webhook's number.
            Health._base_manager.filter(webhook=pk).delete()
            subscribe(self._url, Site, name=f'Webhook {pk} again', pk=pk)

    def describe(self, schema: dict[str, Any]) -> None:
        """Fill in existing values where the description leaves them open."""
        for operation in _operations(schema):
            operation.pop('security', None)
            for parameter in operation.get('parameters', ()):
                _name(parameter['schema'], self._columns.get(parameter['name']))
        for component in schema['components']['schemas'].values():
            properties = component.get('properties', {})
            for name, values in (self._columns | self._texts).items():
                _name(properties.get(name, {}), values)
            if 'conditions' in properties:
                properties['conditions'] = {'anyOf': [{'enum': [None, self._conditions]}, {'type': 'object'}]}


def _name(schema: dict[str, Any], values: list[Any] | None) -> None:
    if values is None or not schema:
        return
    target = schema.get('items', schema)
    kind = {'type': target['type']} if 'type' in target else {}
    target.clear()
    target.update({'anyOf': [{'enum': values}, {'enum': values}, kind]})


def _operations(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for item in schema['paths'].values() for operation in item.values())


@pytest.fixture
def world(committed: None, receiver: Receiver, netbox_user: Any) -> World:
    return World(receiver, netbox_user)


@pytest.fixture
def operations(world: World) -> list[Any]:
    patterns = [path(HOME, include((urlpatterns, 'webhooks-api')))]
    generated = SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
    schema = json.loads(json.dumps(generated, default=str))
    world.describe(schema)
    return [found.ok() for found in schemathesis.openapi.from_dict(schema).get_all_operations()]


@pytest.fixture
def tokens(api_client: Any, clerk_api: Any, grant: Any) -> dict[str, str]:
    """The clerk may do everything with webhooks, but view no object."""
    grant(Webhook, 'view', 'add', 'change', 'delete', 'test', 'replay')
    grant(Delivery, 'view', 'redeliver')
    grant(Event, 'view')
    clients = {'admin': api_client, 'clerk': clerk_api}
    return {name: client._credentials['HTTP_AUTHORIZATION'] for name, client in clients.items()}


@pytest.mark.parametrize('who', ['admin', 'clerk'])
def test_no_request_is_answered_with_a_failure_of_the_server(
    netbox_server, world, operations, tokens, who, pytestconfig
):
    wanted = pytestconfig.getoption('--fuzz') // 2
    assert len(operations) > 15
    in_a_row = min(-(-wanted // len(operations)), MOST_IN_A_ROW)
    answers: list[tuple[int, str]] = []
    with requests.Session() as session:
        session.headers['Authorization'] = tokens[who]
        for turn in itertools.count():
            for operation in operations:
                for case in _cases(operation, world, turn, in_a_row):
                    world.restore()
                    answer = case.call(netbox_server.url, session=session, timeout=PATIENCE)
                    answers.append((answer.status_code, f'{case.as_curl_command()}\n{answer.text[:2000]}'))
            if len(answers) >= wanted:
                break
    assert not [request for status, request in answers if status >= 500]
    assert {200, 201, 204, 400, 404} <= {status for status, _request in answers}


def _cases(operation: Any, world: World, turn: int, in_a_row: int) -> list[Any]:
    """Return valid or invalid requests, the same for each turn."""
    mode = GenerationMode.NEGATIVE if turn % 3 == 2 else GenerationMode.POSITIVE
    fixed = {}
    if '{id}' in operation.path and turn % 5:
        ids = world.ids(operation.path)
        fixed = {'path_parameters': {'id': ids[turn % len(ids)]}}
    made: list[Any] = []

    @hypothesis.seed(turn)
    @hypothesis.settings(
        max_examples=in_a_row,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(operation.as_strategy(mode, **fixed))
    def collect(case: Any) -> None:
        made.append(case)

    # With its only parameter given, a request cannot be wrong.
    with suppress(hypothesis.errors.Unsatisfiable):
        collect()
    return made


#
# Undescribed shapes
#

# Nested lists: deeper than Python reads, and just within.
TOO_DEEP, DEEP = ('[' * depth + ']' * depth for depth in (100_000, 900))
OUT_OF_RANGE = 10**30


@pytest.fixture
def ask(db: None, api_client: Any, netbox_user: Any) -> Any:
    """A failure is an answer, too."""
    client = APIClient(raise_request_exception=False)
    client.force_login(netbox_user)
    client.credentials(**api_client._credentials)
    return client


class TestNesting:
    @pytest.mark.parametrize('path', ['', '{}/', '{}/replay/', '{}/rotate-secret/', '{}/preview/'])
    @pytest.mark.parametrize('body', [TOO_DEEP, f'{{"conditions": {TOO_DEEP}}}', f'[{{"id": {TOO_DEEP}}}]'])
    def test_json_that_is_nested_too_deeply_is_refused(self, ask, path: str, body: str):
        path = f'/{HOME}webhooks/{path.format(subscribe(NOWHERE, Site).pk)}'
        for send in (ask.post, ask.patch, ask.put):
            assert send(path, body, content_type='application/json').status_code in (400, 405)

    @pytest.mark.parametrize('name', ['conditions', 'custom_fields', 'object_types', 'tags', 'name', 'ignore_users'])
    def test_so_is_a_field(self, ask, name: str):
        path = f'/{HOME}webhooks/{subscribe(NOWHERE, Site).pk}/'
        for value in (DEEP, f'{{"and": {DEEP}}}', '{"and": [' * 400 + ']}' * 400):
            answer = ask.patch(path, f'{{"{name}": {value}}}', content_type='application/json')
            assert answer.status_code == 400, answer.content[:1000]
            assert list(answer.data) == [name]

    @pytest.mark.parametrize('value', [TOO_DEEP, DEEP])
    def test_so_it_is_in_forms(self, ask, value: str):
        webhook = subscribe(NOWHERE, Site)
        for page in (f'/plugins/webhooks/webhooks/{webhook.pk}/edit/', page_of(webhook)):
            answer = ask.post(page, filled(conditions=value))
            assert answer.status_code == 200
            form = answer.context['form'] if page.startswith('/plugins/') else answer.context['adminform'].form
            assert list(form.errors) == ['conditions']

    @pytest.mark.parametrize('depth', [30_000, 900])
    def test_so_it_is_in_an_import(self, ask, depth: int):
        value = '[' * depth + ']' * depth
        lines = f'name,payload_url,object_types,type_create,conditions\nOne,{NOWHERE},dcim.site,true,"{value}"'
        page = '/plugins/webhooks/webhooks/import/'
        answer = ask.post(page, {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
        assert answer.status_code == 200
        assert 'conditions' in answer.content.decode()
        assert not Webhook.objects.exists()


@pytest.mark.parametrize('name', ['webhooks', 'deliveries', 'events'])
@pytest.mark.parametrize(
    ('place', 'queries'),
    [
        (HOME, ['offset={}', 'limit={}', 'limit=-{}', 'id={}', 'offset=-{}&limit=0']),
        ('plugins/webhooks/', ['id={}', 'page={}', 'per_page={}']),
    ],
)
def test_numbers_out_of_range_find_nothing(ask, name: str, place: str, queries: list[str]):
    for number in (OUT_OF_RANGE, 2**63, 2**31):
        assert ask.get(f'/{place}{name}/{number}/').status_code == 404
        for query in queries:
            assert ask.get(f'/{place}{name}/?{query.format(number)}').status_code < 500
