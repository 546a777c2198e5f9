import re
from datetime import timedelta

import pytest
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import RequestFactory
from django.utils import timezone
from django_rq import get_worker
from extras.models import EventRule
from netbox.registry import registry
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event
from support.settings import change_settings
from users.models import User

from webhooks.choices import StatusChoices
from webhooks.dashboard import WebhooksWidget
from webhooks.models import Delivery, Event, Health, Hour, Webhook
from webhooks.models.fields import Sealed
from webhooks.services import why_not_sent

pytestmark = pytest.mark.usefixtures('db')


@pytest.fixture
def webhook() -> Webhook:
    return subscribe(NOWHERE, Site, name='Inventory')


def card(user: User) -> str:
    request = RequestFactory().get('/')
    # A cached user would keep former permissions.
    request.user = User.objects.get(pk=user.pk)
    return ' '.join(WebhooksWidget().render(request).split())


def suspend(webhook: Webhook) -> None:
    now = timezone.now()
    Health.objects.filter(webhook=webhook).update(
        suspended_since=now, probe_at=now + timedelta(minutes=1), last_error='connection refused'
    )


def test_it_can_be_put_on_a_dashboard():
    assert registry['widgets']['webhooks.WebhooksWidget'] is WebhooksWidget


class TestCard:
    @pytest.fixture
    def log(self, webhook: Webhook) -> None:
        now = timezone.now()
        delivery(event(site()), webhook, status=StatusChoices.PENDING, created=now - timedelta(hours=3))
        delivery(event(site()), webhook, status=StatusChoices.PENDING)
        delivery(event(site()), webhook, status=StatusChoices.FAILED, finished_at=now)
        delivery(event(site()), webhook, status=StatusChoices.FAILED, finished_at=now - timedelta(days=2))
        Hour.objects.count_all({webhook.pk: {'delivered': 3, 'failed': 1}}, now)
        Hour.objects.count_all({webhook.pk: {'failed': 1}}, now - timedelta(days=2))

    def test_it_shows_how_sending_goes(self, netbox_user, webhook, log):
        suspend(webhook)
        shown = card(netbox_user)
        assert 'Waiting to be sent</a> <strong>2</strong>' in shown
        assert '3 hours</strong>' in shown
        assert '1 of 4 (25.0&nbsp;%)' in shown
        assert 'Suspended webhooks</a> <strong>1</strong>' in shown
        assert f'href="{webhook.get_absolute_url()}"' in shown
        assert 'No worker is running' in shown

    def test_its_links_lead_to_what_it_counts(self, admin_pages, netbox_user, webhook, log):
        suspend(webhook)
        request = RequestFactory().get('/')
        request.user = netbox_user
        counted = []
        for part in WebhooksWidget().render(request).split('href="')[1:]:
            page = admin_pages.get(part.split('"')[0].replace('&amp;', '&'))
            found = page.context.get('object') or page.request['PATH_INFO']
            counted.append(len(page.context['table'].rows) if 'table' in page.context else found)
        assert counted == [2, '/plugins/webhooks/status/', 1, 1, webhook]

    def test_the_dashboard_counts_events_that_no_worker_has_processed(self, netbox_user, webhook):
        site()
        assert 'not processed yet <strong>1</strong>' in card(netbox_user)

    def test_that_no_worker_is_running_is_said_where_something_waits(self, netbox_user, webhook):
        assert 'No worker is running' not in card(netbox_user)
        site()
        assert 'No worker is running' in card(netbox_user)

    def test_waiting_changes_are_stuck_only_without_a_worker(self, netbox_user, webhook):
        delivery(event(site()), webhook, status=StatusChoices.PENDING)
        assert 'No worker is running' in card(netbox_user)
        worker = get_worker('low')
        worker.register_birth()
        try:
            assert 'No worker is running' not in card(netbox_user)
        finally:
            worker.register_death()

    def test_the_oldest_may_be_one_that_no_worker_has_looked_at(self, netbox_user, webhook):
        delivery(event(site()), webhook, status=StatusChoices.PENDING)
        Event.objects.filter(dispatched_at=None).update(timestamp=timezone.now() - timedelta(hours=5))
        assert '5 hours</strong>' in card(netbox_user)

    def test_it_names_those_that_are_suspended_longest(self, netbox_user):
        now = timezone.now()
        for days in (3, 6, 1, 5, 2, 4):
            one = subscribe(NOWHERE, Site, name=f'For {days} days')
            Health.objects.filter(webhook=one).update(suspended_since=now - timedelta(days=days), probe_at=now)
        shown = card(netbox_user)
        assert 'Suspended webhooks</a> <strong>6</strong>' in shown
        assert re.findall(r'For \d days', shown) == [f'For {days} days' for days in (6, 5, 4, 3, 2)]

    def test_a_disabled_webhook_is_not_called_suspended(self, netbox_user, webhook):
        suspend(webhook)
        Webhook.objects.update(enabled=False)
        assert 'Suspended webhooks</a> <strong>0</strong>' in card(netbox_user)


class TestPermissions:
    def test_without_permission_to_view_webhooks_the_card_is_empty(self, clerk_user, grant, webhook):
        grant(Delivery, 'view')
        suspend(webhook)
        assert 'No permission to view this content' in card(clerk_user)
        assert 'Inventory' not in card(clerk_user)
        assert '<strong>' not in card(clerk_user)

    def test_the_card_counts_only_webhooks_that_may_be_viewed(self, clerk_user, grant, webhook):
        other = subscribe(NOWHERE, Site, name='Other')
        for one in (webhook, other, other):
            delivery(event(site()), one, status=StatusChoices.PENDING)
            Hour.objects.count_all({one.pk: {'failed': 1}}, timezone.now())
            suspend(one)
        grant(Webhook, 'view', name='Inventory')
        grant(Delivery, 'view')
        shown = card(clerk_user)
        assert 'Inventory' in shown
        assert 'Other' not in shown
        assert 'Waiting to be sent</a> <strong>1</strong>' in shown
        assert '1 of 1 (' in shown
        assert 'not processed yet' not in shown

    def test_the_card_counts_only_deliveries_and_changes_that_may_be_viewed(self, clerk_user, grant, webhook):
        places = [site(), site()]
        for place in places:
            delivery(event(place), webhook, status=StatusChoices.PENDING)
        grant(Webhook, 'view')
        for model in (Delivery, Event):
            grant(model, 'view', object_id=places[0].pk)
        shown = card(clerk_user)
        assert 'Waiting to be sent</a> <strong>1</strong>' in shown
        assert 'not processed yet <strong>1</strong>' in shown

    def test_without_permission_to_view_deliveries_there_are_no_figures_of_them(self, clerk_user, grant, webhook):
        grant(Webhook, 'view')
        grant(Event, 'view')
        shown = card(clerk_user)
        assert 'Suspended webhooks' in shown
        assert 'Waiting' not in shown
        assert '/deliveries/' not in shown


class TestBanners:
    def titles(self, webhook: Webhook) -> list[str]:
        return [banner.title for banner in why_not_sent.banners_of(Webhook.objects.get(pk=webhook.pk))]

    def test_a_banner_says_that_the_webhook_is_disabled(self, webhook):
        Webhook.objects.update(enabled=False)
        assert self.titles(webhook) == ['Disabled']

    def test_a_banner_says_that_the_endpoint_is_gone(self, webhook):
        Webhook.objects.update(enabled=False)
        Health.objects.update(last_status=410, last_attempt_at=timezone.now())
        assert self.titles(webhook) == ['Disabled by its receiver']

    def test_a_banner_says_that_the_webhook_is_paused(self, webhook):
        Webhook.objects.update(paused=True)
        assert self.titles(webhook)[0] == 'Paused'

    def test_a_suspended_webhook_says_why_and_when_it_is_tried(self, webhook):
        suspend(webhook)
        banner = why_not_sent.banners_of(Webhook.objects.get())[0]
        assert banner.title == 'Suspended'
        assert 'connection refused' in banner.text
        assert f'{timezone.localtime(Health.objects.get().probe_at):%Y-%m-%d %H:%M:%S}' in banner.text

    def test_a_banner_says_that_nothing_is_sent_through_the_webhook(self, webhook):
        assert 'Nothing is sent' not in self.titles(webhook)
        webhook.object_types.clear()
        assert self.titles(webhook)[0] == 'Nothing is sent'
        rule = EventRule.objects.create(
            name='Jobs',
            event_types=['job_completed'],
            action_type='webhooks.send',
            action_object_type=ContentType.objects.get_for_model(Webhook),
            action_object_id=webhook.pk,
        )
        assert 'Nothing is sent' not in self.titles(webhook)
        rule.enabled = False
        rule.save()
        assert self.titles(webhook)[0] == 'Nothing is sent'

    def test_a_banner_says_that_no_worker_is_running(self, webhook):
        assert self.titles(webhook) == ['No worker is running']

    def test_a_banner_says_that_webhooks_are_off(self, webhook, monkeypatch):
        change_settings(monkeypatch, enabled=False)
        assert self.titles(webhook) == ['Webhooks are off']

    @pytest.mark.parametrize('column', ['secret', 'additional_headers'])
    def test_a_banner_names_a_secret_that_cannot_be_decrypted(self, webhook, column):
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE webhooks_webhook SET {column} = 'nonsense'")
        assert self.titles(webhook)[0] == f'Stored value cannot be decrypted: {column.replace("_", " ")}'

    @pytest.mark.parametrize(('hours', 'is_named'), [(1, True), (-1, False)])
    def test_a_banner_names_a_previous_secret_that_cannot_be_decrypted_while_it_signs(self, webhook, hours, is_named):
        expires = timezone.now() + timedelta(hours=hours)
        Webhook.objects.update(secret='s3cret', previous_secret=Sealed('nonsense'), previous_secret_expires=expires)
        assert ('Stored value cannot be decrypted: previous secret' in self.titles(webhook)) is is_named

    def test_the_page_of_a_webhook_shows_the_notices(self, admin_pages, webhook):
        suspend(webhook)
        page = admin_pages.get(webhook.get_absolute_url()).content.decode()
        assert 'role="alert"' in page
        assert 'The receiver has been unreachable since' in page

    def test_the_page_of_a_webhook_says_that_nothing_asks_for_it(self, admin_pages, webhook):
        address = webhook.get_absolute_url()
        assert 'no object types' not in admin_pages.get(address).content.decode()
        webhook.object_types.clear()
        assert 'no object types' in admin_pages.get(address).content.decode()


@pytest.mark.parametrize(('own', 'worker'), [({}, 'netbox-rq'), ({'redis_db': 5}, 'netbox-webhooks-rq')])
def test_every_page_names_the_worker_to_start(admin_pages, netbox_user, webhook, monkeypatch, own, worker):
    change_settings(monkeypatch, **own)
    delivery(event(site()), webhook, status=StatusChoices.PENDING)
    addresses = (webhook.get_absolute_url(), '/admin/webhook-backend-status/')
    pages = [card(netbox_user), *(admin_pages.get(address).content.decode() for address in addresses)]
    for page in pages:
        assert f'tart the service {worker}' in page.replace('<code>', '')
    assert f'start the service <code>{worker}</code>' in pages[-1]
