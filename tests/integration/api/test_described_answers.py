"""Each answer is as the OpenAPI schema describes it: generated clients read no other."""

import json
from typing import Any

import pytest
import requests
import schemathesis
from core.models import DataSource
from dcim.models import Site
from django.urls import include, path
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from webhooks.api.urls import urlpatterns
from webhooks.choices import StatusChoices
from webhooks.models import Webhook

HOME = '/api/plugins/webhooks/'


@pytest.fixture
def operations(committed: None) -> dict[tuple[str, str], Any]:
    """Return what schemathesis makes of each request of the schema, by method and path below HOME."""
    patterns = [path(HOME.strip('/') + '/', include((urlpatterns, 'webhooks-api')))]
    schema = json.loads(json.dumps(SchemaGenerator(patterns=patterns).get_schema(public=True), default=str))
    found = [one.ok() for one in schemathesis.openapi.from_dict(schema).get_all_operations()]
    return {(one.method.upper(), one.path.removeprefix(HOME)): one for one in found}


class Program:
    """Sends requests, and holds each answer to the schema."""

    def __init__(self, url: str, token: str, operations: dict[tuple[str, str], Any]) -> None:
        self._url, self._operations = url, operations
        self._session = requests.Session()
        self._session.headers['Authorization'] = token
        self.unused = set(operations)

    def send(self, method: str, described: str, pk: int = 0, body: object = None, status: int = 200) -> Any:
        url = f'{self._url}{HOME[1:]}{described}'.format(id=pk)
        answer = self._session.request(method, url, json=body, timeout=60)
        assert answer.status_code == status, f'{method} {url}: {answer.text[:500]}'
        self._operations[method, described].validate_response(answer)
        self.unused.discard((method, described))
        return answer.json() if answer.content else None


@pytest.fixture
def program(netbox_server, api_token, operations) -> Program:
    return Program(netbox_server.url, api_token, operations)


def test_each_answer_is_as_the_schema_describes_it(program, receiver):
    place = site(name='Bern')
    log = delivery(event(place), attempts=1)
    send = program.send
    for name, pk in (('events', log.event_id), ('deliveries', log.pk)):
        send('GET', f'{name}/')
        send('GET', f'{name}/{{id}}/', pk)

    login = {'name': 'AWX', 'type': 'bearer', 'hosts': ['http://127.0.0.1'], 'secret': 's3cret'}
    webhook = {'name': 'CMDB', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_update': True}
    source = DataSource.objects.create(name='infra', type='local', source_url='/srv/infra')
    file = {'name': 'Team', 'data_source': source.pk, 'path': 'webhooks.yaml'}
    kinds = {'credentials': login, 'webhooks': webhook, 'definitions': file}
    made = {name: manage(program, name, fields) for name, fields in kinds.items()}

    send('POST', 'definitions/{id}/apply/', made['definitions'], status=201)
    act_on_webhook(program, made['webhooks'], place)
    read_feed(program)
    redeliver(program)
    program.send('GET', 'webhooks/asyncapi/')
    apply_document(program)
    assert not program.unused


def manage(program: Program, name: str, fields: dict[str, Any]) -> int:
    """Create, read, change and delete, one and many at a time. Return the id of the one that is left."""
    send, one = program.send, f'{name}/{{id}}/'
    pk = send('POST', f'{name}/', body=fields, status=201)['id']
    other = send('POST', f'{name}/', body={**fields, 'name': 'other'}, status=201)['id']
    send('GET', f'{name}/')
    send('GET', one, pk)
    send('PUT', one, pk, fields)
    send('PATCH', one, pk, {'description': 'changed'})
    send('DELETE', one, other, status=204)
    for method, body in (('PUT', [{**fields, 'id': pk}]), ('PATCH', [{'id': pk, 'description': 'again'}])):
        send(method, f'{name}/', body=body)
    other = send('POST', f'{name}/', body={**fields, 'name': 'another'}, status=201)['id']
    send('DELETE', f'{name}/', body=[{'id': other}], status=204)
    return pk


def act_on_webhook(program: Program, pk: int, place: Site) -> None:
    send, one = program.send, 'webhooks/{id}/'
    send('POST', f'{one}test/', pk, status=201)
    send('GET', f'{one}preview/', pk)
    send('GET', f'{one}schema/', pk)
    send('POST', f'{one}preview/', pk, {'body_template': '{{ data.name }}'})
    send('GET', f'{one}waiting/', pk)
    send('POST', f'{one}waiting/', pk, {'latest_only': True})
    send('POST', f'{one}rotate-secret/', pk, {})
    chosen = {'object_type': 'dcim.site', 'ids': [place.pk]}
    send('POST', f'{one}send-now/', pk, {**chosen, 'dry_run': True})
    send('POST', f'{one}send-now/', pk, chosen, status=201)
    send('GET', f'{one}backfill/', pk, status=404)
    send('POST', f'{one}backfill/', pk, {'dry_run': True})
    send('POST', f'{one}backfill/', pk, {}, status=201)
    for move in ('pause', 'resume', 'cancel'):
        send('POST', f'{one}backfill/{move}/', pk)
    send('GET', f'{one}backfill/', pk)
    period = {'since': '2026-01-01T00:00:00Z', 'status': 'failed'}
    send('POST', f'{one}replay/', pk, {**period, 'dry_run': True})
    send('POST', f'{one}replay/', pk, period)


def apply_document(program: Program) -> None:
    document = {
        'source': 'team',
        'webhooks': [
            {
                'name': 'Active sites',
                'object_types': ['dcim.site'],
                'type_update': True,
                'payload_url': NOWHERE,
                'filters': {'dcim.site': 'status=active'},
            }
        ],
    }
    assert program.send('POST', 'apply/', body=document)['changes']
    pk = Webhook.objects.get(name='Active sites').pk
    program.send('GET', 'webhooks/{id}/members/', pk)
    program.send('POST', 'webhooks/{id}/compare/', pk, {'dry_run': True})


def read_feed(program: Program) -> None:
    feed = subscribe('', Site)
    delivery(event(site()), feed, status=StatusChoices.DELIVERED, position=1, error='', finished_at=timezone.now())
    page = program.send('GET', 'webhooks/{id}/feed/', feed.pk)
    assert len(page['items']) == 1


def redeliver(program: Program) -> None:
    send = program.send
    assert send('GET', 'failures/')['results'][0]['count'] == 1
    send('POST', 'failures/redeliver/', body={'dry_run': True})
    send('POST', 'failures/redeliver/', body={})
    send('POST', 'deliveries/{id}/redeliver/', delivery(event(site()), subscribe(NOWHERE, Site)).pk)
