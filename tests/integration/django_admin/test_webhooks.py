import re

import pytest
import requests
from core.choices import ObjectChangeActionChoices
from dcim.models import Rack, Site
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from support.admin_browser import (
    ADD,
    DELIVERIES,
    INDEX,
    MASK,
    WEBHOOKS,
    changes_of,
    messages_of,
    page_of,
    press,
    queries,
    run,
)
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event
from users.models import User

from devstack.receiver import Receiver
from webhooks.django_admin.webhook import WebhookAdmin
from webhooks.models import Credential, Delivery, Event, Health, Webhook
from webhooks.presentation.states import STATES

STATUS_PAGE = '/admin/webhook-backend-status/'
FAILED_JOBS = f'{STATUS_PAGE}queues/0/failed/'

# Without `committed`, the transaction is rolled back.
pytestmark = pytest.mark.usefixtures('saves')


@pytest.fixture
def client(netbox_user: User) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


@pytest.fixture
def webhook(saves: None) -> Webhook:
    return subscribe('https://a.example/hook?key=hidden', Site, name='Receiver', secret='a secret')


#
# Access
#


class TestDoor:
    PAGES = (INDEX, WEBHOOKS, ADD, DELIVERIES, STATUS_PAGE, FAILED_JOBS)

    @pytest.mark.parametrize('page', PAGES)
    def test_a_superuser_is_let_in(self, client, page):
        assert client.get(page).status_code == 200

    @pytest.mark.parametrize('page', PAGES)
    def test_an_anonymous_visitor_is_led_to_netbox_login(self, page):
        response = Client().get(page)
        assert (response.status_code, response.url) == (302, f'/login/?next={page}')

    @pytest.mark.parametrize('page', (*PAGES, '/admin/login/'))
    def test_another_user_gets_403(self, page):
        client, someone = Client(), User.objects.create_user(username='someone')
        client.force_login(someone)
        assert client.get(page).status_code == 403
        User.objects.filter(pk=someone.pk).update(is_superuser=True)
        assert client.get(page, follow=True).status_code == 200

    def test_another_user_cannot_post(self, webhook):
        client = Client()
        client.force_login(User.objects.create_user(username='someone'))
        assert client.post(page_of(webhook, 'delete'), {'post': 'yes'}).status_code == 403
        assert Webhook.objects.filter(pk=webhook.pk).exists()

    def test_the_admins_login_leads_on(self, client):
        assert Client().get('/admin/login/?next=/admin/webhooks/').url == '/login/?next=/admin/webhooks/'
        assert client.get('/admin/login/').url == INDEX

    def test_logout_and_password_are_netbox_own(self, client):
        assert client.post('/admin/logout/').url == reverse('logout')
        assert client.get('/admin/password_change/').url == reverse('account:change_password')

    def test_only_our_models_are_there(self):
        assert set(admin.site._registry) == {Webhook, Delivery, Event, Credential}

    def test_the_front_page_leads_to_the_status_page_and_to_netbox(self, client):
        page = client.get(INDEX).content.decode()
        assert f'href="{STATUS_PAGE}"' in page
        assert 'href="/"' in page


def test_the_admin_works_below_a_base_path(committed, make_netbox, netbox_user):
    server = make_netbox('BASE_PATH = "netbox/"').start_server(base_path='netbox/')
    try:
        server.wait_until_ready()
        with requests.Session() as browser:
            login = browser.get(f'{server.url}admin/')
            assert login.url == f'{server.url}login/?next=/netbox/admin/'
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', login.text)[1]
            credentials = {
                'username': 'admin',
                'password': 'admin',
                'next': '/netbox/admin/',
                'csrfmiddlewaretoken': token,
            }
            front = browser.post(login.url, credentials, headers={'Referer': login.url})
            assert front.url == f'{server.url}admin/'
            assert 'href="/netbox/admin/webhook-backend-status/"' in front.text
            assert '/netbox/static/admin/css/base.css' in front.text
            assert browser.get(f'{server.url}admin/webhook-backend-status/').status_code == 200
    finally:
        server.stop()


#
# Webhooks
#


class TestWebhookList:
    def test_it_shows_the_url_masked(self, client, webhook):
        assert f'https://a.example/hook?key={MASK}' in client.get(WEBHOOKS).content.decode()

    @pytest.mark.parametrize(
        ('health', 'state', 'words'),
        [
            (None, 'active', ['Active', 'no request yet']),
            ({'last_attempt_at': timezone.now()}, 'active', ['Active', 'last request']),
            ({'last_attempt_at': timezone.now(), 'last_error': 'HTTP 500'}, 'failing', ['Failing', 'HTTP 500']),
            (
                {'last_attempt_at': timezone.now(), 'last_error': 'refused', 'suspended_since': timezone.now()},
                'suspended',
                ['Suspended', 'since', 'refused'],
            ),
        ],
    )
    def test_the_state_is_shown_in_a_word_with_its_reason(self, client, webhook, health, state, words):
        if health is not None:
            Health.objects.update_or_create(health, webhook=webhook)
        page = client.get(WEBHOOKS).content.decode()
        cell = re.search(r'field-state">(.*?)</td>', page, re.DOTALL)[1]
        assert [word for word in words if word in cell] == words
        for key in STATES:
            found = list(client.get(WEBHOOKS, {'state': key}).context['cl'].result_list)
            assert found == ([webhook] if key == state else [])

    @pytest.mark.parametrize(
        'parameters',
        [{'enabled__exact': 1}, {'paused__exact': 0}, {'object_type': 'dcim.site'}, {'q': 'recei'}],
    )
    def test_filters_and_search_find_webhooks(self, client, webhook, parameters):
        subscribe(NOWHERE, Rack, name='Other', enabled=False, paused=True)
        assert list(client.get(WEBHOOKS, parameters).context['cl'].result_list) == [webhook]

    @pytest.mark.parametrize('name', ['payload_url', 'additional_headers', 'secret', 'previous_secret'])
    def test_no_filter_reveals_masked_values(self, client, webhook, name):
        for guess in ('hidden', 'wrong'):
            assert client.get(WEBHOOKS, {f'{name}__contains': guess}).status_code == 400
        assert client.get(WEBHOOKS, {'name__contains': 'Rec'}).status_code == 200

    def test_queries_do_not_grow_with_the_list(self, client):
        subscribe(NOWHERE, Site)
        few = queries(client, WEBHOOKS)
        for _ in range(8):
            Health.objects.get_or_create(webhook=subscribe(NOWHERE, Site, Rack))
        assert queries(client, WEBHOOKS) == few

    def test_no_order_reveals_masked_values(self, client):
        for url in ('https://b:b@x.example/', 'https://a:a@x.example/'):
            subscribe(url, Site)
        column = WebhookAdmin.list_display.index('url') + 1
        up, down = (client.get(WEBHOOKS, {'o': order}).context['cl'].result_list for order in (column, -column))
        assert list(up) == list(down)


class TestWebhookActions:
    def test_a_row_has_one_box_to_select_it(self, client, webhook):
        boxes = re.findall(r'<input[^>]*name="_selected_action"[^>]*>', client.get(WEBHOOKS).content.decode())
        assert [re.search(r'value="(\d*)"', box)[1] for box in boxes] == [str(webhook.pk)]

    def test_a_webhook_is_paused_and_resumed_by_a_button_on_its_page(self, client, webhook):
        for action, other, paused in (('pause', 'resume', True), ('resume', 'pause', False)):
            page = client.get(page_of(webhook)).content.decode()
            assert f'value="{action}">' in page
            assert f'value="{other}">' not in page
            [told] = messages_of(press(client, webhook, action))
            assert told.startswith(f'{action}d'.capitalize())
            webhook.refresh_from_db()
            assert webhook.paused is paused

    def test_a_test_is_sent_and_its_answer_shown(self, committed, client, receiver: Receiver):
        receiver.answers('/bad', 500)
        site()
        good, bad = (subscribe(receiver.url(path), Site, name=path) for path in ('/good', '/bad'))
        for webhook, status in ((good, 200), (bad, 500)):
            [told] = messages_of(press(client, webhook, 'test'))
            assert f'HTTP {status}' in told
        assert [request.path for request in receiver.wait_for(2)] == ['/good', '/bad']

    def test_a_test_without_an_object_is_a_ping(self, committed, client, receiver: Receiver):
        [told] = messages_of(press(client, subscribe(receiver.url('/')), 'test'))
        assert 'HTTP 200' in told
        assert receiver.wait_for(1)[0].json()['event'] == 'test'

    def test_enter_in_the_form_presses_no_action(self, client, webhook):
        page = client.get(page_of(webhook)).content.decode()
        assert 'value="test"' in page
        form = page[page.index('id="webhook_form"') :]
        assert page_of(webhook) not in form[: form.index('type="submit"')]
        assert 'value="test"' not in form


class TestDeletingWebhooks:
    def test_one_webhook_is_deleted_and_logged(self, client, webhook, netbox_user):
        client.post(page_of(webhook, 'delete'), {'post': 'yes'})
        [change] = changes_of(webhook)
        assert (change.action, change.user) == (ObjectChangeActionChoices.ACTION_DELETE, netbox_user)
        assert change.prechange_data['secret'] == MASK

    def test_several_webhooks_are_deleted_and_logged(self, client, webhook):
        other, kept = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
        delivery(event(site()), webhook)
        run(client, WEBHOOKS, 'delete_selected', webhook, other, post='yes')
        assert list(Webhook.objects.all()) == [kept]
        assert not Delivery.objects.exists()
        for deleted in (webhook, other):
            assert [change.action for change in changes_of(deleted)] == [ObjectChangeActionChoices.ACTION_DELETE]

    def test_the_log_is_counted_and_not_listed(self, client, webhook):
        logged = [delivery(event(site()), webhook) for _ in range(3)]
        page = run(client, WEBHOOKS, 'delete_selected', webhook).content.decode()
        assert 'Deliveries: 3' in page
        assert not [one for one in logged if str(one.uuid) in page]

    @pytest.mark.parametrize('how', ['one', 'several'])
    def test_a_protection_rule_is_explained(self, client, webhook, settings, how):
        settings.PROTECTION_RULES = {'webhooks.webhook': [{'enabled': {'eq': False}}]}
        if how == 'one':
            response = client.post(page_of(webhook, 'delete'), {'post': 'yes'}, follow=True)
        else:
            response = run(client, WEBHOOKS, 'delete_selected', webhook, post='yes')
        assert 'protection rule' in messages_of(response)[0]
        assert Webhook.objects.filter(pk=webhook.pk).exists()
        assert not LogEntry.objects.exists()
