from datetime import timedelta

import pytest
from dcim.models import Site
from django.db.models import F
from django.utils import timezone
from support.admin_browser import messages_of
from support.builders import CREATED, UPDATED, site, subscribe
from support.engine import deliveries, dispatch_all, health, work
from support.settings import change_settings

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.deliver import superseding
from webhooks.exceptions import DefinitionError
from webhooks.models import Delivery, Event, Health, Webhook
from webhooks.presentation import states
from webhooks.services import send_waiting

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
API = '/api/plugins/webhooks/webhooks/'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    """Its endpoint is away, and five changes wait."""
    webhook = subscribe(receiver.url(HOOK), Site)
    away(webhook)
    first, second = site(name='a'), site(name='b')
    for name in 'cde':
        first.name = name
        first.save()
    dispatch_all()
    assert deliveries(StatusChoices.PENDING, object_id=second.pk)
    return webhook


def away(webhook: Webhook) -> None:
    later = timezone.now() + timedelta(hours=1)
    Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now(), probe_at=later, unreachable=5)


def told(receiver: Receiver) -> list[tuple[str, str]]:
    return sorted((request.json()['event'], request.json()['data']['name']) for request in receiver.requests)


ALL = [(CREATED, 'a'), (CREATED, 'b'), *((UPDATED, name) for name in 'cde')]
LATEST = [(CREATED, 'b'), (CREATED, 'e')]
# How a webhook sends nothing, and the field that a refusal names.
HELD = [({'enabled': False}, 'enabled'), ({'paused': True}, 'paused')]


class TestMeasure:
    def test_changes_and_objects_are_counted(self, webhook):
        found = send_waiting.measure(webhook)
        assert (found.changes, found.objects) == (5, 2)
        assert str(found) == '5 changes · 2 objects'
        assert found.since == Event.objects.order_by('timestamp').first().timestamp

    def test_a_delivery_under_way_does_not_count_as_waiting(self, webhook):
        Delivery.objects.update(state=StatusChoices.SENDING)
        assert send_waiting.measure(webhook) == send_waiting.Waiting(0, 0, None)

    def test_not_more_is_counted_than_can_be_read_quickly(self, webhook, monkeypatch):
        monkeypatch.setattr(states, 'MAX_WAITING_COUNTED', 4)
        assert str(send_waiting.measure(webhook)).startswith('4+ changes · ')


class TestSend:
    def test_nothing_is_sent_before(self, webhook, receiver):
        assert work() == 'nothing to send'
        assert not receiver.requests

    @pytest.mark.parametrize(('latest_only', 'expected'), [(False, ALL), (True, LATEST)])
    def test_it_is_sent_now(self, webhook, receiver, latest_only, expected):
        assert send_waiting.send(webhook, latest_only=latest_only) == len(ALL) - len(expected)
        work()
        assert told(receiver) == expected
        assert health(webhook).superseded == len(ALL) - len(expected)
        assert not Webhook.objects.get().latest_only

    def test_it_is_done_in_parts(self, webhook, receiver, monkeypatch):
        monkeypatch.setattr(superseding, 'OBJECTS_PER_READ', 1)
        monkeypatch.setattr(superseding, 'DELIVERIES_PER_READ', 2)
        for _ in range(2):
            for place in Site.objects.all():
                place.save()
        dispatch_all()
        send_waiting.send(webhook, latest_only=True)
        work()
        assert told(receiver) == LATEST

    def test_a_retry_is_not_waited_for(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site)
        receiver.answers(HOOK, 500, 200)
        site()
        assert work() == '1 to retry'
        assert work() == 'nothing to send'
        send_waiting.send(webhook)
        assert work() == '1 delivered'

    def test_an_object_still_enters_a_list_if_only_its_latest_change_is_sent(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, filters={'dcim.site': 'status=active'})
        place = site(name='a', status='planned')
        work()
        away(webhook)
        for name, status in (('a', 'active'), ('b', 'active')):
            place.name, place.status = name, status
            place.save()
        dispatch_all()
        assert send_waiting.send(webhook, latest_only=True) == 1
        work()
        (body,) = (request.json() for request in receiver.requests)
        assert (body['event'], body['data']['name'], body['membership']) == (CREATED, 'b', 'entered')

    def test_other_webhooks_keep_what_waits(self, webhook, receiver):
        other = subscribe(receiver.url('/other'), Site, paused=True)
        for _ in range(2):
            Site.objects.first().save()
        dispatch_all()
        send_waiting.send(webhook, latest_only=True)
        assert send_waiting.measure(other).changes == 2

    @pytest.mark.parametrize(('held', 'field'), HELD)
    def test_it_is_refused_while_the_webhook_sends_nothing_and_replaces_nothing(self, webhook, receiver, held, field):
        Webhook.objects.update(**held)
        webhook.refresh_from_db()
        with pytest.raises(DefinitionError) as refusal:
            send_waiting.send(webhook, latest_only=True)
        assert refusal.value.field == field
        assert len(deliveries(StatusChoices.PENDING)) == len(ALL)
        Webhook.objects.update(enabled=True, paused=False)
        webhook.refresh_from_db()
        send_waiting.send(webhook)
        work()
        assert told(receiver) == ALL

    def test_it_is_refused_while_the_plugin_is_off(self, webhook, monkeypatch):
        change_settings(monkeypatch, enabled=False)
        with pytest.raises(DefinitionError, match='is not True'):
            send_waiting.send(webhook, latest_only=True)
        assert len(deliveries(StatusChoices.PENDING)) == len(ALL)


class TestRest:
    def test_rest_shows_how_much_waits(self, webhook, api_client):
        shown = api_client.get(f'{API}{webhook.pk}/waiting/').json()
        assert (shown['changes'], shown['objects']) == (5, 2)
        assert shown['since']

    @pytest.mark.parametrize(
        ('data', 'expected'), [({}, ALL), ({'latest_only': False}, ALL), ({'latest_only': True}, LATEST)]
    )
    def test_it_sends_what_waits(self, webhook, api_client, receiver, data, expected):
        answer = api_client.post(f'{API}{webhook.pk}/waiting/', data, format='json')
        assert answer.status_code == 200, answer.content
        shown = answer.json()
        assert (shown['changes'], shown['superseded']) == (len(expected), len(ALL) - len(expected))
        work()
        assert told(receiver) == expected

    def test_sending_waiting_deliveries_names_a_wrong_field(self, webhook, api_client):
        answer = api_client.post(f'{API}{webhook.pk}/waiting/', {'latest_only': 'perhaps'}, format='json')
        assert answer.status_code == 400
        assert list(answer.json()) == ['latest_only']

    @pytest.mark.parametrize(('held', 'field'), HELD)
    def test_a_disabled_or_paused_webhook_is_refused_by_its_field(self, webhook, api_client, held, field):
        Webhook.objects.update(**held)
        answer = api_client.post(f'{API}{webhook.pk}/waiting/', {'latest_only': True}, format='json')
        assert answer.status_code == 400
        assert list(answer.json()) == [field]

    def test_it_needs_the_permission_to_change(self, webhook, clerk_api, grant):
        grant(Webhook, 'view')
        assert clerk_api.get(f'{API}{webhook.pk}/waiting/').status_code == 200
        assert clerk_api.post(f'{API}{webhook.pk}/waiting/', {}, format='json').status_code == 403
        grant(Webhook, 'change')
        assert clerk_api.post(f'{API}{webhook.pk}/waiting/', {}, format='json').status_code == 200


def age() -> None:
    Event.objects.update(timestamp=F('timestamp') - timedelta(hours=2))


class TestPages:
    @pytest.fixture
    def old(self, webhook: Webhook) -> Webhook:
        age()
        return webhook

    def test_the_page_says_what_waits_and_leads_on(self, admin_pages, old):
        page = admin_pages.get(old.get_absolute_url()).content.decode()
        assert 'Waiting: 5 changes · 2 objects' in page
        assert f'href="{old.get_absolute_url()}send-waiting/"' in page

    def test_a_webhooks_page_mentions_only_changes_that_have_waited_long(self, admin_pages, webhook):
        assert 'Waiting: ' not in admin_pages.get(webhook.get_absolute_url()).content.decode()
        age()
        assert 'Waiting: ' in admin_pages.get(webhook.get_absolute_url()).content.decode()

    @pytest.mark.parametrize(('held', 'field'), HELD)
    def test_a_disabled_or_paused_webhook_does_not_promise_to_send_now(self, admin_pages, old, held, field):
        assert 'Waiting: 5 changes' in admin_pages.get(old.get_absolute_url()).content.decode()
        Webhook.objects.update(**held)
        assert 'Waiting: 5 changes' not in admin_pages.get(old.get_absolute_url()).content.decode()
        answer = admin_pages.post(f'{old.get_absolute_url()}send-waiting/', {'what': 'latest'})
        (reason,) = answer.context['form'].non_field_errors()
        assert reason in answer.content.decode()
        assert f'The webhook is {"paused" if field == "paused" else "disabled"}.' in reason
        assert len(deliveries(StatusChoices.PENDING)) == len(ALL)

    def test_a_suspended_webhook_promises_one_try(self, admin_pages, old):
        answer = admin_pages.post(f'{old.get_absolute_url()}send-waiting/', {'what': 'all'}, follow=True)
        assert messages_of(answer)[0].startswith(f'{old} is suspended: one delivery is tried now.')

    def test_a_user_who_may_not_change_the_webhook_gets_no_button(self, clerk_pages, grant, old):
        grant(Webhook, 'view')
        page = clerk_pages.get(old.get_absolute_url()).content.decode()
        assert 'Waiting: 5 changes · 2 objects' in page
        assert 'send-waiting' not in page
        assert clerk_pages.post(f'{old.get_absolute_url()}send-waiting/', {'what': 'latest'}).status_code == 403
        assert len(deliveries(StatusChoices.PENDING)) == 5

    def test_the_banner_leads_on_whoever_may_change_this_one(self, clerk_pages, grant, old):
        link = f'<a href="{old.get_absolute_url()}send-waiting/">'
        grant(Webhook, 'view')
        grant(Webhook, 'change', name='Another')
        assert link not in clerk_pages.get(old.get_absolute_url()).content.decode()
        assert clerk_pages.post(f'{old.get_absolute_url()}send-waiting/', {'what': 'latest'}).status_code == 404
        grant(Webhook, 'change', pk=old.pk)
        assert link in clerk_pages.get(old.get_absolute_url()).content.decode()

    @pytest.mark.parametrize(('what', 'expected'), [('all', ALL), ('latest', LATEST)])
    def test_it_asks_and_sends(self, admin_pages, webhook, receiver, what, expected):
        address = f'{webhook.get_absolute_url()}send-waiting/'
        assert '5 changes · 2 objects' in admin_pages.get(address).content.decode()
        answer = admin_pages.post(address, {'what': what}, follow=True)
        assert answer.redirect_chain[-1][0] == webhook.get_absolute_url()
        assert len(messages_of(answer)) == 1
        work()
        assert told(receiver) == expected

    def test_a_choice_is_needed(self, admin_pages, webhook):
        answer = admin_pages.post(f'{webhook.get_absolute_url()}send-waiting/', {})
        assert answer.context['form'].errors.keys() == {'what'}
        assert '5 changes · 2 objects' in answer.content.decode()
