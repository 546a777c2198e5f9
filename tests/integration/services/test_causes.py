"""Failures are shown by cause: in NetBox, in the admin, in REST and by the command."""

import json
import re
from datetime import timedelta
from html import unescape
from io import StringIO
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from dcim.models import Site
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.confirming import confirm, first_sentence
from support.log import change_set, delivery, event
from support.writers import before_statement

from webhooks import filtersets
from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Webhook
from webhooks.models.delivery import CAUSE_CHARS
from webhooks.services import causes

pytestmark = pytest.mark.usefixtures('saves')

PAGE = '/plugins/webhooks/status/'
LIST, EVENTS = '/plugins/webhooks/deliveries/', '/plugins/webhooks/events/'
FAILURES = '/api/plugins/webhooks/failures/'
FAILED = StatusChoices.FAILED
REFUSED, LOST = 'HTTP 500 Internal Server Error', 'no connection: [Errno 111] Connection refused'


@pytest.fixture
def webhook() -> Webhook:
    return subscribe(NOWHERE, Site, name='monitoring')


@pytest.fixture
def other() -> Webhook:
    return subscribe(NOWHERE, Site, name='inventory')


def fail(webhook: Webhook, error: str, count: int = 1, **fields: object) -> list[Delivery]:
    now = timezone.now()
    return [delivery(event(site()), webhook, error=error, **{'finished_at': now} | fields) for _ in range(count)]


@pytest.fixture
def log(webhook: Webhook, other: Webhook) -> None:
    """Two causes at one webhook, and one of these at another."""
    fail(webhook, REFUSED, 3)
    fail(webhook, LOST, 2)
    fail(other, REFUSED)
    fail(other, '', status=StatusChoices.DELIVERED)


def told(found: causes.Causes) -> list[tuple[str, str, int]]:
    return [(cause.webhook.name, cause.error, cause.count) for cause in found.shown]


ALL = [('monitoring', REFUSED, 3), ('monitoring', LOST, 2), ('inventory', REFUSED, 1)]


class Row(NamedTuple):
    cause: causes.Cause
    list_url: str
    redeliver_url: str


def rows_of(client: Client, address: str) -> list[Row]:
    """Return the causes on a page with the links beside them, '' for a link that is missing."""
    answer = client.get(address)
    assert answer.status_code == 200
    shown = next(one['causes'] for one in answer.context if one.get('causes')).shown
    items = answer.content.decode().partition('wh-causes')[2].partition('</ul>')[0].split('<li ')[1:]
    links = [[*map(unescape, re.findall(r'href="([^"]*\?[^"]*)"', item)), ''] for item in items]
    return [Row(cause, *urls[:2]) for cause, urls in zip(shown, links, strict=True)]


class TestGrouping:
    def test_the_same_webhook_and_error_are_one_cause_and_the_largest_comes_first(self, log):
        assert told(causes.find()) == ALL

    def test_a_cause_shows_its_period(self, webhook):
        now = timezone.now()
        first, last = now - timedelta(hours=2), now - timedelta(minutes=1)
        for finished_at in (last, first, now - timedelta(hours=1)):
            fail(webhook, REFUSED, finished_at=finished_at)
        [cause] = causes.find().shown
        assert (cause.first, cause.last) == (first, last)

    def test_a_cause_shows_the_last_answer(self, webhook):
        _older, newest = fail(webhook, REFUSED, 2)
        newest.attempts.update(response_body='{"detail":\n "disk full"}')
        [cause] = causes.find().shown
        assert cause.answer == '{"detail": "disk full"}'

    def test_the_answer_to_a_change_set_is_that_of_its_request(self, webhook):
        change_set([event(site()), event(site())], webhook)
        [cause] = causes.find().shown
        assert (cause.count, cause.answer) == (2, 'the answer of the receiver')

    def test_a_failed_test_is_no_cause_and_is_not_redelivered_with_one(self, admin_pages, webhook):
        fail(webhook, REFUSED, 2)
        tried = delivery(event(site(), test=True), webhook, error=REFUSED, finished_at=timezone.now())
        [cause] = causes.find().shown
        assert cause.count == 2
        [row] = rows_of(admin_pages, PAGE)
        assert [one.record.event.test for one in admin_pages.get(row.list_url).context['table'].rows] == [False] * 2
        confirm(admin_pages, admin_pages.get(row.redeliver_url))
        assert list(Delivery.objects.filter(status=FAILED)) == [tried]

    @pytest.mark.parametrize('error', ['AssertionError: ', 'x' * 300, 'a, "b" & <c>\n%'])
    def test_the_links_of_a_cause_find_all_of_it_and_no_more(self, admin_pages, webhook, error):
        fail(webhook, error, 2)
        fail(webhook, REFUSED)
        [row] = [row for row in rows_of(admin_pages, PAGE) if row.cause.count == 2]
        assert first_sentence(admin_pages.get(row.redeliver_url)).startswith('2 deliveries to 1 webhook')
        assert len(admin_pages.get(row.list_url).context['table'].rows) == 2

    def test_errors_that_begin_alike_are_one_cause(self, webhook):
        beginning = 'x' * CAUSE_CHARS
        fail(webhook, f'{beginning} one')
        fail(webhook, f'{beginning} two')
        [cause] = causes.find().shown
        assert (cause.error, cause.count, cause.is_cut) == (beginning, 2, True)

    def test_a_webhook_that_is_deleted_meanwhile_is_left_out(self, committed, log, other):
        with before_statement(
            'FROM "webhooks_webhook" LEFT OUTER JOIN', lambda: Webhook.objects.get(pk=other.pk).delete()
        ):
            assert told(causes.find()) == ALL[:2]

    def test_it_reads_the_newest_failures_only_and_says_so(self, webhook, monkeypatch):
        fail(webhook, LOST)
        fail(webhook, REFUSED, 3)
        assert causes.find().note == ''
        monkeypatch.setattr(causes, 'MAX_FAILURES_READ', 3)
        found = causes.find()
        assert told(found) == [('monitoring', REFUSED, 3)]
        assert found.note == 'Only the newest 3 failures are grouped.'

    def test_it_says_how_many_causes_it_leaves_out(self, log, monkeypatch):
        monkeypatch.setattr(causes, 'MAX_CAUSES_SHOWN', 1)
        found = causes.find()
        assert (told(found), found.note) == (ALL[:1], '2 more causes are not shown.')

    def test_it_costs_the_same_however_many_have_failed(self, log, webhook):
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                causes.find()
            return len(captured)

        few = queries()
        for number in range(5):
            fail(webhook, f'error {number}', 3)
        assert queries() == few


class TestWhoSeesIt:
    """Grouping tells no more than the rows do."""

    def test_causes_group_failures_of_hidden_objects_by_the_beginning_of_the_error(self, webhook, clerk_user, grant):
        seen, _hidden = fail(webhook, LOST, 2)
        grant(Delivery, 'view')
        grant(Site, 'view', pk=seen.object_id)
        assert told(causes.find(clerk_user)) == [('monitoring', 'no connection', 1), ('monitoring', LOST, 1)]

    def test_a_cause_of_a_hidden_object_shows_the_status_of_the_answer_and_no_more(self, webhook, clerk_user, grant):
        fail(webhook, REFUSED)
        grant(Delivery, 'view')
        [cause] = causes.find(clerk_user).shown
        assert (cause.error, cause.answer) == ('HTTP 500', '')

    def test_the_rows_show_what_the_groups_show(self, webhook, clerk_user, grant):
        for error in (REFUSED, LOST, 'not sent: body_template: Bern has no mayor', 'HTTP 5000', 'odd'):
            fail(webhook, error)
        grant(Delivery, 'view')
        rows = {one.error for one in Delivery.objects.restrict(clerk_user, 'view')}
        assert {cause.error for cause in causes.find(clerk_user).shown} == rows

    def test_a_user_who_may_view_some_deliveries_sees_their_causes(self, log, clerk_user, grant):
        grant(Delivery, 'view', webhook__name='inventory')
        assert told(causes.find(clerk_user)) == [('inventory', 'HTTP 500', 1)]

    def test_the_filter_finds_by_what_is_shown(self, webhook, clerk_pages, grant):
        seen, hidden = fail(webhook, LOST, 2)
        grant(Delivery, 'view')
        grant(Site, 'view', pk=seen.object_id)

        def found(error: str) -> list[int]:
            rows = clerk_pages.get(LIST, {'error': error}).context['table'].rows
            return [row.record.pk for row in rows]

        assert found(LOST) == [seen.pk]
        assert found('no connection') == [hidden.pk]

    def test_without_permission_the_page_shows_none(self, log, clerk_pages, grant):
        grant(Webhook, 'view')
        answer = clerk_pages.get(PAGE)
        assert not answer.context['causes']
        assert 'wh-causes' not in answer.content.decode()

    def test_a_user_who_may_not_redeliver_has_no_button(self, log, clerk_pages, grant):
        grant(Delivery, 'view')
        assert [row.redeliver_url for row in rows_of(clerk_pages, PAGE)] == ['', '', '']


class TestPages:
    def test_each_cause_has_its_webhook_error_number_and_answer(self, log, admin_pages):
        text = unescape(admin_pages.get(PAGE).content.decode())
        for words in ('monitoring', REFUSED, LOST, '3 deliveries', 'Last answer: the answer of the receiver'):
            assert words in text

    def test_the_number_leads_to_exactly_these(self, log, admin_pages):
        for row in rows_of(admin_pages, PAGE):
            shown = [one.record for one in admin_pages.get(row.list_url).context['table'].rows]
            assert {(one.webhook.name, one.error) for one in shown} == {(row.cause.webhook.name, row.cause.error)}
            assert len(shown) == row.cause.count

    def test_exactly_these_are_redelivered_after_their_number_was_confirmed(self, committed, log, admin_pages):
        row = next(row for row in rows_of(admin_pages, PAGE) if row.cause.error == LOST)
        asked = admin_pages.get(row.redeliver_url)
        assert first_sentence(asked).startswith('2 deliveries to 1 webhook will be sent again.')
        assert not Delivery.objects.filter(status=StatusChoices.PENDING).exists()
        confirm(admin_pages, asked)
        assert Delivery.objects.filter(status=StatusChoices.PENDING).count() == 2
        assert told(causes.find()) == [ALL[0], ALL[2]]

    def test_a_long_error_has_a_short_address(self, webhook, admin_pages):
        fail(webhook, 'ä' * 1000)
        [row] = rows_of(admin_pages, PAGE)
        assert len(row.redeliver_url) < 2000
        assert admin_pages.get(row.redeliver_url).context['figures'].count == 1

    def test_an_error_that_is_cut_before_a_space_is_found_by_what_is_shown(self, webhook, admin_pages, api_client):
        error = 'x' * (CAUSE_CHARS - 2) + ' \n' + 'and more'
        fail(webhook, error)
        [row] = rows_of(admin_pages, PAGE)
        assert row.cause.is_cut
        assert admin_pages.get(row.redeliver_url).context['figures'].count == 1
        (shown,) = api_client.get(FAILURES).json()['results']
        for wanted in (shown['error'], error):
            assert api_client.get('/api/plugins/webhooks/deliveries/', {'error': wanted}).json()['count'] == 1
        asked = {'error': shown['error'], 'dry_run': True}
        assert api_client.post(f'{FAILURES}redeliver/', asked, format='json').json()['count'] == 1

    def test_the_page_of_a_webhook_shows_its_own(self, log, other, admin_pages):
        assert [row.cause.webhook for row in rows_of(admin_pages, other.get_absolute_url())] == [other]

    def test_after_the_redelivery_the_same_page_is_shown(self, log, admin_pages):
        [row, *_] = rows_of(admin_pages, PAGE)
        assert parse_qs(urlsplit(row.redeliver_url).query)['return_url'] == [PAGE]
        assert f'href="{PAGE}"' in admin_pages.get(row.redeliver_url).content.decode()

    def test_without_failures_there_is_no_card(self, webhook, admin_pages):
        assert 'id="causes"' not in admin_pages.get(PAGE).content.decode()
        fail(webhook, LOST)
        assert 'id="causes"' in admin_pages.get(PAGE).content.decode()

    def test_markup_in_an_answer_is_shown_as_text(self, webhook, admin_pages):
        [failed] = fail(webhook, '<b>no</b>')
        failed.attempts.update(response_body='<script>alert(1)</script>')
        text = admin_pages.get(PAGE).content.decode()
        assert '<b>no</b>' not in text
        assert '<script>alert' not in text
        assert '&lt;script&gt;alert' in text


class TestRest:
    def test_it_lists_the_causes(self, log, api_client):
        shown = api_client.get(FAILURES).json()
        assert (shown['count'], shown['is_bounded']) == (3, False)
        results = [(one['webhook']['name'], one['error'], one['count']) for one in shown['results']]
        assert results == ALL
        assert shown['results'][0]['answer'] == 'the answer of the receiver'

    def test_its_root_names_it(self, api_client):
        assert api_client.get('/api/plugins/webhooks/').json()['failures'].endswith(FAILURES)

    def test_a_dry_run_shows_the_numbers_and_sends_nothing(self, log, webhook, api_client):
        wanted = {'webhook': webhook.pk, 'error': LOST}
        shown = api_client.post(f'{FAILURES}redeliver/', wanted | {'dry_run': True}, format='json').json()
        assert shown.pop('oldest')
        assert shown == {'count': 2, 'webhooks': 1, 'outdated': 0, 'delivered': 0}
        assert not Delivery.objects.filter(status=StatusChoices.PENDING).exists()

    def test_it_redelivers_one_cause_and_no_other(self, committed, log, webhook, api_client):
        wanted = {'webhook': webhook.pk, 'error': LOST}
        assert api_client.post(f'{FAILURES}redeliver/', wanted, format='json').json() == {'count': 2}
        assert told(causes.find()) == [ALL[0], ALL[2]]

    def test_it_takes_the_permission_for_each_delivery(self, committed, log, clerk_api, grant):
        grant(Delivery, 'view')
        assert clerk_api.get(FAILURES).json()['count'] == 3
        assert clerk_api.post(f'{FAILURES}redeliver/', {}, format='json').status_code == 403
        grant(Delivery, 'redeliver', webhook__name='inventory')
        assert clerk_api.post(f'{FAILURES}redeliver/', {}, format='json').json() == {'count': 1}

    def test_a_user_who_may_not_view_deliveries_is_refused(self, log, clerk_api, grant):
        grant(Webhook, 'view')
        assert clerk_api.get(FAILURES).status_code == 403

    def test_a_redelivery_by_cause_names_the_wrong_field(self, api_client):
        answer = api_client.post(f'{FAILURES}redeliver/', {'webhook': 99999}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['webhook'])

    def test_deliveries_are_filtered_by_their_error(self, log, api_client):
        assert api_client.get('/api/plugins/webhooks/deliveries/', {'error': LOST}).json()['count'] == 2


class TestCommand:
    def status(self, *options: str) -> str:
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command('webhooks_status', *options, stdout=out)
        return out.getvalue()

    def test_it_names_the_causes(self, log):
        said = self.status()
        assert re.search(rf'  monitoring: {re.escape(REFUSED)} · 3 deliveries · \d', said)
        assert f'inventory: {REFUSED} · 1 delivery' in said

    def test_the_status_as_json_has_the_causes_too(self, log):
        failures = json.loads(self.status('--json'))['failures']
        assert [(one['webhook'], one['error'], one['count']) for one in failures] == ALL


def test_search_finds_objects_webhooks_and_errors(log, admin_pages):
    wanted = Delivery.objects.filter(error=LOST).first()

    def found(term: str) -> set[int]:
        return {row.record.pk for row in admin_pages.get(LIST, {'q': term}).context['table'].rows}

    assert wanted.pk in found(wanted.event.object_repr)
    assert len(found('inventory')) == len(found('Errno 111')) == 2
    assert found('nothing like this') == set()


def test_a_search_looks_through_the_newest_rows_that_other_filters_leave(log, admin_pages, monkeypatch):
    monkeypatch.setattr(filtersets, 'MAX_SEARCHED', 1)
    oldest = Delivery.objects.order_by('pk').first()
    term = {'q': oldest.event.object_repr}

    def found(path: str, **filters: object) -> list[int]:
        return [row.record.pk for row in admin_pages.get(path, term | filters).context['table'].rows]

    assert oldest.pk not in found(LIST)
    assert oldest.event_id not in found(EVENTS)
    assert found(LIST, id=oldest.pk) == [oldest.pk]
    assert found(EVENTS, id=oldest.event_id) == [oldest.event_id]
