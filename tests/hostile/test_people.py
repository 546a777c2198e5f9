import re
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from dcim.models import Location, Site
from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.http import QueryDict
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from extras.dashboard.widgets import ObjectCountsWidget
from extras.models import EventRule, NotificationGroup
from rest_framework.test import APIClient
from support.admin_browser import page_of, shown
from support.builders import NOWHERE, site, subscribe
from support.builtin import request_by, rule
from support.engine import work
from support.log import attempt, change_set, delivery, event
from users.models import User

from devstack.receiver import Answer, Receiver
from webhooks.filtersets import EventFilterSet
from webhooks.models import Attempt, Backfill, Credential, Delivery, Event, Webhook

API = '/api/plugins/webhooks/'
PAGES = '/plugins/webhooks/'
MASK = '********'
# The reader may not view this event's object.
HIDDEN, CULPRIT, REQUEST = 'Bunker 17', 'm.hatter', uuid.UUID('5ec2e7b0-1111-4222-8333-444455556666')
# It occurs nowhere else: no random token or time has as many digits.
NUMBER = 7_700_177_001


@pytest.fixture
def log(committed: None, grant: Callable[..., None]) -> tuple[Delivery, Delivery]:
    """The clerk may not view the second site."""
    grant(Delivery, 'view')
    grant(Event, 'view')
    grant(Webhook, 'view')
    grant(Site, 'view', name='Bern')
    # Before the webhook, changes are not recorded.
    bern, hidden = site(name='Bern'), site(pk=NUMBER, name=HIDDEN, slug='hidden')
    webhook = subscribe(NOWHERE, Site, name='CMDB')
    seen = delivery(event(bern, username='alice', request_id=uuid.uuid4()), webhook)
    return seen, delivery(event(hidden, username=CULPRIT, request_id=REQUEST), webhook)


@pytest.fixture
def everyone(netbox_user: Any) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


def leaks(text: str) -> list[str]:
    return [secret for secret in (HIDDEN, CULPRIT, str(REQUEST), str(NUMBER)) if secret in text]


ADDRESSES = [
    f'{API}deliveries/',
    f'{API}deliveries/?brief=1',
    f'{API}events/',
    f'{API}events/?brief=1',
    f'{PAGES}deliveries/',
    f'{PAGES}deliveries/?include_columns=object_id,sequence,object',
    f'{PAGES}deliveries/?export=table',
    f'{PAGES}events/',
    f'{PAGES}events/?include_columns=object_id,username,request_id,object',
    f'{PAGES}events/?export=table',
]


class TestWhatIsShown:
    @pytest.mark.parametrize('address', ADDRESSES)
    def test_a_list_names_no_object_that_the_reader_may_not_view(self, log, clerk_api, clerk_pages, everyone, address):
        reader = clerk_api if address.startswith(API) else clerk_pages
        answer = reader.get(address)
        assert answer.status_code == 200
        text = _text(answer)
        assert not leaks(text)
        assert ('Bern' in text) is ('deliveries/?brief' not in address)
        assert address.startswith(API) or leaks(_text(everyone.get(address)))

    def test_the_filter_of_a_backfill_and_what_it_leaves_are_shown_to_those_who_may_view_all(
        self, log, clerk_api, clerk_pages, everyone, api_client, grant
    ):
        webhook = log[0].webhook
        address = f'{API}webhooks/{webhook.pk}/backfill/'
        assert api_client.post(address, {'filter': f'name={HIDDEN}'}, format='json').status_code == 201
        Backfill.objects.update(error=f'cannot read {HIDDEN}')
        hidden = clerk_api.get(address).json()
        told = {name: hidden[name] for name in ('state', 'restricted', 'filter', 'error', 'total', 'sent')}
        assert told == {'state': 'running', 'restricted': True, 'filter': '', 'error': '', 'total': None, 'sent': None}
        assert not leaks(_text(clerk_pages.get(webhook.get_absolute_url())))
        assert api_client.get(address).json()['total'] == 1
        assert leaks(_text(everyone.get(webhook.get_absolute_url())))
        grant(Site, 'view')
        shown = clerk_api.get(address).json()
        assert [shown[name] for name in ('restricted', 'filter', 'total')] == [False, f'name={HIDDEN}', 1]

    def test_numbers_of_a_backfill_without_a_filter_are_hidden_too(self, log, clerk_api, api_client, grant):
        webhook = log[0].webhook
        grant(Webhook, 'backfill')
        address = f'{API}webhooks/{webhook.pk}/backfill/'
        for reader, total in ((clerk_api, None), (api_client, 2)):
            answer = reader.post(address, {'dry_run': True}, format='json')
            assert (answer.status_code, answer.json()) == (200, {'total': total})
        answer = clerk_api.post(address, {}, format='json')
        assert (answer.status_code, answer.json()['total'], answer.json()['restricted']) == (201, None, True)
        assert api_client.get(address).json()['total'] == 2
        grant(Site, 'view')
        assert clerk_api.get(address).json()['total'] == 2
        assert clerk_api.post(address, {'dry_run': True}, format='json').json() == {'total': 2}

    def test_the_rows_are_still_there(self, log, clerk_api):
        """Sending is no secret of the object."""
        for name in ('deliveries', 'events'):
            answer = clerk_api.get(f'{API}{name}/').json()
            assert answer['count'] == 2
            assert [one['restricted'] for one in answer['results']] == [True, False]

    @pytest.mark.parametrize('number', [0, 1])
    def test_a_page_names_no_object_that_the_reader_may_not_view(self, log, clerk_api, clerk_pages, number):
        one = log[number]
        for reader, addresses in (
            (clerk_api, (f'{API}deliveries/{one.pk}/', f'{API}events/{one.event_id}/')),
            (clerk_pages, (one.get_absolute_url(), one.event.get_absolute_url(), one.webhook.get_absolute_url())),
        ):
            for address in addresses:
                answer = reader.get(address)
                assert answer.status_code == 200
                assert not leaks(_text(answer))
        assert ('Bern' in _text(clerk_pages.get(one.event.get_absolute_url()))) is (number == 0)

    def test_graphql_names_no_object_that_the_reader_may_not_view(self, log, clerk_api, api_client):
        fields = 'id display object_id object_repr username request_id'
        for query in (
            f'{{ webhooks_event_list {{ {fields} }} }}',
            f'{{ webhooks_event_list {{ {fields} deliveries {{ object_id display event {{ {fields} }} }} }} }}',
            f'{{ webhooks_delivery_list {{ id object_id event {{ {fields} }} }} }}',
            f'{{ webhooks_delivery_list {{ event {{ {fields} deliveries {{ event {{ {fields} }} }} }} }} }}',
            '{ webhooks_event_list { object_repr } }',
            '{ webhooks_delivery_list { object_id } }',
            f'{{ webhooks_event(id: {log[1].event_id}) {{ {fields} }} }}',
            f'{{ webhooks_delivery(id: {log[1].pk}) {{ object_id event {{ {fields} }} }} }}',
        ):
            answer = clerk_api.post('/graphql/', {'query': query}, format='json')
            assert 'errors' not in answer.json(), answer.json()
            assert not leaks(answer.content.decode())
            assert leaks(api_client.post('/graphql/', {'query': query}, format='json').content.decode())

    def test_a_deleted_object_is_shown_only_to_readers_who_may_view_all_of_its_type(self, log, clerk_api, grant):
        Site.objects.all().delete()
        assert not leaks(_text(clerk_api.get(f'{API}events/')))
        grant(Site, 'view')
        assert leaks(_text(clerk_api.get(f'{API}events/')))

    def test_a_restricted_change_set_names_the_events_that_the_reader_may_view(self, log, clerk_api):
        seen, hidden = log
        made = change_set([hidden.event, seen.event], seen.webhook)
        listed = clerk_api.get(f'{API}deliveries/?change_set={made[0].change_set}').json()['results']
        assert {(one['restricted'], one['event']['object_repr']) for one in listed} == {(True, 'Bern'), (True, '')}

    def test_a_list_costs_the_same_however_long_it_is(self, log, clerk_api, clerk_pages):
        lists = [f'{API}deliveries/', f'{API}events/', f'{PAGES}deliveries/', f'{PAGES}events/']
        few = [_queries(clerk_api if one.startswith(API) else clerk_pages, one) for one in lists]
        for number in range(10):
            delivery(event(site(name=f'{HIDDEN} {number}', slug=f's{number}')), log[0].webhook)
            Event.objects.filter(dispatched_at=None).delete()
        assert [_queries(clerk_api if one.startswith(API) else clerk_pages, one) for one in lists] == few


def _text(answer: Any) -> str:
    content = b''.join(answer.streaming_content) if answer.streaming else answer.content
    return content.decode()


def _queries(client: Client | APIClient, address: str) -> int:
    client.get(address)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return len(queries)


class TestErrors:
    """They may quote what a template read."""

    @pytest.fixture
    def places(self, committed: None, grant: Callable[..., None]) -> tuple[Site, Site]:
        for model in (Delivery, Event, Webhook):
            grant(model, 'view')
        grant(Site, 'view', name='Bern')
        return site(name='Bern'), site(pk=NUMBER, name=HIDDEN, slug='hidden')

    def test_a_redirect_to_a_templated_path_names_its_host_alone(self, places, receiver, clerk_api, clerk_pages):
        address = receiver.url(f'/sites/{NUMBER}')
        receiver.answers(f'/sites/{NUMBER}', Answer(301, headers={'Location': f'{address}/'}))
        webhook = subscribe(receiver.url('/sites/{{ data.id }}'), Site, max_attempts=1)
        places[1].save()
        work()
        assert Delivery.objects.get().error == f'HTTP 301: redirect to {receiver.url("")} is not followed'
        assert not leaks(_text(clerk_api.get(f'{API}webhooks/{webhook.pk}/')))
        assert not leaks(_text(clerk_pages.get(webhook.get_absolute_url())))

    @pytest.fixture
    def quoting(self, places) -> Delivery:
        subscribe(NOWHERE, Site, body_template="{{ {'a': 1}[data.name].x }}", max_attempts=1)
        places[1].save()
        work()
        failed = Delivery.objects.get()
        assert HIDDEN in failed.error
        Event.objects.update(error=f'the payload cannot be built: {HIDDEN}')
        attempt(failed, 2)
        Attempt.objects.filter(number=2).update(error=f'HTTP 404 {HIDDEN}')
        return failed

    def test_an_error_about_a_hidden_object_shows_only_its_beginning(self, quoting, clerk_api, clerk_pages, api_client):
        query = '{ webhooks_delivery_list { error attempts { error } event { error } } webhooks_event_list { error } }'
        addresses = [
            *ADDRESSES,
            f'{API}deliveries/{quoting.pk}/',
            f'{API}events/{quoting.event_id}/',
            quoting.get_absolute_url(),
            quoting.event.get_absolute_url(),
        ]
        for address in addresses:
            reader = clerk_api if address.startswith(API) else clerk_pages
            answer = reader.get(address)
            assert not leaks(_text(answer)), address
        shown = clerk_api.get(f'{API}deliveries/{quoting.pk}/').json()
        assert (shown['error'], [one['error'] for one in shown['attempts']]) == ('not sent', ['not sent', 'HTTP 404'])
        graphql = clerk_api.post('/graphql/', {'query': query}, format='json').content.decode()
        assert not leaks(graphql)
        assert 'the payload cannot be built' in graphql
        assert leaks(api_client.post('/graphql/', {'query': query}, format='json').content.decode())

    def test_an_error_of_a_partly_hidden_set_shows_only_its_beginning(self, places, grant, clerk_api, clerk_pages):
        webhook = subscribe(NOWHERE, Site)
        events = [event(place) for place in places]
        seen, _hidden = change_set(events, webhook, error=f'not sent: no {HIDDEN}')
        addresses = [f'{API}deliveries/', f'{API}deliveries/{seen.pk}/', f'{PAGES}deliveries/', seen.get_absolute_url()]
        for address in addresses:
            assert not leaks(_text((clerk_api if address.startswith(API) else clerk_pages).get(address))), address
        assert clerk_api.get(f'{API}deliveries/?q=Bunk').json()['count'] == 0
        grant(Site, 'view')
        assert [one['error'] for one in clerk_api.get(f'{API}deliveries/').json()['results']] == [
            f'not sent: no {HIDDEN}'
        ] * 2
        # The object's own name is found. To be cheap, the search leaves out errors of change sets.
        assert clerk_api.get(f'{API}deliveries/?q=Bunk').json()['count'] == 1

    def test_an_error_is_shortened_for_a_hidden_expanded_object_too(self, places, grant, clerk_api):
        types = [ContentType.objects.get_for_model(Location).pk]
        told = event(places[0], expanded_types=types)
        delivery(told, error=f'not sent: no {HIDDEN}', expanded=True)
        assert clerk_api.get(f'{API}deliveries/').json()['results'][0]['error'] == 'not sent'
        assert clerk_api.get(f'{API}deliveries/?q=Bunk').json()['count'] == 0
        Event.objects.update(expanded_types=None)
        assert leaks(_text(clerk_api.get(f'{API}deliveries/'))), 'its key was empty'
        assert clerk_api.get(f'{API}deliveries/?q=Bunk').json()['count'] == 1
        Event.objects.update(expanded_types=types)
        grant(Location, 'view')
        assert leaks(_text(clerk_api.get(f'{API}deliveries/')))
        assert clerk_api.get(f'{API}deliveries/?q=Bunk').json()['count'] == 1

    def test_no_search_finds_a_hidden_part(self, quoting, clerk_api, clerk_pages, api_client):
        assert api_client.get(f'{API}deliveries/?q=has no attribute').json()['count'] == 1
        assert clerk_api.get(f'{API}deliveries/?q=has no attribute').json()['count'] == 0
        for kind, filters in (
            ('event', '{error: {contains: "Bunk"}}'),
            ('delivery', '{error: {contains: "Bunk"}}'),
            ('delivery', '{event: {error: {contains: "Bunk"}}}'),
        ):
            query = {'query': f'{{ webhooks_{kind}_list(filters: {filters}) {{ id }} }}'}
            found = [reader.post('/graphql/', query, format='json').json() for reader in (clerk_api, api_client)]
            assert [len(answer['data'][f'webhooks_{kind}_list']) for answer in found] == [0, 1], found

    def test_a_test_quotes_no_hidden_object_in_its_error(self, places, grant, clerk_api, clerk_pages, api_client):
        grant(Webhook, 'test')
        Site.objects.filter(pk=NUMBER).update(description=HIDDEN)
        webhook = subscribe(NOWHERE, Site, body_template='{{ data[data.description].x }}')
        address = f'{API}webhooks/{webhook.pk}/test/'
        answer = clerk_api.post(address)
        assert (answer.status_code, answer.json()['status']) == (201, 'failed')
        assert not leaks(_text(answer))
        clerk_pages.post(f'{webhook.get_absolute_url()}test/')
        page = _text(clerk_pages.get(f'{PAGES}deliveries/'))
        assert 'failed: not sent' in page
        assert not leaks(page)
        assert leaks(_text(api_client.post(address)))
        Site.objects.filter(pk=NUMBER).delete()
        assert 'has no attribute' in _text(clerk_api.post(address)), 'the reader may view it'

    def test_no_order_reveals_a_hidden_error(self, places, clerk_pages):
        webhook = subscribe(NOWHERE, Site)
        made = [delivery(event(places[1]), webhook, error=f'not sent: {name}') for name in 'ba']
        orders = []
        for errors in ('ba', 'ab'):
            for one, name in zip(made, errors, strict=True):
                Delivery.objects.filter(pk=one.pk).update(error=f'not sent: {name}')
            rows = clerk_pages.get(f'{PAGES}deliveries/?sort=error&sort=created').context['table'].rows
            orders.append([row.record.pk for row in rows])
        assert orders[0] == orders[1]


class TestWhatFiltersTell:
    """Matches in hidden rows would reveal them letter by letter."""

    @pytest.mark.parametrize('name', ['deliveries', 'events'])
    def test_no_filter_of_the_api_or_the_pages_finds_a_hidden_row(self, log, clerk_api, clerk_pages, api_client, name):
        for query in (
            f'q={HIDDEN}',
            'q=Bunk',
            f'object_id={NUMBER}',
            f'object_id__gt={NUMBER - 1}',
            f'object_id__n={NUMBER + 1}&object_id__gte={NUMBER}',
        ):
            assert clerk_api.get(f'{API}{name}/?{query}').json()['count'] == 0, query
            assert api_client.get(f'{API}{name}/?{query}').json()['count'] == 1, query
            assert len(clerk_pages.get(f'{PAGES}{name}/?{query}').context['table'].rows) == 0, query

    @pytest.mark.parametrize(
        'query',
        [
            f'object_repr={HIDDEN}',
            'object_repr__isw=bunk',
            'object_repr__regex=^Bunk',
            f'username={CULPRIT}',
            'username__ic=hatter',
            'username__n=alice',
            f'request_id={REQUEST}',
            'q=hatter',
        ],
    )
    def test_no_filter_of_events_finds_a_hidden_row(self, log, clerk_api, api_client, query):
        assert clerk_api.get(f'{API}events/?{query}').json()['count'] == 0
        assert api_client.get(f'{API}events/?{query}').json()['count'] == 1

    @pytest.mark.parametrize('query', ['q=CMDB', 'response_status=500', 'status=failed', 'object_type=dcim.site'])
    def test_a_filter_by_what_is_shown_of_a_hidden_row_finds_it(self, log, clerk_api, query):
        assert clerk_api.get(f'{API}deliveries/?{query}').json()['count'] == 2

    def test_a_row_that_the_reader_sees_is_found(self, log, clerk_api):
        seen, _hidden = log
        assert clerk_api.get(f'{API}deliveries/?q=HTTP 500').json()['count'] == 1
        for query in ('q=Bern', 'q=alice', f'object_id={seen.object_id}', 'username=alice', 'object_repr__ic=ern'):
            assert clerk_api.get(f'{API}events/?{query}').json()['count'] == 1

    @pytest.mark.parametrize(
        ('kind', 'filters'),
        [
            ('event', '{object_repr: {starts_with: "Bunk"}}'),
            ('event', '{object_id: {filter_lookup: {exact: NUMBER}}}'),
            ('event', '{username: {contains: "hatter"}}'),
            ('event', '{username: {i_contains: "hat"}, NOT: {username: {exact: "alice"}}}'),
            ('event', '{request_id: {exact: "REQUEST"}}'),
            ('event', '{id: {exact: 0}, OR: {object_repr: {starts_with: "Bunk"}}}'),
            ('delivery', '{object_id: {comparison_lookup: {gt: 77000}}}'),
            ('delivery', '{event: {object_repr: {starts_with: "Bunk"}}}'),
            ('delivery', '{event: {username: {regex: "^m.h"}}}'),
        ],
    )
    def test_no_filter_of_graphql_finds_a_hidden_row(self, log, clerk_api, api_client, kind, filters):
        filters = filters.replace('NUMBER', str(NUMBER)).replace('REQUEST', str(REQUEST))
        query = {'query': f'{{ webhooks_{kind}_list(filters: {filters}) {{ id }} }}'}
        found = [reader.post('/graphql/', query, format='json').json() for reader in (clerk_api, api_client)]
        assert [len(answer['data'][f'webhooks_{kind}_list']) for answer in found] == [0, 1], found

    def test_a_negated_filter_reveals_nothing_about_a_hidden_row(self, log, clerk_api):
        counts = []
        for guess in ('Bunk', 'Other'):
            query = f'{{ webhooks_event_list(filters: {{NOT: {{object_repr: {{starts_with: "{guess}"}}}}}}) {{ id }} }}'
            answer = clerk_api.post('/graphql/', {'query': query}, format='json').json()
            counts.append(len(answer['data']['webhooks_event_list']))
        assert counts == [2, 2]

    @pytest.fixture
    def related(self, log, grant: Callable[..., None]) -> Webhook:
        """The clerk may view the webhook, and the second of each two related objects."""
        webhook = log[0].webhook
        users, groups = [], []
        for name in ('hidden', 'shown'):
            users.append(User.objects.create(username=name, email=f'{name}@example.com'))
            groups.append(NotificationGroup.objects.create(name=name, description=f'{name} group'))
            groups[-1].users.add(users[-1])
        webhook.ignore_users.set(users)
        webhook.notification_groups.set(groups)
        made = Credential(name='hidden', type='header', header='X-Key', hosts=['http://127.0.0.1:9'], secret='s3cret')
        made.save()
        Webhook.objects.filter(pk=webhook.pk).update(credential=made)
        grant(User, 'view', username='shown')
        grant(NotificationGroup, 'view', name='shown')
        return webhook

    @pytest.mark.parametrize(
        ('kind', 'filters'),
        [
            ('webhook', '{credential: {name: {starts_with: "hid"}}}'),
            ('webhook', '{credential: {type: {exact: TYPE_HEADER}}}'),
            ('webhook', '{ignore_users: {email: {starts_with: "hidden@"}}}'),
            ('webhook', '{ignore_users: {username: {exact: "hidden"}}}'),
            ('webhook', '{notification_groups: {description: {contains: "hidden"}}}'),
            ('delivery', '{webhook: {credential: {name: {exact: "hidden"}}}, id: {exact: FIRST}}'),
            ('delivery', '{webhook: {ignore_users: {username: {exact: "hidden"}}}, id: {exact: FIRST}}'),
        ],
    )
    def test_no_filter_of_graphql_confirms_a_hidden_related_object(
        self, related, log, clerk_api, api_client, kind: str, filters: str
    ):
        query = f'{{ webhooks_{kind}_list(filters: {filters.replace("FIRST", str(log[0].pk))}) {{ id }} }}'
        found = [reader.post('/graphql/', {'query': query}, format='json').json() for reader in (clerk_api, api_client)]
        assert [len(answer['data'][f'webhooks_{kind}_list']) for answer in found] == [0, 1], found

    @pytest.mark.parametrize(
        'filters',
        [
            '{ignore_users: {NOT: {username: {exact: "GUESS"}}}}',
            '{NOT: {ignore_users: {email: {starts_with: "GUESS"}}}}',
            '{notification_groups: {NOT: {name: {exact: "GUESS"}}}}',
            '{NOT: {credential: {name: {exact: "GUESS"}}}}',
        ],
    )
    def test_turned_around_it_does_not_either(self, related, clerk_api, filters: str):
        answers = []
        for guess in ('hidden', 'wrong'):
            query = f'{{ webhooks_webhook_list(filters: {filters.replace("GUESS", guess)}) {{ id }} }}'
            answers.append(clerk_api.post('/graphql/', {'query': query}, format='json').json())
        assert answers[0] == answers[1]
        assert 'errors' not in answers[0]

    @pytest.mark.parametrize(
        'filters',
        ['{ignore_users: {username: {exact: "shown"}}}', '{notification_groups: {name: {exact: "shown"}}}'],
    )
    def test_a_filter_by_a_visible_related_object_finds_its_webhook(self, related, clerk_api, filters: str):
        query = f'{{ webhooks_webhook_list(filters: {filters}) {{ id }} }}'
        answer = clerk_api.post('/graphql/', {'query': query}, format='json').json()
        assert len(answer['data']['webhooks_webhook_list']) == 1

    def test_a_filter_through_a_webhook_or_event_needs_its_view(self, committed, clerk_api, grant):
        grant(Delivery, 'view')
        grant(Site, 'view')
        delivery(event(site(), kind='created'), subscribe(NOWHERE, Site, description='for the CMDB'))
        counts = []
        for _times in range(2):
            for filters in ('{webhook: {description: {contains: "CMDB"}}}', '{event: {kind: {exact: KIND_CREATED}}}'):
                query = f'{{ webhooks_delivery_list(filters: {filters}) {{ id }} }}'
                answer = clerk_api.post('/graphql/', {'query': query}, format='json').json()
                counts.append(len(answer['data']['webhooks_delivery_list']))
            grant(Webhook, 'view')
            grant(Event, 'view')
        assert counts == [0, 0, 1, 1]

    @pytest.mark.parametrize('ordering', ['object_repr', '-object_repr', 'object_id', '-object_id'])
    def test_no_order_reveals_hidden_values(self, log, clerk_api, clerk_pages, ordering):
        places = [site(name=name, slug=name, pk=pk) for name, pk in (('zz', 5), ('aa', 99001))]
        Event.objects.filter(dispatched_at=None).delete()
        more = [event(place).pk for place in places]
        first = _ids(clerk_api.get(f'{API}events/?ordering={ordering}'))
        for pk, name in zip(more, ('aa', 'zz'), strict=True):
            Event.objects.filter(pk=pk).update(object_repr=name)
        numbers = Event.objects.in_bulk(more)
        Event.objects.filter(pk=more[0]).update(object_id=numbers[more[1]].object_id)
        Event.objects.filter(pk=more[1]).update(object_id=numbers[more[0]].object_id)
        assert _ids(clerk_api.get(f'{API}events/?ordering={ordering}')) == first
        for sort in ('object', '-object', 'object_id', 'username', 'request_id'):
            assert clerk_pages.get(f'{PAGES}events/?sort={sort}').status_code == 200
        for sort in ('object', '-object', 'object_id'):
            assert clerk_pages.get(f'{PAGES}deliveries/?sort={sort}').status_code == 200

    def test_a_reader_who_sees_everything_orders_by_everything(self, log, api_client):
        assert _ids(api_client.get(f'{API}events/?ordering=object_repr')) == [one.event_id for one in log]
        assert _ids(api_client.get(f'{API}events/?ordering=-object_id')) == [one.event_id for one in reversed(log)]


class TestWithoutARequest:
    """NetBox's widget *Object Counts* restricts the rows, but names no request. Scripts do neither."""

    @pytest.mark.parametrize(
        ('model', 'hidden', 'seen'),
        [
            ('event', {'object_repr__isw': 'Bunk'}, {'object_repr__isw': 'Ber'}),
            ('event', {'username': [CULPRIT]}, {'username': ['alice']}),
            ('event', {'object_id': [NUMBER]}, {'object_id__lt': [NUMBER]}),
            ('event', {'q': HIDDEN}, {'q': 'alice'}),
            ('delivery', {'q': 'Bunk'}, {'q': 'Bern'}),
            ('delivery', {'object_id': [NUMBER]}, {'object_id__lt': [NUMBER]}),
            ('delivery', {'q': 'no Bunker'}, {'q': 'no Bern'}),
        ],
    )
    def test_a_widget_counts_what_its_reader_may_view(
        self, log, clerk_user, netbox_user, model: str, hidden: dict[str, Any], seen: dict[str, Any]
    ):
        for one, name in zip(log, ('Bern', HIDDEN), strict=True):
            Delivery.objects.filter(pk=one.pk).update(error=f'not sent: no {name}')
        assert [counted(user, model, **hidden) for user in (clerk_user, netbox_user)] == [0, 1]
        assert [counted(user, model, **seen) for user in (clerk_user, netbox_user)] == [1, 1]
        assert counted(clerk_user, model, object_type='dcim.site') == 2

    @pytest.mark.parametrize('query', ['object_repr__isw=b', f'object_id={NUMBER}', 'username__ic=a', f'q={HIDDEN}'])
    def test_a_filter_of_unrestricted_rows_finds_no_hidden_value(self, log, netbox_user, query: str):
        assert not EventFilterSet(QueryDict(query), Event.objects.all()).qs.exists()
        assert EventFilterSet(QueryDict(query), Event.objects.restrict(netbox_user, 'view')).qs.exists()
        everything = EventFilterSet(QueryDict('object_type=dcim.site'), Event.objects.all())
        assert everything.qs.count() == 2

    def test_an_anonymous_one_finds_nothing_hidden(self, log):
        request = RequestFactory().get('/')
        request.user = AnonymousUser()
        for query in ('q=Bern', 'username=alice'):
            assert not EventFilterSet(QueryDict(query), Event.objects.all(), request=request).qs.exists()


def counted(user: Any, model: str, **filters: Any) -> int:
    """Return what the widget shows to the user."""
    request = RequestFactory().get('/')
    request.user = type(user).objects.get(pk=user.pk)
    shown = ObjectCountsWidget(config={'models': [f'webhooks.{model}'], 'filters': filters}).render(request)
    return int(re.search(r'>(\d+)<', shown)[1])


def _ids(answer: Any) -> list[int]:
    return [one['id'] for one in answer.json()['results']]


#
# Secrets that somebody else has entered
#

STORED = 'Authorization: Bearer b3arer'
KEPT = f'Authorization: {MASK}'


@pytest.fixture
def certificates(tmp_path, monkeypatch) -> Any:
    from support.settings import change_settings

    for name in ('ca.pem', 'other.pem', 'key.pem'):
        (tmp_path / name).write_text('')
    change_settings(monkeypatch, certificate_root=tmp_path)
    return tmp_path


class TestWeakerTransport:
    """With weaker TLS, somebody in between could read stored headers."""

    @pytest.mark.parametrize(
        'changes',
        [
            {'ssl_verification': False},
            {'ca_file_path': 'other.pem'},
            {'client_cert_path': 'other.pem'},
            {'client_cert_path': 'other.pem', 'client_key_path': 'key.pem'},
        ],
    )
    def test_it_asks_for_the_values_anew(self, db, certificates, api_client, admin_pages, changes):
        webhook = subscribe('https://a.example/in', Site, additional_headers=STORED)
        changes = {name: value and str(certificates / value) for name, value in changes.items()}
        address = f'{API}webhooks/{webhook.pk}/'
        for sent in (changes, changes | {'additional_headers': KEPT}):
            answer = api_client.patch(address, sent, format='json')
            assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
        page = shown(admin_pages, webhook)
        page = {name: value for name, value in page.items() if changes.get(name) is not False} | {
            name: value for name, value in changes.items() if value
        }
        answer = admin_pages.post(page_of(webhook), page)
        assert list(answer.context['adminform'].form.errors) == ['additional_headers']
        assert api_client.patch(address, changes | {'additional_headers': 'A: b'}, format='json').status_code == 200

    def test_a_bulk_edit_moves_no_stored_headers(self, db, admin_pages):
        webhook = subscribe('https://a.example/in', Site, additional_headers=STORED)
        admin_pages.post(f'{PAGES}webhooks/edit/', {'pk': [webhook.pk], '_apply': '1', 'ssl_verification': 'False'})
        assert Webhook.objects.get().ssl_verification
        Webhook.objects.update(additional_headers='')
        admin_pages.post(f'{PAGES}webhooks/edit/', {'pk': [webhook.pk], '_apply': '1', 'ssl_verification': 'False'})
        assert not Webhook.objects.get().ssl_verification

    def test_safer_transport_does_not(self, db, api_client):
        webhook = subscribe('https://a.example/in', Site, additional_headers=STORED, ssl_verification=False)
        answer = api_client.patch(f'{API}webhooks/{webhook.pk}/', {'ssl_verification': True}, format='json')
        assert answer.status_code == 200
        assert Webhook.objects.get().additional_headers.reveal() == STORED


class TestEventRules:
    def test_a_rule_sends_no_model_that_is_not_allowed(self, committed, netbox_user, receiver: Receiver):
        webhook = subscribe(receiver.url('/'))
        rule(webhook, Site, Location, action_type='webhooks.send')
        with request_by(netbox_user):
            place = site()
            Location.objects.create(name='Attic', slug='attic', site=place)
        work()
        assert [request.json()['model'] for request in receiver.wait_for(1)] == ['Site']
        assert not Event.objects.filter(object_type__model='location').exists()

    RULES = '/api/extras/event-rules/'
    SAVED: ClassVar[dict[str, Any]] = {
        'name': 'Mine',
        'object_types': ['dcim.site'],
        'event_types': ['object_created'],
        'action_type': 'webhooks.send',
        'action_object_type': 'webhooks.webhook',
    }

    @pytest.fixture
    def theirs(self, db, grant: Callable[..., None]) -> Webhook:
        """The clerk writes rules, and may not view it."""
        grant(EventRule, 'view', 'add', 'change')
        grant(Webhook, 'view', name='Mine')
        subscribe(NOWHERE, name='Mine')
        return subscribe(f'{NOWHERE}th3irs', name='Theirs')

    def test_a_user_who_adds_an_event_rule_must_be_allowed_to_view_its_webhook(self, theirs, clerk_api, grant):
        """He would send with its stored headers, and the answer would name it."""
        fields = self.SAVED | {'action_object_id': theirs.pk}
        answer = clerk_api.post(self.RULES, fields, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['action_object_id'])
        assert not [text for text in ('Theirs', 'th3irs') if text in _text(answer)]
        mine = Webhook.objects.get(name='Mine')
        made = clerk_api.post(self.RULES, fields | {'action_object_id': mine.pk}, format='json')
        assert made.status_code == 201
        address = f'{self.RULES}{made.json()["id"]}/'
        answer = clerk_api.patch(address, {'action_object_id': theirs.pk}, format='json')
        assert answer.status_code == 400
        assert EventRule.objects.get().action_object == mine
        grant(Webhook, 'view')
        assert clerk_api.post(self.RULES, fields | {'name': 'Other'}, format='json').status_code == 201

    def test_an_event_rule_of_a_hidden_webhook_cannot_be_changed(self, theirs, clerk_api, clerk_pages, netbox_user):
        """Other object types or conditions would send what its maker did not want."""
        made = rule(theirs, Site, action_type='webhooks.send')
        for changes in ({'object_types': ['dcim.site', 'dcim.location']}, {'enabled': True}, {'conditions': None}):
            assert clerk_api.patch(f'{self.RULES}{made.pk}/', changes, format='json').status_code == 400
        bulk = {'pk': [made.pk], '_apply': '1', 'description': 'changed'}
        clerk_pages.post('/extras/event-rules/edit/', bulk)
        made.refresh_from_db()
        assert made.description == ''
        assert clerk_pages.get(f'/extras/event-rules/{made.pk}/edit/').status_code == 200

    def test_the_pages_let_nobody_choose_another(self, theirs, clerk_pages):
        mine = Webhook.objects.get(name='Mine')
        page = {name: value for name, value in self.SAVED.items() if name != 'action_object_type'}
        page['object_types'] = [ContentType.objects.get_for_model(Site).pk]
        for pk, count in ((theirs.pk, 0), (mine.pk, 1)):
            clerk_pages.post('/extras/event-rules/add/', page | {'action_choice': pk})
            assert EventRule.objects.count() == count
        heads = 'name,object_types,event_types,action_type,action_object'
        for name, count in (('Theirs', 1), ('Mine', 2)):
            line = f'Imported,dcim.site,object_created,webhooks.send,{name}'
            data = {'data': f'{heads}\n{line}', 'format': 'csv', 'csv_delimiter': ','}
            answer = clerk_pages.post('/extras/event-rules/import/', data)
            assert EventRule.objects.count() == count, _text(answer)

    def test_a_script_without_a_request_may_choose_any(self, theirs):
        made = rule(theirs, Site, action_type='webhooks.send')
        made.full_clean()


class TestSignatures:
    def test_neither_the_log_nor_the_preview_shows_a_part_of_one(self, committed, api_client, receiver: Receiver):
        """From 21 characters of a signature, a reader could guess words offline."""
        webhook = subscribe(receiver.url('/'), Site, secret='summer2026')
        site()
        work()
        (request,) = receiver.wait_for(1)
        sent = request.header('webhook-signature').removeprefix('v1,'), request.header('X-Hook-Signature')
        log = api_client.get(f'{API}deliveries/').content.decode()
        headers = Delivery.objects.get().attempts.get().request_headers
        assert not [part for part in sent if part[:6] in log]
        assert (headers['webhook-signature'], headers['X-Hook-Signature']) == (MASK, MASK)
        preview = api_client.get(f'{API}webhooks/{webhook.pk}/preview/').json()['headers']
        assert (preview['webhook-signature'], preview['X-Hook-Signature']) == (MASK, MASK)


class TestFoldedLines:
    """Some servers read a folded header as two."""

    @pytest.mark.parametrize(
        ('name', 'value'),
        [
            ('http_content_type', 'application/json;\r\n charset=utf-8'),
            ('http_content_type', 'application/json\n\t; charset=utf-8'),
            ('additional_headers', 'X-A: a\r\n b'),
            ('additional_headers', 'X-A: a\r b'),
        ],
    )
    def test_folded_lines_in_headers_are_refused(self, db, api_client, name, value):
        webhook = subscribe(NOWHERE, Site)
        answer = api_client.patch(f'{API}webhooks/{webhook.pk}/', {name: value}, format='json')
        assert (answer.status_code, list(answer.data)) == (400, [name])

    def test_a_stored_one_is_not_sent(self, committed, receiver: Receiver):
        subscribe(receiver.url('/'), Site, max_attempts=1)
        Webhook.objects.update(http_content_type='application/json;\r\n charset=utf-8')
        site()
        work()
        assert not receiver.requests
        assert 'the value of the header Content-Type contains a line break' in Delivery.objects.get().error
