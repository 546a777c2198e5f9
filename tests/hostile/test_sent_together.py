"""Two objects went out in one request, and the reader may view one of them: also later, this stays one request."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Site
from django.db import transaction
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient
from support.builders import site, subscribe
from support.engine import deliveries, expire, pass_retry_waits, work
from support.log import delivery, event

from devstack.receiver import Answer, Receiver
from webhooks.engine.tidy import loop as tidy
from webhooks.engine.tidy import retention
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import causes, redelivery

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/deliveries/'
HIDDEN, SEEN = 'Bunker 17', 'pub'
GRAPHQL = """{ webhooks_delivery_list { id restricted error attempts {
    number error response_status url request_headers response_headers response_body } } }"""
# The endpoint repeats what it was sent.
ECHO = HIDDEN.encode()


@pytest.fixture(autouse=True)
def _may_view_some(grant: Callable[..., None]) -> None:
    grant(Delivery, 'view')
    grant(Event, 'view')
    grant(Webhook, 'view')
    grant(Site, 'view', name__startswith=SEEN)


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/'), Site, change_set=True, max_attempts=1)


@pytest.fixture
def everyone(netbox_user: Any) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


def send_both(first: str = HIDDEN, second: str = SEEN) -> tuple[Delivery, Delivery]:
    """Send both sites in one request. Returns the deliveries of the visible and of the hidden one."""
    with transaction.atomic():
        for name in (first, second):
            site(name=name, slug=name[:3].lower())
    work()
    by_name = {one.event.object_repr: one for one in deliveries()}
    return by_name[SEEN], by_name[HIDDEN]


def texts(api: APIClient, pages: Client, one: Delivery) -> dict[str, str]:
    """Return all that a reader is shown of a delivery, by where."""
    listed = {row['id']: row for row in api.get(API).json()['results']}
    graphql = api.post('/graphql/', {'query': GRAPHQL}, format='json').json()['data']['webhooks_delivery_list']
    return {
        'REST': str(api.get(f'{API}{one.pk}/').json()),
        'REST, list': str(listed[one.pk]),
        'GraphQL': str(next(row for row in graphql if int(row['id']) == one.pk)),
        'page': pages.get(one.get_absolute_url()).content.decode(),
        'list': pages.get('/plugins/webhooks/deliveries/?include_columns=error').content.decode(),
    }


def assert_hidden(one: Delivery, clerk_api: APIClient, clerk_pages: Client) -> None:
    shown = texts(clerk_api, clerk_pages, one)
    assert {where for where, text in shown.items() if HIDDEN in text} == set()
    assert "'restricted': True" in shown['REST']


def forget(event_of: Delivery) -> None:
    """Prune an event of the log."""
    old = timezone.now() - timedelta(days=100)
    Event.objects.filter(pk=event_of.event_id).update(timestamp=old)
    Delivery.objects.filter(pk=event_of.pk).update(created=old)
    retention.prune_all()
    assert not Event.objects.filter(pk=event_of.event_id).exists()


def numbers(api: APIClient, one: Delivery) -> list[int]:
    """Return the answers of its attempts, which are the same wherever they are shown."""
    told = [attempt['response_status'] for attempt in api.get(f'{API}{one.pk}/').json()['attempts']]
    (listed,) = (row['attempts'] for row in api.get(API).json()['results'] if row['id'] == one.pk)
    rows = api.post('/graphql/', {'query': GRAPHQL}, format='json').json()['data']['webhooks_delivery_list']
    (graphql,) = (row['attempts'] for row in rows if int(row['id']) == one.pk)
    for other in (listed, graphql):
        assert [attempt['response_status'] for attempt in other] == told
    return told


@pytest.mark.parametrize('names', [(HIDDEN, SEEN), (SEEN, HIDDEN)], ids=['hidden first', 'hidden last'])
class TestApart:
    def test_while_both_are_there(self, receiver, webhook, clerk_api, clerk_pages, api_client, everyone, names):
        """The twin of the others: a user who may view all sees it."""
        receiver.answers('/', Answer(500, body=ECHO))
        seen, _hidden = send_both(*names)
        assert_hidden(seen, clerk_api, clerk_pages)
        shown = texts(api_client, everyone, seen)
        assert [where for where, text in shown.items() if HIDDEN in text] == [*shown]

    def test_after_the_hidden_one_was_pruned(self, receiver, webhook, clerk_api, clerk_pages, api_client, names):
        receiver.answers('/', Answer(500, body=ECHO))
        seen, hidden = send_both(*names)
        forget(hidden)
        assert_hidden(seen, clerk_api, clerk_pages)
        assert numbers(api_client, seen) == [500]
        assert HIDDEN in str(api_client.get(f'{API}{seen.pk}/').json())

    def test_after_it_was_redelivered_without_the_hidden_one(
        self, receiver, webhook, clerk_api, clerk_pages, api_client, names
    ):
        receiver.answers('/', Answer(500, body=ECHO), Answer(200, body=b'fine'))
        seen, hidden = send_both(*names)
        forget(hidden)
        redelivery.redeliver(Delivery.objects.filter(pk=seen.pk))
        work()
        assert numbers(api_client, seen) == [500, 200]
        first, second = clerk_api.get(f'{API}{seen.pk}/').json()['attempts']
        assert (first['response_body'], first['request_body'], second['response_body']) == (None, None, 'fine')
        assert SEEN in second['request_body']
        assert_hidden(seen, clerk_api, clerk_pages)

    def test_after_the_webhook_has_lost_its_url(self, receiver, clerk_api, clerk_pages, api_client, names):
        webhook = subscribe(receiver.url('/'), Site, change_set=True)
        receiver.answers('/', Answer(500, body=ECHO))
        seen, hidden = send_both(*names)
        webhook.payload_url, webhook.change_set = '', False
        webhook.full_clean()
        webhook.save()
        work()
        assert {one.position for one in deliveries('delivered')} == {1, 2}
        assert_hidden(seen, clerk_api, clerk_pages)
        assert numbers(api_client, seen) == numbers(api_client, hidden) == [500]

    def test_the_answer_to_a_failure_is_hidden_with_the_hidden_delivery(
        self, receiver, webhook, clerk_user, netbox_user, names
    ):
        receiver.answers('/', Answer(500, body=ECHO))
        _seen, hidden = send_both(*names)
        forget(hidden)
        assert HIDDEN in causes.find(netbox_user).shown[0].answer
        assert causes.find(clerk_user).shown[0].answer == ''


class TestWhichAttempts:
    def test_one_that_joined_later_has_no_earlier_attempts_of_the_others(self, receiver, webhook, api_client):
        """Its first delivery has expired before."""
        receiver.answers('/', 500, 503, 200)
        Webhook.objects.update(paused=True)
        seen, hidden = send_both()
        Webhook.objects.update(paused=False)
        first = min(seen, hidden, key=lambda one: one.pk)
        last = max(seen, hidden, key=lambda one: one.pk)
        # It is formed, then expires.
        Delivery.objects.filter(pk__in=[seen.pk, hidden.pk]).update(
            lead=first.pk, part=1, parts=1, change_count=2, due_at=timezone.now()
        )
        expire(pk=first.pk)
        tidy.expire()
        work()
        assert (numbers(api_client, first), numbers(api_client, last)) == ([], [500])
        redelivery.redeliver(Delivery.objects.filter(pk=first.pk))
        work()
        pass_retry_waits()
        assert (numbers(api_client, first), numbers(api_client, last)) == ([503], [500, 503])

    def test_a_redelivered_change_has_only_its_own_attempts(self, receiver, webhook, api_client):
        receiver.answers('/', 200, 201)
        seen, hidden = send_both()
        redelivery.redeliver(Delivery.objects.filter(pk=seen.pk))
        work()
        assert (numbers(api_client, seen), numbers(api_client, hidden)) == ([200], [200])
        anew = next(one for one in deliveries() if one.pk not in (seen.pk, hidden.pk))
        assert numbers(api_client, anew) == [201]

    def test_a_single_one_has_its_own(self, api_client):
        one = delivery(event(site(name=SEEN)), attempts=2)
        assert numbers(api_client, one) == [500, 500]
