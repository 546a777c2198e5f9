"""The page of a delivery: what happened, why, what the receiver got, and one click to put it right."""

import re
import zlib
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from dcim.models import Site
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from support.builders import CREATED, NOWHERE, site, subscribe
from support.confirming import confirm
from support.engine import deliveries, pass_retry_waits, work
from support.log import attempt, change_set, delivery, event

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.models import Attempt, Delivery, Event, Webhook
from webhooks.presentation.headlines import MAX_REASON_CHARS, headline

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/deliveries/'


def text_of(page: str) -> str:
    return ' '.join(unescape(re.sub(r'<[^>]*>', ' ', page)).split())


def panel(page: str, title: str) -> str:
    """Return the text of a card without its title."""
    found = re.search(rf'<h2 class="card-header">\s*{title}\s*</h2>(.*?)<!-- end', page, re.DOTALL)
    return text_of(found[1]) if found else ''


def shown(client, of: Delivery) -> str:
    return client.get(of.get_absolute_url()).content.decode()


@pytest.mark.parametrize(('status', 'is_shown'), [('pending', True), ('delivered', False), ('failed', False)])
def test_only_an_open_delivery_expires(admin_pages, status, is_shown):
    log = delivery(event(site()), status=status)
    assert ('Expires' in panel(shown(admin_pages, log), 'Delivery')) is is_shown
    admin_page = admin_pages.get(f'/admin/webhooks/delivery/{log.pk}/change/').content.decode()
    assert ('Expires' in admin_page) is is_shown


def test_what_failed_and_was_delivered_since_is_no_failure_on_the_page_status(admin_pages):
    log = delivery(event(site()))
    assert 'Failed deliveries 1' in text_of(admin_pages.get('/plugins/webhooks/status/').content.decode())
    log.state = StatusChoices.DELIVERED
    log.save()
    assert 'Failed deliveries 0' in text_of(admin_pages.get('/plugins/webhooks/status/').content.decode())


class TestHeadline:
    def test_the_headline_names_webhook_change_and_state(self, admin_pages):
        log = delivery(event(site(name='Berlin 5')), subscribe(NOWHERE, Site, name='inventory'), error='HTTP 500 no')
        page = shown(admin_pages, log)
        told = 'inventory · Berlin 5 updated · failed: HTTP 500'
        assert re.search(r'<h1 class="page-title">(.*?)</h1>', page)[1] == told
        assert told in re.search(r'<title>(.*?)</title>', page, re.DOTALL)[1]

    def test_the_headline_of_a_delivery_without_an_error_says_its_status(self):
        log = delivery(
            event(site(name='Bern'), kind=CREATED, test=True),
            subscribe(NOWHERE, Site, name='CMDB'),
            status=StatusChoices.DELIVERED,
            error='',
        )
        assert headline(log) == 'CMDB · Bern created Test · delivered'

    def test_a_long_reason_is_cut_off(self):
        log = delivery(event(site()), error='x' * 500)
        assert headline(log).endswith('x…')
        assert len(headline(log)) < 100 + MAX_REASON_CHARS

    def test_it_names_no_object_to_those_who_may_not_view_it(self, clerk_pages, grant):
        log = delivery(event(site(name='Bern')), subscribe(NOWHERE, Site, name='CMDB'), error='HTTP 500: Bern')
        grant(Delivery, 'view')
        page = shown(clerk_pages, log)
        assert 'CMDB · updated · failed: HTTP 500</h1>' in page
        assert 'Bern' not in page


class TestAnswer:
    def test_it_stands_on_top_with_its_json_laid_out(self, admin_pages):
        log = delivery(event(site()))
        Attempt.objects.update(response_body='{"reason":{"code":7}}')
        page = shown(admin_pages, log)
        answer = panel(page, 'Last Answer')
        assert answer.startswith('HTTP 500')
        # Once more in the list of attempts.
        assert unescape(page).count('"reason": {\n        "code": 7') == 2
        assert 'Cut off' not in answer
        titles = [text_of(title) for title in re.findall(r'<h2 class="card-header">(.*?)</h2>', page, re.DOTALL)]
        assert titles == ['Last Answer', 'Request Body', 'Delivery', 'Event', 'Attempts']

    def test_it_says_when_it_is_cut_off(self, admin_pages, receiver: Receiver):
        receiver.answers('/', Answer(500, b'a' * 4097), Answer(500, b'a' * 4000))
        subscribe(receiver.url('/'), Site)
        site()
        for is_cut in (True, False):
            pass_retry_waits()
            work()
            page = shown(admin_pages, Delivery.objects.get())
            assert ('Cut off: only the first 4 KiB' in panel(page, 'Last Answer')) is is_cut
            assert panel(page, 'Attempts').count('Cut off: only the first 4 KiB') == 1

    def test_the_page_says_that_no_answer_came(self, admin_pages):
        log = delivery(event(site()))
        Attempt.objects.update(response_status=None, response_body='', error='connection refused')
        assert panel(shown(admin_pages, log), 'Last Answer').startswith('No response')
        assert 'connection refused' in panel(shown(admin_pages, log), 'Last Answer')

    def test_a_brokers_confirmation_is_one(self, admin_pages):
        log = delivery(event(site()), status=StatusChoices.DELIVERED, error='')
        Attempt.objects.update(response_status=None, response_headers={'stream': 'a'}, response_body='', error='')
        assert panel(shown(admin_pages, log), 'Last Answer').startswith('Confirmed')

    def test_one_that_was_not_tried_has_none(self, admin_pages):
        log = delivery(event(site()), attempts=0, status=StatusChoices.PENDING)
        assert 'Last Answer' not in shown(admin_pages, log)


def test_rows_without_a_value_are_left_out(admin_pages):
    log = delivery(event(site(), partial=['cluster']))
    rows = re.findall(r'<th scope="row">(.*?)</th>', shown(admin_pages, log))
    assert 'webhook-id' in rows
    assert 'Keys without data' in rows
    assert not {'Change set', 'Position in the feed', 'Next attempt', 'User', 'Caused by'}.intersection(rows)


def test_a_member_of_a_change_set_shows_the_id_that_the_receiver_got(admin_pages, receiver):
    subscribe(receiver.url('/hook'), Site, change_set=True)
    with transaction.atomic():
        site()
        site()
    work()
    [request] = receiver.requests
    first, second = deliveries()
    for one, own in ((first, False), (second, True)):
        told = panel(shown(admin_pages, one), 'Delivery')
        assert f'webhook-id {request.header("webhook-id")}' in told
        assert (f'UUID {one.uuid}' in told) is own


class TestFromHereOn:
    def test_it_leads_to_the_form_that_is_filled_in(self, admin_pages):
        webhook = subscribe(NOWHERE, Site)
        noon = timezone.now() - timedelta(days=1)
        _early, here, late = (
            delivery(event(site(), timestamp=noon + timedelta(minutes=minutes)), webhook) for minutes in (-5, 0, 5)
        )
        page = shown(admin_pages, here)
        link = unescape(re.search(r'href="([^"]*/replay/[^"]*)"', page)[1])
        form = admin_pages.get(link).content.decode()
        since = re.search('<input[^>]* name="since" value="([^"]*)"', form)[1]
        confirm(admin_pages, admin_pages.post(link, {'since': since}))
        assert {one.pk for one in deliveries(StatusChoices.PENDING)} == {here.pk, late.pk}

    def test_it_begins_with_this_change_not_with_earlier_ones_of_its_second(self, admin_pages):
        webhook, second = subscribe(NOWHERE, Site), timezone.now().replace(microsecond=0)
        _early, here = (
            delivery(event(site(), timestamp=second + timedelta(microseconds=number)), webhook) for number in (1, 2)
        )
        self.redeliver_from(admin_pages, here)
        assert {one.pk for one in deliveries(StatusChoices.PENDING)} == {here.pk}

    @pytest.mark.parametrize('hour', [0, 1])
    def test_it_knows_which_one_is_meant_when_an_hour_comes_twice(self, admin_pages, hour):
        """In the night to 2026-10-25, clocks in Berlin showed 02:30 twice, an hour apart."""
        webhook, first = subscribe(NOWHERE, Site), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
        both = [delivery(event(site(), timestamp=first + timedelta(hours=number)), webhook) for number in (0, 1)]
        with timezone.override('Europe/Berlin'):
            self.redeliver_from(admin_pages, both[hour])
        assert {one.pk for one in deliveries(StatusChoices.PENDING)} == {one.pk for one in both[hour:]}

    def redeliver_from(self, pages, here: Delivery) -> None:
        link = unescape(re.search(r'href="([^"]*/replay/[^"]*)"', shown(pages, here))[1])
        form = pages.get(link)
        assert 'datetime-picker' not in re.search('<input[^>]* name="since"[^>]*>', form.content.decode())[0]
        since = form.context['form']['since'].value()
        asked = pages.post(link, {'since': since})
        assert 'figures' in asked.context, asked.context['form'].errors
        confirm(pages, asked)

    def test_it_is_for_those_who_may_redeliver_past_events_of_this_webhook(self, clerk_pages, grant):
        mine, other = (delivery(event(site()), subscribe(NOWHERE, Site, name=name)) for name in ('Mine', 'Other'))
        grant(Delivery, 'view')
        assert '/replay/' not in shown(clerk_pages, mine)
        grant(Webhook, 'view', 'replay', name='Mine')
        assert '/replay/' in shown(clerk_pages, mine)
        assert '/replay/' not in shown(clerk_pages, other)


class TestBody:
    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        receiver.answers('/', 500)
        return subscribe(receiver.url('/'), Site, name='CMDB')

    def test_it_is_what_was_sent_although_the_webhook_was_saved_since(self, admin_pages, webhook):
        Webhook.objects.update(body_template='{"was": "{{ data.name }}"}')
        site(name='Bern')
        work()
        Webhook.objects.update(body_template='{"now": "{{ data.name }}"}')
        shown_body = panel(shown(admin_pages, Delivery.objects.get()), 'Request Body')
        assert 'This is what was sent. { "was": "Bern" }' in shown_body
        assert shown_body.index('"was"') < shown_body.index('Body of the next attempt') < shown_body.index('"now"')

    def test_an_earlier_attempt_shows_its_body_if_that_was_another_one(self, admin_pages, webhook):
        site(name='Bern')
        for template in ('', '', 'new: {{ data.name }}'):
            Webhook.objects.update(body_template=template, last_updated=timezone.now())
            work()
            pass_retry_waits()
        page = shown(admin_pages, Delivery.objects.get())
        assert panel(page, 'Request Body').endswith('new: Bern')
        assert panel(page, 'Attempts').count('Request body') == 2
        assert panel(page, 'Attempts').count('"name": "Bern"') == 2

    def test_a_delivered_one_shows_only_what_was_sent(self, admin_pages, webhook, receiver):
        receiver.answers('/', 200)
        site(name='Bern')
        work()
        Webhook.objects.update(body_template='{"now": "{{ data.name }}"}')
        body = panel(shown(admin_pages, Delivery.objects.get()), 'Request Body')
        assert 'It was rebuilt from the event, and has the same checksum.' in body
        assert '"name": "Bern"' in body
        assert 'next attempt' not in body
        assert '"now"' not in body

    def test_it_says_when_what_was_sent_is_not_known(self, admin_pages):
        body = panel(shown(admin_pages, delivery(event(site()))), 'Request Body')
        assert body.startswith('What was sent is unknown. This body would be sent now.')

    def test_it_says_when_it_is_not_what_was_sent(self, admin_pages, webhook):
        site()
        work()
        Event.objects.update(username='somebody else')
        assert panel(shown(admin_pages, Delivery.objects.get()), 'Request Body').startswith('Something else was sent')

    def test_one_that_was_not_tried_shows_what_it_would_send(self, admin_pages):
        log = delivery(event(site()), attempts=0, status=StatusChoices.PENDING)
        assert panel(shown(admin_pages, log), 'Request Body').startswith('The next attempt would send this body.')

    def test_one_that_was_replaced_says_that_nothing_was_sent(self, admin_pages):
        log = delivery(event(site()), attempts=0, status=StatusChoices.SUPERSEDED, error='')
        assert panel(shown(admin_pages, log), 'Request Body').startswith('Nothing was sent.')

    def test_it_is_for_those_who_may_view_the_object(self, clerk_pages, clerk_api, grant, webhook):
        Webhook.objects.update(body_template='top s3cret {{ data.name }}')
        for name in ('Bern', 'Genf'):
            site(name=name)
        work()
        grant(Delivery, 'view')
        grant(Site, 'view', name='Bern')
        for log in Delivery.objects.all():
            may_view = log.event.object_repr == 'Bern'
            assert ('top s3cret' in shown(clerk_pages, log)) is may_view
            (told,) = clerk_api.get(f'{API}{log.pk}/').json()['attempts']
            assert told['request_body'] == ('top s3cret Bern' if may_view else None)

    def test_the_rest_api_shows_the_body_of_a_single_delivery(self, api_client, webhook, receiver):
        site(name='Bern')
        work()
        sent = receiver.wait_for(1)[0].body.decode()
        log = Delivery.objects.get()
        assert api_client.get(f'{API}{log.pk}/').json()['attempts'][0]['request_body'] == sent
        assert api_client.get(API).json()['results'][0]['attempts'][0]['request_body'] is None

    def test_those_of_the_newest_attempts_are_read_at_once_and_older_ones_are_in_the_rest_api(self, admin_pages):
        def queries_with(attempts: int) -> tuple[int, str]:
            log = delivery(event(site()), attempts=attempts)
            for one in log.attempts.all():
                body = zlib.compress(f'body {one.number}.'.encode())
                Attempt.objects.filter(pk=one.pk).update(request_body=body)
            with CaptureQueriesContext(connection) as captured:
                page = shown(admin_pages, log)
            return len(captured), page

        few, page = queries_with(3)
        assert 'body 1.' in page
        assert 'older attempts' not in page
        many, page = queries_with(13)
        assert many == few
        assert [f'body {number}.' in page for number in (13, 12, 4, 3, 1)] == [True, True, True, False, False]
        assert page.count('Request bodies of older attempts are only in the REST API.') == 1


class TestTogether:
    def test_each_member_shows_the_attempts_of_its_request(self, admin_pages, api_client, receiver: Receiver):
        receiver.answers('/', 500, 200)
        subscribe(receiver.url('/'), Site, change_set=True)
        with transaction.atomic():
            for name in ('Bern', 'Genf'):
                site(name=name)
        work()
        pass_retry_waits()
        work()
        assert Attempt.objects.count() == 2
        for log in deliveries():
            page = shown(admin_pages, log)
            assert 'No attempts yet' not in page
            assert page.count('class="timeline-event"') == log.attempt_count == 2
            assert panel(page, 'Last Answer').startswith('HTTP 200')
            assert 'This is what was sent.' in panel(page, 'Request Body')
            told = api_client.get(f'{API}{log.pk}/').json()['attempts']
            assert [(one['number'], one['response_status']) for one in told] == [(1, 500), (2, 200)]

    def test_one_that_joined_later_shows_no_earlier_attempts_of_the_others(self, admin_pages):
        first, second = change_set([event(site()), event(site())], subscribe(NOWHERE, Site), attempts=3)
        Attempt.objects.filter(number__lt=3).update(members=None)
        assert shown(admin_pages, first).count('class="timeline-event"') == 3
        assert shown(admin_pages, second).count('class="timeline-event"') == 1

    def test_its_own_earlier_attempts_are_shown_too(self, admin_pages):
        _first, second = change_set([event(site()), event(site())], subscribe(NOWHERE, Site), attempts=1)
        attempt(second, 1)
        Delivery.objects.filter(pk=second.pk).update(attempt_count=2)
        assert shown(admin_pages, second).count('class="timeline-event"') == 2
