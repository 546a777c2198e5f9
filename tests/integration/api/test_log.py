from datetime import UTC, datetime

import pytest
from dcim.models import Rack, Site
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from support.builders import NOWHERE, site, subscribe
from support.log import change_set, delivery, event
from users.models import Token

from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Event, Webhook
from webhooks.models.delivery import UNFORMED
from webhooks.visibility import never_exempt

WEBHOOKS = '/api/plugins/webhooks/webhooks/'
DELIVERIES = '/api/plugins/webhooks/deliveries/'
EVENTS = '/api/plugins/webhooks/events/'
MASK = '********'


#
# The log
#


def test_a_delivery_shows_all_that_is_known_about_it(api_client):
    place = site(name='Bern')
    log = delivery(event(place, username='clerk'), subscribe('https://a.example/?k=v', Site, name='CMDB'), attempts=2)
    shown = api_client.get(f'{DELIVERIES}{log.pk}/').json()
    assert shown['id'] == log.pk
    assert shown['uuid'] == str(log.uuid)
    assert shown['status'] == 'failed'
    assert shown['webhook']['display'] == 'CMDB'
    assert shown['webhook']['payload_url'] == f'https://a.example/?k={MASK}'
    assert shown['event']['kind'] == 'updated'
    assert shown['event']['sequence'] == log.sequence
    assert (shown['event']['object_type'], shown['event']['object_id']) == ('dcim.site', place.pk)
    assert shown['event']['object_repr'] == 'Bern'
    assert [one['number'] for one in shown['attempts']] == [1, 2]
    assert shown['attempts'][0]['response_body'] == 'the answer of the receiver'
    assert shown['attempts'][0]['request_headers']['webhook-id'] == str(log.uuid)
    assert shown['next_attempt_at'] is None
    assert shown['restricted'] is False


def test_an_event_shows_its_payload(api_client):
    place = site(name='Bern')
    shown = api_client.get(f'{EVENTS}{event(place).pk}/').json()
    assert shown['data'] == {'id': place.pk, 'name': 'Bern'}
    assert shown['restricted'] is False


@pytest.mark.parametrize('method', ['post', 'put', 'patch', 'delete'])
@pytest.mark.parametrize('kind', ['list', 'detail'])
def test_the_log_is_read_only(api_client, method, kind):
    log = delivery(event(site()))
    for address, pk in ((DELIVERIES, log.pk), (EVENTS, log.event_id)):
        url = address if kind == 'list' else f'{address}{pk}/'
        assert getattr(api_client, method)(url, {}, format='json').status_code == 405


@pytest.mark.parametrize(
    'query',
    ['status=nonsense', 'uuid=nonsense', 'event_id=null', 'created__gte=soon', 'kind__ic=null', 'object_id=9e99'],
)
def test_a_filter_that_makes_no_sense_is_refused_by_its_name(api_client, query):
    answer = api_client.get(f'{DELIVERIES}?{query}')
    assert answer.status_code == 400
    assert list(answer.json()) == [query.partition('=')[0]]


@pytest.mark.parametrize('query', ['ordering=nonsense', 'ordering=-webhook__payload_url', 'limit=x&offset=-1', 'q=%00'])
def test_a_query_that_makes_no_sense_is_no_server_error(api_client, query):
    assert api_client.get(f'{DELIVERIES}?{query}').status_code in (200, 400)


def test_pages_do_not_overlap_whatever_the_order(api_client):
    logs = [delivery(event(site())).pk for _ in range(9)]
    seen = []
    for offset in range(0, 9, 3):
        page = api_client.get(f'{DELIVERIES}?ordering=status&limit=3&offset={offset}').json()
        seen += [one['id'] for one in page['results']]
    assert seen == sorted(logs, reverse=True)


@pytest.mark.parametrize('address', [WEBHOOKS, DELIVERIES, EVENTS])
def test_a_list_costs_the_same_however_long_it_is(api_client, address):
    delivery(event(site()), attempts=2)
    few = _queries(api_client, address)
    for number in range(10):
        delivery(event(site()), subscribe(NOWHERE, Site, Rack, name=f'More {number}'), attempts=3)
    assert _queries(api_client, address) == few


def test_a_delivery_costs_the_same_however_many_attempts_it_took(api_client):
    few, many = (delivery(event(site()), attempts=number) for number in (2, 9))
    assert _queries(api_client, f'{DELIVERIES}{many.pk}/') == _queries(api_client, f'{DELIVERIES}{few.pk}/')


def _queries(client, address):
    client.get(address)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return len(queries)


#
# Permissions
#


def test_a_payload_is_for_those_who_may_view_its_object(clerk_api, grant):
    seen, hidden = site(name='Bern'), site(name='Genf')
    grant(Delivery, 'view')
    grant(Event, 'view')
    grant(Site, 'view', name='Bern')
    logs = {place: delivery(event(place)) for place in (seen, hidden)}

    shown = clerk_api.get(f'{DELIVERIES}{logs[seen].pk}/').json()
    assert shown['restricted'] is False
    assert shown['attempts'][0]['response_body']

    shown = clerk_api.get(f'{DELIVERIES}{logs[hidden].pk}/').json()
    assert shown['restricted'] is True
    assert shown['attempts'][0]['number'] == 1
    assert shown['attempts'][0]['response_status'] == 500
    for name in ('request_url', 'request_headers', 'response_headers', 'response_body'):
        assert shown['attempts'][0][name] is None

    listed = {one['id']: one for one in clerk_api.get(DELIVERIES).json()['results']}
    assert [listed[logs[place].pk]['restricted'] for place in (seen, hidden)] == [False, True]
    assert clerk_api.get(f'{EVENTS}{logs[seen].event_id}/').json()['data']['name'] == 'Bern'
    assert clerk_api.get(f'{EVENTS}{logs[hidden].event_id}/').json()['data'] is None


@pytest.mark.parametrize(('constraints', 'restricted'), [({}, False), ({'name': 'Bern'}, True)])
def test_the_payload_of_a_deleted_object_is_for_those_who_may_view_them_all(clerk_api, grant, constraints, restricted):
    grant(Event, 'view')
    grant(Site, 'view', **constraints)
    place = site(name='Bern')
    gone = event(place)
    place.delete()
    assert clerk_api.get(f'{EVENTS}{gone.pk}/').json()['restricted'] is restricted


def test_the_payload_is_not_for_those_who_may_not_view_the_model(clerk_api, grant):
    grant(Event, 'view')
    of = event(site(name='Bern'))
    assert clerk_api.get(f'{EVENTS}{of.pk}/').json()['data'] is None
    grant(Site, 'view')
    assert clerk_api.get(f'{EVENTS}{of.pk}/').json()['data']['name'] == 'Bern'


def test_a_change_set_is_for_those_who_may_view_all_of_its_objects(clerk_api, grant):
    webhook = subscribe(NOWHERE, Site)
    bern, genf = site(name='Bern'), site(name='Genf')
    mixed = change_set([event(genf), event(bern)], webhook)
    own = change_set([event(bern), event(bern)], webhook)
    grant(Delivery, 'view')
    grant(Site, 'view', name='Bern')
    for together, restricted in ((mixed, True), (own, False)):
        assert {clerk_api.get(f'{DELIVERIES}{one.pk}/').json()['restricted'] for one in together} == {restricted}


def test_deliveries_and_events_of_one_request_are_found_together(api_client):
    first, second, _other = event(site()), event(site()), event(site())
    made = change_set([first, second], subscribe(NOWHERE, Site))
    shown = api_client.get(f'{DELIVERIES}?event_id={second.pk}').json()['results']
    assert [(one['id'], one['event_count']) for one in shown] == [(made[1].pk, 1)]
    assert api_client.get(f'{DELIVERIES}?change_set={shown[0]["change_set"]}').json()['count'] == 2
    answer = api_client.get(f'{EVENTS}?delivery_id={made[0].pk}').json()
    assert [one['id'] for one in answer['results']] == [first.pk]


def test_a_change_set_says_which_part_a_delivery_is_in(api_client):
    first, second = change_set([event(site()), event(site())], subscribe(NOWHERE, Site))
    Delivery.objects.filter(pk=first.pk).update(change_set=7, part=2, parts=3)
    Delivery.objects.filter(pk=second.pk).update(change_set=7, part=UNFORMED, parts=None)
    shown = api_client.get(f'{DELIVERIES}?change_set=7').json()['results']
    assert [(one['change_set'], one['part'], one['parts']) for one in shown] == [(7, None, None), (7, 2, 3)]


def test_constraints_on_deliveries_hold(clerk_api, grant):
    mine, other = (delivery(event(site()), subscribe(NOWHERE, Site, name=name)) for name in ('Mine', 'Other'))
    grant(Delivery, 'view', webhook__name='Mine')
    assert [one['id'] for one in clerk_api.get(DELIVERIES).json()['results']] == [mine.pk]
    assert clerk_api.get(f'{DELIVERIES}{other.pk}/').status_code == 404


@override_settings(EXEMPT_VIEW_PERMISSIONS=['*'], LOGIN_REQUIRED=False)
@pytest.mark.parametrize('address', [WEBHOOKS, DELIVERIES, EVENTS])
def test_our_models_are_not_exempt_with_all_others(clerk_api, client, address):
    assert clerk_api.get('/api/dcim/sites/').status_code == 200
    assert clerk_api.get(address).status_code == 403
    assert client.get(address).status_code == 403


def test_our_models_are_not_exempt_by_name(clerk_api):
    with override_settings(EXEMPT_VIEW_PERMISSIONS=['webhooks.delivery', 'dcim.site'], EXEMPT_EXCLUDE_MODELS=()):
        assert clerk_api.get(DELIVERIES).status_code == 200
        never_exempt()
        assert clerk_api.get(DELIVERIES).status_code == 403
        assert clerk_api.get('/api/dcim/sites/').status_code == 200


#
# Actions
#


def _act(client, instance, name, data=None):
    base = WEBHOOKS if isinstance(instance, Webhook) else DELIVERIES
    return client.post(f'{base}{instance.pk}/{name}/', data or {}, format='json')


ACTIONS = [('test', Webhook), ('replay', Webhook), ('backfill', Webhook), ('redeliver', Delivery)]
SINCE = {'since': '2020-01-01T00:00:00Z'}


@pytest.mark.parametrize(('action', 'model'), ACTIONS)
def test_each_action_needs_its_own_permission(clerk_api, grant, action, model):
    log = delivery(event(site()))
    instance = log if model is Delivery else log.webhook
    grant(model, 'view', 'add', 'change', 'delete')
    assert _act(clerk_api, instance, action, SINCE).status_code == 403
    grant(model, action, pk=0)
    assert _act(clerk_api, instance, action, SINCE).status_code == 404
    grant(model, action, pk=instance.pk)
    assert _act(clerk_api, instance, action, SINCE).status_code in (200, 201)


@pytest.mark.parametrize(('action', 'model'), ACTIONS)
def test_no_action_is_possible_on_what_one_may_not_view(clerk_api, grant, action, model):
    log = delivery(event(site()))
    grant(model, action)
    instance = log if model is Delivery else log.webhook
    assert _act(clerk_api, instance, action, SINCE).status_code == 404
    grant(model, 'view')
    assert _act(clerk_api, instance, action, SINCE).status_code in (200, 201)


@pytest.mark.parametrize(('action', 'model'), ACTIONS)
def test_a_token_that_may_not_write_starts_no_action(clerk_api, grant, action, model):
    log = delivery(event(site()))
    grant(model, 'view', action)
    Token.objects.update(write_enabled=False)
    instance = log if model is Delivery else log.webhook
    assert _act(clerk_api, instance, action, SINCE).status_code == 403
    Token.objects.update(write_enabled=True)
    assert _act(clerk_api, instance, action, SINCE).status_code in (200, 201)


def test_a_failed_delivery_is_sent_again(committed, api_client):
    log = delivery(event(site()))
    answer = _act(api_client, log, 'redeliver')
    assert (answer.status_code, answer.json()) == (200, {'count': 1})
    log.refresh_from_db()
    assert log.status == StatusChoices.PENDING
    assert api_client.get(f'{DELIVERIES}{log.pk}/').json()['next_attempt_at']


def test_an_open_delivery_is_not_sent_twice(api_client):
    log = delivery(event(site()), status=StatusChoices.PENDING)
    assert _act(api_client, log, 'redeliver').status_code == 409


def test_an_action_on_nothing_is_a_404(api_client):
    for address in (f'{WEBHOOKS}4711/test/', f'{WEBHOOKS}x/replay/', f'{DELIVERIES}x/redeliver/'):
        assert api_client.post(address, SINCE, format='json').status_code == 404


def test_replay_takes_the_range_and_the_status(committed, api_client):
    webhook = subscribe(NOWHERE, Site)
    for day, status in ((1, 'failed'), (2, 'failed'), (3, 'delivered'), (4, 'failed')):
        delivery(event(site(), timestamp=datetime(2026, 1, day, 12, tzinfo=UTC)), webhook, status=status)
    wanted = {'since': '2026-01-02T00:00:00Z', 'until': '2026-01-04T00:00:00Z', 'status': 'failed'}
    assert _act(api_client, webhook, 'replay', wanted).json() == {'count': 1}
    assert Delivery.objects.get(status=StatusChoices.PENDING).event.timestamp.day == 2


@pytest.mark.parametrize(
    ('data', 'field'),
    [
        ({}, 'since'),
        ({'since': 'yesterday'}, 'since'),
        (SINCE | {'until': '2019-01-01T00:00:00Z'}, 'until'),
        (SINCE | {'status': 'lost'}, 'status'),
        (SINCE | {'status': 'pending'}, 'status'),
        (SINCE | {'status': 'sending'}, 'status'),
        (SINCE | {'status': 'a\0b'}, 'status'),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(api_client, data, field):
    answer = _act(api_client, subscribe(NOWHERE, Site), 'replay', data)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_a_test_event_is_sent_and_its_answer_shown(committed, api_client, receiver):
    site(name='Bern')
    webhook = subscribe(receiver.url('/hook'), Site)
    answer = _act(api_client, webhook, 'test')
    assert answer.status_code == 201, answer.content
    assert answer.json()['status'] == 'delivered'
    assert receiver.requests[0].header('webhook-id') == answer.json()['uuid']


def test_a_test_without_any_object_is_a_ping(api_client):
    answer = _act(api_client, subscribe(NOWHERE, Site), 'test')
    assert answer.status_code == 201
    assert Delivery.objects.get().event.object_type.model == 'webhook'
