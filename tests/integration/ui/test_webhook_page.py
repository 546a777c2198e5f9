"""The page of a webhook shows how it goes first. The list says why something does not go."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.utils import timezone
from extras.models import JournalEntry
from support.builders import NOWHERE, site, subscribe
from support.confirming import confirm, first_sentence
from support.log import delivery, event

from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Health, Webhook

pytestmark = pytest.mark.usefixtures('saves')

LIST = '/plugins/webhooks/webhooks/'
TABS = ('', 'deliveries/', 'preview/', 'changelog/', 'journal/')
BUTTONS = ('Send a test', 'Pause', 'Redeliver past events')


@pytest.fixture
def webhook() -> Webhook:
    return subscribe(NOWHERE, Site, name='monitoring')


def text_of(pages, address: str) -> str:
    answer = pages.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


class TestNextAttempt:
    @pytest.mark.parametrize('fields', [{}, {'paused': True}, {'enabled': False}])
    def test_it_is_shown_unless_the_webhook_is_paused_or_disabled(self, admin_pages, webhook, fields):
        now = timezone.now()
        Health.objects.filter(webhook=webhook).update(suspended_since=now, probe_at=now, last_error='refused')
        Webhook.objects.filter(pk=webhook.pk).update(**fields)
        text = text_of(admin_pages, webhook.get_absolute_url())
        assert 'Suspended since' in text
        assert ('>Next attempt</th>' in text) == (not fields)


class TestDelete:
    def test_the_page_says_how_many_deliveries_go_too(self, admin_pages, webhook):
        address = f'{webhook.get_absolute_url()}delete/'
        assert 'deliver' not in dependents(text_of(admin_pages, address))
        for _ in range(2):
            delivery(event(site()), webhook)
        assert dependents(text_of(admin_pages, address)) == '2 deliveries'

    def test_so_does_that_of_several(self, admin_pages, webhook):
        asked = admin_pages.post(f'{LIST}delete/', {'pk': [webhook.pk], 'confirm': ''})
        assert 'All deliveries of these webhooks are deleted too.' in asked.content.decode()


def dependents(page: str) -> str:
    return ' '.join(re.sub('<.*?>', ' ', page.partition('id="deleteAccordion">')[2].partition('</h2>')[0]).split())


class TestPage:
    def test_health_causes_and_deliveries_come_before_settings(self, admin_pages, webhook):
        delivery(event(site()), webhook)
        text = text_of(admin_pages, webhook.get_absolute_url())
        titles = ('Health', 'Why Deliveries Failed', 'Last Deliveries', 'HTTP method')
        places = [text.index(title) for title in titles]
        assert places == sorted(places)

    def test_a_webhooks_page_has_no_row_for_a_suspension_that_did_not_happen(self, admin_pages, webhook):
        address = webhook.get_absolute_url()
        assert 'Suspended since' not in text_of(admin_pages, address)
        Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now(), probe_at=timezone.now())
        assert 'Suspended since' in text_of(admin_pages, address)

    @pytest.mark.parametrize('tab', TABS)
    def test_its_buttons_are_on_all_tabs(self, admin_pages, webhook, tab):
        text = text_of(admin_pages, f'{webhook.get_absolute_url()}{tab}')
        for label in BUTTONS:
            assert text.count(f'> {label}') == 1, label

    @pytest.mark.parametrize('tab', TABS)
    def test_a_user_without_the_permission_sees_no_button(self, clerk_pages, grant, webhook, tab):
        for model in (Webhook, Delivery, Site, ObjectChange, JournalEntry):
            grant(model, 'view')
        text = text_of(clerk_pages, f'{webhook.get_absolute_url()}{tab}')
        assert not [label for label in BUTTONS if f'> {label}' in text]


class TestTab:
    def test_it_lists_the_webhooks_own_deliveries(self, admin_pages, webhook):
        own = delivery(event(site()), webhook)
        other = delivery(event(site()))
        address = f'{webhook.get_absolute_url()}deliveries/'
        for query in ('', f'?webhook_id={other.webhook_id}', '?status=failed'):
            rows = admin_pages.get(f'{address}{query}').context['table'].rows
            assert {row.record for row in rows} <= {own}
        assert [row.record for row in admin_pages.get(address).context['table'].rows] == [own]

    def test_it_has_filters_bulk_redelivery_and_the_refresh(self, admin_pages, webhook):
        delivery(event(site()), webhook)
        text = text_of(admin_pages, f'{webhook.get_absolute_url()}deliveries/')
        for part in ('name="status"', 'name="error"', 'name="_redeliver"', 'id="auto-refresh"'):
            assert part in text
        assert 'name="webhook_id"' not in text

    def test_the_tab_of_deliveries_has_a_filter(self, admin_pages, webhook):
        failed = delivery(event(site()), webhook)
        delivery(event(site()), webhook, status=StatusChoices.DELIVERED)
        rows = admin_pages.get(f'{webhook.get_absolute_url()}deliveries/?status=failed').context['table'].rows
        assert [row.record for row in rows] == [failed]

    def test_all_of_the_list_is_redelivered_and_nothing_of_another_webhook(self, committed, admin_pages, webhook):
        delivery(event(site()), webhook)
        delivery(event(site()), webhook, status=StatusChoices.DELIVERED)
        delivery(event(site()))
        address = f'{webhook.get_absolute_url()}deliveries/?status=failed'
        url = admin_pages.get(address).context['redeliver_url']
        asked = admin_pages.get(url)
        assert first_sentence(asked).startswith('1 delivery to 1 webhook')
        assert parse_qs(urlsplit(url).query)['return_url'] == [address]
        confirm(admin_pages, asked)
        assert Delivery.objects.get(status=StatusChoices.PENDING).webhook == webhook

    def test_it_takes_the_permission_to_view_deliveries(self, clerk_pages, grant, webhook):
        grant(Webhook, 'view')
        address = f'{webhook.get_absolute_url()}deliveries/'
        assert clerk_pages.get(address).status_code == 403
        grant(Delivery, 'view')
        answer = clerk_pages.get(address)
        assert answer.status_code == 200
        assert 'redeliver_url' not in answer.context


class TestList:
    def test_the_list_of_webhooks_shows_reasons_and_how_many_wait(self, admin_pages, webhook):
        for status in (StatusChoices.PENDING, StatusChoices.UNDECIDED, StatusChoices.FAILED):
            delivery(event(site()), webhook, status=status)
        Health.objects.filter(webhook=webhook).update(last_error='HTTP 502 Bad Gateway')
        text = text_of(admin_pages, LIST)
        assert 'HTTP 502 Bad Gateway' in text
        address = f'/plugins/webhooks/deliveries/?webhook_id={webhook.pk}&amp;status=undecided&amp;status=pending'
        assert f'<a href="{address}">2</a>' in text

    def test_its_export_has_the_numbers_without_markup(self, admin_pages, webhook):
        delivery(event(site()), webhook, status=StatusChoices.PENDING)
        lines = admin_pages.get(f'{LIST}?export=table').content.decode().splitlines()
        row = dict(zip(lines[0].split(','), lines[1].split(','), strict=True))
        assert row['Waiting'] == '1'
