import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dcim.models import Rack, Site
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from extras.models import NotificationGroup
from support.builders import NOWHERE, site, subscribe
from support.log import change_set, delivery, event
from utilities.testing import APIViewTestCases
from utilities.testing.api import GraphQLFilterTest

from webhooks.models import Delivery, Event, Health, Webhook
from webhooks.models.delivery import UNFORMED

PAGE = Path(__file__).parents[3] / 'docs/extending.md'
MASK = '********'
SECRET_WORDS = ('pa55word', 't0ken', 'b3arer', 's3cret')


#
# NetBox's own tests
#


class TestWebhookQueries(APIViewTestCases.GraphQLTestCase):
    model = Webhook
    graphql_base_name = 'webhooks_webhook'
    graphql_filter_tests = (
        GraphQLFilterTest('health', 'health: {suspended_since: {is_null: true}}', lambda webhooks: webhooks),
        GraphQLFilterTest('type', 'object_types: {model: {exact: "rack"}}', {'name': 'Webhook 2'}),
        GraphQLFilterTest('format', 'payload_format: {exact: FORMAT_CLOUDEVENTS}', {'name': 'Webhook 2'}),
        GraphQLFilterTest('method', 'http_method: {exact: PUT}', {'name': 'Webhook 2'}),
    )

    @classmethod
    def setUpTestData(cls):
        for number in range(2):
            subscribe(NOWHERE, Site, name=f'Webhook {number}', description='first', timeout=5)
        subscribe(NOWHERE, Rack, name='Webhook 2', payload_format='cloudevents', http_method='PUT', rate_limit=7)

    def _build_query_with_filter(self, name, filter_string):
        """Health and notification groups show no id."""
        query = super()._build_query_with_filter(name, filter_string)
        return query.replace('health { id }', 'health { delivered }').replace('_groups { id }', '_groups { display }')


class TestEventQueries(APIViewTestCases.GraphQLTestCase):
    model = Event
    graphql_base_name = 'webhooks_event'
    graphql_filter_tests = (
        GraphQLFilterTest('kind', 'kind: {exact: KIND_CREATED}', {'kind': 'created'}),
        GraphQLFilterTest('type', 'object_type: {model: {exact: "site"}}', lambda events: events),
    )

    @classmethod
    def setUpTestData(cls):
        for kind in ('created', 'updated', 'deleted'):
            event(site(), kind=kind, username=kind)


class TestDeliveryQueries(APIViewTestCases.GraphQLTestCase):
    model = Delivery
    graphql_base_name = 'webhooks_delivery'
    graphql_filter_tests = (
        GraphQLFilterTest('status', 'status: {in_list: [STATUS_PENDING]}', {'status': 'pending'}),
        GraphQLFilterTest(
            'webhook',
            'webhook: {name: {exact: "Webhook 1"}}',
            {'webhook__name': 'Webhook 1'},
            permissions=('webhooks.view_webhook',),
        ),
        GraphQLFilterTest(
            'event',
            'event: {kind: {exact: KIND_UPDATED}}',
            {'event__kind': 'updated'},
            permissions=('webhooks.view_event',),
        ),
    )

    @classmethod
    def setUpTestData(cls):
        for number, status in enumerate(('pending', 'delivered', 'failed')):
            delivery(event(site()), subscribe(NOWHERE, Site, name=f'Webhook {number}'), status=status)


#
# Shown fields
#


def ask(client, query, *, errors=False):
    answer = client.post('/graphql/', {'query': query}, format='json')
    assert answer.status_code == 200, answer.content
    content = json.loads(answer.content)
    assert ('errors' in content) is errors, content.get('errors')
    return content['data']


def names_of(client, name, kind):
    shown = ask(client, f'{{ __type(name: "{name}") {{ {kind} {{ name }} }} }}')
    return {field['name'] for field in shown['__type'][kind]}


LOG = """{ webhooks_delivery_list {
    id uuid status next_attempt_at restricted
    webhook { name } event { object_repr sequence restricted data object_type { app_label model } object_id }
    attempts { number duration response_status error url request_headers response_headers response_body } } }"""


def test_no_answer_shows_a_secret(api_client):
    headers = 'Authorization: Bearer b3arer'
    url = 'https://user:pa55word@a.example/in?token=t0ken'
    webhook = subscribe(url, Site, name='Secretive', additional_headers=headers, secret='s3cret')
    delivery(event(site()), webhook)
    names = names_of(api_client, 'WebhooksWebhookType', 'fields')
    assert [name for name in names if 'secret' in name] == ['secret_path']
    [shown] = ask(
        api_client, '{ webhooks_webhook_list { payload_url additional_headers public_key changelog { id } } }'
    )['webhooks_webhook_list']
    assert shown['payload_url'] == f'https://{MASK}@a.example/in?token={MASK}'
    assert shown['additional_headers'] == f'Authorization: {MASK}'
    log = json.dumps(ask(api_client, LOG))
    assert not [word for word in SECRET_WORDS if word in json.dumps(shown) + log]


def test_no_filter_reveals_masked_or_restricted_values(api_client):
    hidden = ('payload_url', 'additional_headers', 'secret', 'previous_secret')
    hidden += ('data', 'snapshot', 'prechange', 'snapshots', 'request', 'attempts')
    for name, known in (('Webhook', 'name'), ('Event', 'kind'), ('Delivery', 'status')):
        filters = names_of(api_client, f'Webhooks{name}Filter', 'inputFields')
        assert known in filters
        assert not {*hidden} & filters


def test_netboxs_own_webhooks_keep_their_names(api_client):
    assert 'owner' in names_of(api_client, 'WebhookType', 'fields')
    assert ask(api_client, '{ webhook_list { id } }') == {'webhook_list': []}


def test_a_delivery_is_shown_with_its_webhook_event_and_attempts(api_client):
    place = site(name='Bern')
    log = delivery(event(place), subscribe(NOWHERE, Site, name='CMDB'), attempts=2)
    [shown] = ask(api_client, LOG)['webhooks_delivery_list']
    assert (shown['id'], shown['uuid'], shown['status']) == (str(log.pk), str(log.uuid), 'failed')
    assert shown['webhook'] == {'name': 'CMDB'}
    assert shown['event']['object_type'] == {'app_label': 'dcim', 'model': 'site'}
    assert shown['event']['object_id'] == place.pk
    assert shown['event']['data'] == {'id': place.pk, 'name': 'Bern'}
    assert [one['number'] for one in shown['attempts']] == [1, 2]
    assert shown['attempts'][0]['response_body'] == 'the answer of the receiver'
    assert shown['attempts'][0]['request_headers']['webhook-id'] == str(log.uuid)


def test_the_query_in_the_docs_is_answered(api_client):
    delivery(event(site(name='Bern')), created=datetime(2026, 12, 1, tzinfo=UTC))
    query = PAGE.read_text().partition('```graphql\n')[2].partition('```')[0]
    [shown] = ask(api_client, query)['webhooks_delivery_list']
    assert shown['event']['object_repr'] == 'Bern'


def test_a_webhook_is_shown_with_its_health_and_what_it_points_to(api_client, netbox_user):
    webhook = subscribe(NOWHERE, Site, ignore_users=[netbox_user])
    webhook.notification_groups.add(NotificationGroup.objects.create(name='Operators'))
    Health.objects.filter(webhook=webhook).update(delivered=3, failed=1)
    query = """{ webhooks_webhook_list {
        health { delivered failed } object_types { model }
        ignore_users { username } notification_groups { display } } }"""
    [shown] = ask(api_client, query)['webhooks_webhook_list']
    assert shown['health'] == {'delivered': 3, 'failed': 1}
    assert shown['object_types'] == [{'model': 'site'}]
    assert shown['ignore_users'] == [{'username': 'admin'}]
    assert shown['notification_groups'] == [{'display': 'Operators'}]


def test_a_list_costs_the_same_however_long_it_is(clerk_api, grant):
    for model in (Webhook, Event, Delivery):
        grant(model, 'view')
    grant(Site, 'view', name__startswith='site')
    few = _queries(clerk_api, 1)
    assert _queries(clerk_api, 10) == few


def _queries(client, count):
    for _number in range(count):
        delivery(event(site()), subscribe(NOWHERE, Site), attempts=2)
    ask(client, LOG)
    with CaptureQueriesContext(connection) as queries:
        ask(client, LOG)
        ask(client, '{ webhooks_event_list { data deliveries { restricted webhook { name } } } }')
    return len(queries)


#
# Permissions
#


def test_a_payload_is_for_those_who_may_view_its_object(clerk_api, grant):
    for model in (Webhook, Event, Delivery):
        grant(model, 'view')
    grant(Site, 'view', name='Bern')
    for name in ('Bern', 'Genf'):
        delivery(event(site(name=name)), subscribe(NOWHERE, Site))
    shown = {one['event']['object_repr']: one for one in ask(clerk_api, LOG)['webhooks_delivery_list']}
    for name, restricted in (('Bern', False), ('', True)):
        attempt = shown[name]['attempts'][0]
        assert shown[name]['restricted'] is restricted
        assert shown[name]['event']['restricted'] is restricted
        assert (shown[name]['event']['data'] is None) is restricted
        assert (attempt['number'], attempt['response_status']) == (1, 500)
        for field in ('url', 'request_headers', 'response_headers', 'response_body'):
            assert (attempt[field] is None) is restricted


def test_a_change_set_is_for_those_who_may_view_all_of_its_objects(clerk_api, grant):
    grant(Delivery, 'view')
    grant(Site, 'view', name='Bern')
    bern, genf = site(name='Bern'), site(name='Genf')
    change_set([event(genf), event(bern)], subscribe(NOWHERE, Site))
    query = '{ webhooks_delivery_list { restricted event_count attempts { response_body } } }'
    shown = ask(clerk_api, query)['webhooks_delivery_list']
    assert {(one['restricted'], one['event_count']) for one in shown} == {(True, 1)}
    assert [answer for one in shown for answer in one['attempts']] == [{'response_body': None}] * 2


def test_a_change_set_says_which_part_a_delivery_is_in(api_client):
    first, second = change_set([event(site()), event(site())], subscribe(NOWHERE, Site))
    Delivery.objects.filter(pk=first.pk).update(change_set=7, part=2, parts=3)
    Delivery.objects.filter(pk=second.pk).update(change_set=7, part=UNFORMED, parts=None)
    query = '{ webhooks_delivery_list(filters: {change_set: {filter_lookup: {exact: 7}}}) { change_set part parts } }'
    shown = ask(api_client, query)['webhooks_delivery_list']
    assert {(int(one['change_set']), one['part'], one['parts']) for one in shown} == {(7, None, None), (7, 2, 3)}


def test_nested_objects_are_restricted_like_others(clerk_api, grant):
    for name in ('Mine', 'Other'):
        delivery(event(site(name=name)), subscribe(NOWHERE, Site, name=name))
    grant(Delivery, 'view')
    query = '{ webhooks_delivery_list { webhook { name } event { object_repr } } }'
    assert ask(clerk_api, query)['webhooks_delivery_list'] == [{'webhook': None, 'event': None}] * 2
    grant(Webhook, 'view', name='Mine')
    grant(Event, 'view', object_repr='Mine')
    grant(Site, 'view')
    assert ask(clerk_api, query)['webhooks_delivery_list'] == [
        {'webhook': None, 'event': None},
        {'webhook': {'name': 'Mine'}, 'event': {'object_repr': 'Mine'}},
    ]


def test_deliveries_below_events_are_restricted(clerk_api, grant):
    shared = event(site())
    for name in ('Mine', 'Other'):
        delivery(shared, subscribe(NOWHERE, Site, name=name))
    grant(Event, 'view')
    grant(Webhook, 'view')
    grant(Delivery, 'view', webhook__name='Mine')
    query = '{ webhooks_event_list { deliveries { webhook { name } } } }'
    assert ask(clerk_api, query)['webhooks_event_list'] == [{'deliveries': [{'webhook': {'name': 'Mine'}}]}]


@override_settings(EXEMPT_VIEW_PERMISSIONS=['*'], LOGIN_REQUIRED=False)
@pytest.mark.parametrize('name', ['webhook', 'event', 'delivery'])
def test_our_models_are_not_exempt_with_all_others(clerk_api, client, name):
    delivery(event(site()))
    query = f'{{ site_list {{ id }} webhooks_{name}_list {{ id }} }}'
    for asker in (clerk_api, client):
        answer = asker.post('/graphql/', json.dumps({'query': query}), content_type='application/json')
        shown = answer.json()['data']
        assert shown['site_list']
        assert shown[f'webhooks_{name}_list'] == []


#
# Bad input
#


@pytest.mark.parametrize(
    'filters',
    [
        'uuid: {exact: "nonsense"}',
        'status: {exact: NONSENSE}',
        'created: {gt: "soon"}',
        'event: {nonsense: 1}',
    ],
)
def test_a_filter_that_makes_no_sense_is_an_error(api_client, filters):
    answer = api_client.post(
        '/graphql/', {'query': f'{{ webhooks_delivery_list(filters: {{{filters}}}) {{ id }} }}'}, format='json'
    )
    assert json.loads(answer.content)['errors']
