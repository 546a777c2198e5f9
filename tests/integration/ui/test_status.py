"""The page Status in NetBox."""

import re
from datetime import timedelta
from html import unescape

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.confirming import confirm
from support.log import delivery, event
from support.settings import change_settings

from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Event, Health, Webhook
from webhooks.outbox import redis_queue
from webhooks.presentation.moments import moment
from webhooks.services import database_health

pytestmark = pytest.mark.usefixtures('saves')

PAGE = '/plugins/webhooks/status/'
REDELIVER = 'Redeliver all failed deliveries'


@pytest.fixture
def webhook() -> Webhook:
    return subscribe(NOWHERE, Site, name='Inventory')


@pytest.fixture
def log(webhook: Webhook) -> None:
    now, last = timezone.now(), site()
    delivery(event(site()), webhook, status=StatusChoices.PENDING, created=now - timedelta(hours=3))
    delivery(event(site()), webhook, status=StatusChoices.FAILED, finished_at=now)
    delivery(event(site()), webhook, status=StatusChoices.FAILED, finished_at=now)
    Event.objects.filter(deliveries__isnull=True).delete()
    event(last, dispatched_at=None)
    Health.objects.filter(webhook=webhook).update(suspended_since=now)


def text_of(pages: Client, address: str = PAGE) -> str:
    answer = pages.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def lines(text: str) -> dict[str, str]:
    """Return {label: value} of the table."""
    rows = re.findall(r'<th scope="row"><a[^>]*>(.*?)</a></th>\s*<td>(.*?)</td>', text, re.DOTALL)
    return {label: ' '.join(unescape(re.sub(r'<[^>]+>', ' ', said)).split()) for label, said in rows}


class TestFigures:
    def test_a_line_counts_webhooks_that_their_receivers_disabled_and_leads_to_them(self, admin_pages, webhook):
        label = 'Webhooks disabled by their receivers'
        assert label not in lines(text_of(admin_pages))
        Webhook.objects.update(enabled=False)
        Health.objects.update(last_status=410)
        text = text_of(admin_pages)
        assert lines(text)[label] == '1'
        listed = admin_pages.get(re.search(f'<a href="([^"]*)">{label}</a>', text)[1])
        assert 'Inventory' in listed.content.decode()

    def test_the_status_page_says_that_webhooks_are_off(self, admin_pages, log, monkeypatch):
        assert 'Webhooks' not in lines(text_of(admin_pages))
        change_settings(monkeypatch, enabled=False)
        said = lines(text_of(admin_pages))['Webhooks']
        assert said.startswith('Off Changes are not recorded, and nothing is sent.')

    def test_the_status_page_shows_how_much_waits_and_failed(self, admin_pages, log):
        assert lines(text_of(admin_pages)) == {
            'Workers': 'None running Nothing is sent. Start the service netbox-rq.',
            'Waiting': '1 delivery · 1 change not processed yet · oldest: 3 hours',
            'Failed deliveries': '2',
            'Suspended webhooks': f'1 Inventory (since {moment(Health.objects.get().suspended_since)})',
        }

    def test_a_paused_webhook_is_named_with_who_paused_it_and_since_when(self, admin_pages, webhook):
        assert 'Paused webhooks' not in lines(text_of(admin_pages))
        admin_pages.post(f'/plugins/webhooks/webhooks/{webhook.pk}/pause/')
        since = moment(ObjectChange.objects.get(changed_object_id=webhook.pk).time)
        text = text_of(admin_pages)
        assert lines(text)['Paused webhooks'] == f'1 Inventory (since {since}, by admin)'
        listed = admin_pages.get(re.search('<a href="([^"]*)">Paused webhooks</a>', text)[1])
        assert 'Inventory' in listed.content.decode()

    def test_only_readers_of_the_change_log_see_who_paused_a_webhook(self, clerk_pages, grant, api_client, webhook):
        api_client.patch(f'/api/plugins/webhooks/webhooks/{webhook.pk}/', {'paused': True}, format='json')
        grant(Webhook, 'view')
        assert lines(text_of(clerk_pages))['Paused webhooks'] == '1 Inventory'
        grant(ObjectChange, 'view')
        assert lines(text_of(clerk_pages))['Paused webhooks'].endswith(', by admin)')

    def test_the_first_five_suspended_webhooks_are_named(self, admin_pages):
        for number in range(6):
            Health.objects.filter(webhook=subscribe(NOWHERE, Site, name=f'Hook {number}')).update(
                suspended_since=timezone.now()
            )
        said = lines(text_of(admin_pages))['Suspended webhooks']
        assert said.startswith('6 Hook 0 (')
        assert said.endswith('· …')
        assert said.count('Hook') == 5

    def test_its_links_lead_to_what_it_counts(self, admin_pages, log):
        text = text_of(admin_pages)
        links = re.findall(r'<th scope="row"><a href="([^"]+)"', text)
        workers, *lists = map(unescape, links)
        assert f'id="{workers.removeprefix("#")}"' in text
        assert [len(admin_pages.get(link).context['table'].rows) for link in lists] == [1, 2, 1]

    def test_the_number_of_what_waits_leads_there_too(self, admin_pages, log):
        [(link, rest)] = re.findall(r'<a href="([^"]+)">1 delivery</a>([^<]*)<', text_of(admin_pages))
        assert 'status' in link
        assert '/deliver' in link
        assert rest.split()[:3] == ['·', '1', 'change']

    def test_what_waits_is_counted_as_it_is_listed(self, admin_pages, webhook):
        """A delivery whose conditions are not decided yet waits, too."""
        for status in (StatusChoices.PENDING, StatusChoices.UNDECIDED):
            delivery(event(site()), webhook, status=status)
        (link,) = re.findall(r'<a href="([^"]+)">2 deliveries</a>', text_of(admin_pages))
        assert len(admin_pages.get(unescape(link)).context['table'].rows) == 2

    def test_it_does_not_call_workers_missing_while_redis_is_away(self, admin_pages, monkeypatch):
        monkeypatch.setattr(redis_queue, 'workers', lambda: None)
        text = text_of(admin_pages)
        assert 'Redis does not answer, so the workers are unknown.' in text
        assert 'No worker is registered' not in text

    def test_it_shows_the_workers(self, admin_pages, committed, rqworker):
        assert 'No worker is registered in Redis.' in text_of(admin_pages)
        rqworker('low')
        (registered,) = redis_queue.workers()
        text = text_of(admin_pages)
        assert f'<td>{registered.pid}</td>' in text
        assert lines(text)['Workers'] == '1 running'

    def test_the_menu_leads_to_it(self, admin_pages):
        assert f'href="{PAGE}"' in text_of(admin_pages, reverse('home'))


class TestDatabase:
    def test_superusers_see_the_tables_and_what_keeps_dead_rows(self, admin_pages, monkeypatch):
        assert 'webhooks_delivery' in text_of(admin_pages)
        monkeypatch.setattr(database_health, '_unvacuumed', lambda tables: ['Run VACUUM'])
        assert 'Run VACUUM' in text_of(admin_pages)

    def test_other_users_see_nothing_of_the_database(self, clerk_pages, grant):
        grant(Delivery, 'view')
        assert 'webhooks_delivery' not in text_of(clerk_pages)


class TestWhoSeesIt:
    def test_a_visitor_is_led_to_the_login(self, client):
        answer = client.get(PAGE)
        assert (answer.status_code, answer.url) == (302, f'/login/?next={PAGE}')

    def test_a_user_without_the_permission_is_refused_and_has_no_entry_in_the_menu(self, clerk_pages, grant):
        assert clerk_pages.get(PAGE).status_code == 403
        assert f'href="{PAGE}"' not in text_of(clerk_pages, reverse('home'))
        grant(Delivery, 'view')
        assert f'href="{PAGE}"' in text_of(clerk_pages, reverse('home'))

    def test_a_user_sees_the_lines_of_what_he_may_view(self, clerk_pages, grant, log):
        grant(Delivery, 'view')
        assert lines(text_of(clerk_pages)).keys() == {'Workers', 'Waiting', 'Failed deliveries'}
        assert lines(text_of(clerk_pages))['Waiting'] == '1 delivery · oldest: 3 hours'
        grant(Webhook, 'view')
        grant(Event, 'view')
        assert lines(text_of(clerk_pages))['Suspended webhooks'].startswith('1 Inventory')
        assert '1 change' in lines(text_of(clerk_pages))['Waiting']

    def test_a_user_who_may_view_only_webhooks_sees_their_lines(self, clerk_pages, grant, log):
        grant(Webhook, 'view')
        assert lines(text_of(clerk_pages)).keys() == {'Workers', 'Suspended webhooks'}
        assert 'id="causes"' not in text_of(clerk_pages)

    @pytest.mark.parametrize('model', [Webhook, Delivery])
    def test_the_menu_leads_to_it_whoever_may_open_it(self, clerk_pages, grant, model):
        grant(Site, 'view')
        assert f'href="{PAGE}"' not in text_of(clerk_pages, reverse('home'))
        grant(model, 'view')
        assert clerk_pages.get(PAGE).status_code == 200
        assert text_of(clerk_pages, reverse('home')).count(f'href="{PAGE}"') == 1

    def test_the_status_page_counts_nothing_that_a_constraint_hides(self, clerk_pages, grant, log):
        grant(Delivery, 'view', webhook__name='Another')
        grant(Webhook, 'view', name='Another')
        shown = lines(text_of(clerk_pages))
        assert (shown['Waiting'], shown['Suspended webhooks']) == ('0 deliveries', '0')
        assert shown['Failed deliveries'] == '0'


class TestRedelivering:
    def test_all_that_failed_is_redelivered_with_one_button(self, clerk_pages, grant, log):
        grant(Delivery, 'view', 'redeliver')
        text = text_of(clerk_pages)
        assert REDELIVER in text
        [address] = re.findall(r'href="([^"]*/redeliver/[^"]*status=failed&amp;test=false&amp;return_url[^"]*)"', text)
        answer = confirm(clerk_pages, clerk_pages.get(unescape(address)))
        assert (answer.status_code, answer.url) == (302, PAGE)
        assert not Delivery.objects.filter(status=StatusChoices.FAILED).exists()
        assert REDELIVER not in text_of(clerk_pages)

    def test_the_status_page_offers_no_redelivery_that_a_constraint_forbids(self, clerk_pages, grant, log):
        grant(Delivery, 'view', 'redeliver', webhook__name='Another')
        assert REDELIVER not in text_of(clerk_pages)

    def test_it_takes_the_permission(self, clerk_pages, grant, log):
        grant(Delivery, 'view')
        assert REDELIVER not in text_of(clerk_pages)
        answer = clerk_pages.post('/plugins/webhooks/deliveries/redeliver/?status=failed', {'_all': '1'})
        assert answer.status_code == 403
        assert Delivery.objects.filter(status=StatusChoices.FAILED).count() == 2
