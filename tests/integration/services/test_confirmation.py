"""Nothing is sent again in bulk before its number was shown. All doors have the same page."""

from datetime import timedelta
from io import StringIO

import pytest
from dcim.models import Site
from django.core.management import call_command
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.confirming import address_of, confirm, fields_of, first_sentence
from support.log import change_set, delivery, event

from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Health, Webhook
from webhooks.presentation import states
from webhooks.presentation.moments import moment
from webhooks.services import redelivery

pytestmark = pytest.mark.usefixtures('committed')

PAGES = '/plugins/webhooks/'
BULK = f'{PAGES}deliveries/redeliver/'
PENDING, FAILED, DELIVERED = StatusChoices.PENDING, StatusChoices.FAILED, StatusChoices.DELIVERED


@pytest.fixture
def webhook() -> Webhook:
    return subscribe(NOWHERE, Site, name='monitoring')


def pending() -> int:
    return Delivery.objects.filter(status=PENDING).count()


def foretell(**filters: object) -> redelivery.Figures:
    return redelivery.measure(Delivery.objects.filter(**filters))


class TestFigures:
    def test_they_count_deliveries_webhooks_and_the_oldest_change(self, webhook):
        old = timezone.now() - timedelta(days=2)
        delivery(event(site(), timestamp=old), webhook)
        delivery(event(site()), webhook)
        delivery(event(site()), subscribe(NOWHERE, Site))
        [sentence] = foretell().sentences
        assert sentence.startswith('3 deliveries to 2 webhooks will be sent again.')
        assert f'The oldest is from {moment(old)}; none is older than a later delivered change' in sentence

    def test_they_count_what_is_older_than_a_later_delivered_change(self, webhook):
        changed, other = site(), site()
        delivery(event(changed), webhook)
        delivery(event(changed), webhook)
        delivery(event(changed), webhook, status=DELIVERED)
        delivery(event(changed), webhook)
        delivery(event(other), webhook)
        figures = foretell(status=FAILED)
        assert (figures.count, figures.outdated) == (4, 2)
        assert '2 of them are older than a later delivered change of their object.' in figures.sentences[0]

    def test_a_later_change_that_another_webhook_got_does_not_count(self, webhook):
        changed = site()
        delivery(event(changed), webhook)
        delivery(event(changed), subscribe(NOWHERE, Site), status=DELIVERED)
        assert foretell(status=FAILED).outdated == 0

    def test_a_test_is_no_later_change(self, webhook):
        changed = site()
        delivery(event(changed), webhook)
        delivery(event(changed, test=True), webhook, status=DELIVERED)
        assert foretell(status=FAILED).outdated == 0

    def test_they_count_the_whole_part_that_goes_again(self, webhook):
        first, _second = change_set([event(site()), event(site())], webhook)
        assert foretell(pk=first.pk).count == redelivery.redeliver(Delivery.objects.filter(pk=first.pk)) == 2

    def test_they_say_that_delivered_ones_get_a_new_id(self, webhook):
        delivery(event(site()), webhook)
        delivery(event(site()), webhook, status=DELIVERED)
        assert foretell().sentences[1].startswith('1 was delivered before. It gets a new webhook-id')

    def test_counting_sends_nothing(self, webhook):
        failed = delivery(event(site()), webhook)
        foretell()
        failed.refresh_from_db()
        assert failed.status == FAILED


class TestThePage:
    def test_it_comes_before_anything_is_sent(self, admin_pages, webhook):
        failed = delivery(event(site()), webhook)
        asked = admin_pages.post(BULK, {'pk': [failed.pk]})
        assert first_sentence(asked).startswith('1 delivery to 1 webhook will be sent again.')
        assert pending() == 0
        confirm(admin_pages, asked)
        assert pending() == 1

    def test_deliveries_that_fail_while_the_user_reads_the_numbers_are_not_redelivered(self, admin_pages, webhook):
        delivery(event(site()), webhook, finished_at=timezone.now())
        asked = admin_pages.get(f'{BULK}?status=failed')
        later = delivery(event(site()), webhook, finished_at=timezone.now())
        confirm(admin_pages, asked)
        assert pending() == 1
        later.refresh_from_db()
        assert later.status == FAILED

    def test_a_delivery_that_is_redelivered_while_the_user_reads_is_not_sent_twice(self, admin_pages, webhook):
        one, _other = (delivery(event(site()), webhook) for _ in range(2))
        asked = admin_pages.get(f'{BULK}?status=failed')
        Delivery.objects.filter(pk=one.pk).update(state=PENDING)
        answer = confirm(admin_pages, asked, follow=True)
        assert '1 delivery is being redelivered.' in [str(one) for one in answer.context['messages']]

    @pytest.mark.parametrize('when', ['', 'garbage', '2026-01-01T00:00:00', '0001-01-01T00:00:00+00:00x'])
    def test_a_time_that_is_none_confirms_nothing(self, admin_pages, webhook, when):
        delivery(event(site()), webhook)
        asked = admin_pages.get(f'{BULK}?status=failed')
        again = admin_pages.post(address_of(asked), fields_of(asked) | {'_counted_at': when})
        assert again.context['figures'].count == 1
        assert pending() == 0

    def test_an_address_without_a_filter_selects_nothing(self, admin_pages, webhook):
        delivery(event(site()), webhook)
        assert admin_pages.get(BULK).status_code == 302
        assert admin_pages.get(f'{BULK}?return_url=/').status_code == 302
        assert pending() == 0

    def test_it_says_why_some_will_wait(self, admin_pages, webhook):
        delivery(event(site()), webhook)
        Webhook.objects.filter(pk=webhook.pk).update(paused=True)
        [line] = admin_pages.get(f'{BULK}?status=failed').context['webhooks']
        assert (line.webhook, line.count, line.state) == (webhook, '1', states.PAUSED)
        assert line.hindrance == 'Nothing is sent until you resume it.'

    def test_a_receiver_that_refuses_is_not_called_unreachable(self, admin_pages, webhook):
        delivery(event(site()), webhook)
        now = timezone.now()
        Health.objects.filter(pk=webhook.pk).update(suspended_since=now, refused_since=now, probe_at=now)
        [line] = admin_pages.get(f'{BULK}?status=failed').context['webhooks']
        assert line.hindrance == 'The receiver refuses everything: they wait until it accepts one.'

    def test_with_nothing_to_send_it_has_no_button(self, admin_pages, webhook):
        waits = delivery(event(site()), webhook, status=PENDING)
        text = admin_pages.post(BULK, {'pk': [waits.pk]}).content.decode()
        assert 'Nothing to redeliver' in text
        assert 'mdi-send' not in text
        failed = delivery(event(site()), webhook)
        assert 'mdi-send' in admin_pages.post(BULK, {'pk': [failed.pk]}).content.decode()


class TestDoors:
    """Each shows the number first, and then sends exactly that."""

    @pytest.fixture
    def failed(self, webhook) -> list[Delivery]:
        now = timezone.now()
        return [delivery(event(site()), webhook, finished_at=now) for _ in range(2)]

    def test_all_that_match_a_filter(self, admin_pages, failed, webhook):
        self.expect(admin_pages, admin_pages.post(f'{BULK}?webhook_id={webhook.pk}', {'_all': 'on'}))

    def test_past_events_are_asked_about_first(self, admin_pages, failed, webhook):
        address = f'{webhook.get_absolute_url()}replay/'
        self.expect(admin_pages, admin_pages.post(address, {'since': '2020-01-01 00:00'}))

    def expect(self, client, asked) -> None:
        assert first_sentence(asked).startswith('2 deliveries to 1 webhook will be sent again.')
        assert pending() == 0
        confirm(client, asked)
        assert pending() == 2

    def test_a_dry_run_in_rest_shows_the_same_numbers(self, api_client, failed, webhook):
        address = f'/api{webhook.get_absolute_url()}replay/'
        wanted = {'since': '2020-01-01T00:00:00Z'}
        shown = api_client.post(address, wanted | {'dry_run': True}, format='json').json()
        assert shown.pop('oldest')
        assert shown == {'count': 2, 'webhooks': 1, 'outdated': 0, 'delivered': 0}
        assert pending() == 0
        assert api_client.post(address, wanted, format='json').json() == {'count': 2}

    def test_a_dry_run_of_the_command_shows_the_same_numbers(self, failed):
        out = StringIO()
        call_command('webhooks_replay', '--dry-run', stdout=out)
        assert out.getvalue().startswith('2 deliveries to 1 webhook will be sent again. The oldest is from')
        assert pending() == 0
