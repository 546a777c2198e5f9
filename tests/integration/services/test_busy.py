"""A lane that somebody else holds: who presses a button meanwhile is told so, and loses nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from dcim.models import Site
from django.contrib.messages import get_messages
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone
from support.admin_browser import DELIVERIES, WEBHOOKS, messages_of, page_of, run
from support.builders import site, subscribe
from support.engine import in_thread, open_transaction
from support.log import delivery, event

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import lanes, sql
from webhooks.engine.lanes import Busy
from webhooks.models import Backfill, Delivery, Webhook
from webhooks.services import preview, redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks'
PATIENCE = 30


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site)


@pytest.fixture
def failed(webhook: Webhook) -> Delivery:
    return delivery(event(site()), webhook)


@contextmanager
def busy(webhook: Webhook) -> Iterator[None]:
    with open_transaction(lambda: lanes.take([webhook.pk])):
        yield


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """People wait for a lane, but these need not."""
    monkeypatch.setattr(lanes, 'WAIT', 100)


def test_the_engine_takes_it_for_a_transaction_that_is_done_again(webhook):
    with busy(webhook), pytest.raises(OperationalError) as raised, lanes.hold(webhook.pk):
        pass
    assert isinstance(raised.value, Busy)


ACTIONS = {
    'send what waits': ('webhooks/{webhook}/waiting/', {}),
    'replay': ('webhooks/{webhook}/replay/', {'since': '2026-01-01T00:00:00Z'}),
    'backfill': ('webhooks/{webhook}/backfill/', {}),
    'redeliver': ('deliveries/{failed}/redeliver/', {}),
}


@pytest.mark.parametrize('action', ACTIONS)
def test_the_api_asks_to_come_again(api_client, webhook, failed, action):
    path, data = ACTIONS[action]
    address = f'{API}/{path.format(webhook=webhook.pk, failed=failed.pk)}'
    with busy(webhook):
        answer = api_client.post(address, data, format='json')
        assert (answer.status_code, answer['Retry-After']) == (503, '5'), answer.content
        assert 'busy with this webhook' in answer.json()['detail']
    assert api_client.post(address, data, format='json').status_code in (200, 201)


def test_what_holds_a_backfill_is_asked_to_come_again(api_client, webhook):
    site()
    address = f'{API}/webhooks/{webhook.pk}/backfill/'
    assert api_client.post(address, format='json').status_code == 201
    with busy(webhook):
        assert api_client.post(f'{address}pause/').status_code == 503
    assert api_client.post(f'{address}pause/').status_code == 200


PAGES = {
    'send_waiting': ('send-waiting/', {'what': 'all'}),
    'replay': ('replay/', {'since': '2026-01-01 00:00:00'}),
    'backfill': ('backfill/', {}),
    'pause_backfill': ('backfill/pause/', {}),
}


@pytest.mark.parametrize('action', PAGES)
def test_a_page_says_so(admin_pages, webhook, failed, action):
    path, data = PAGES[action]
    if action == 'pause_backfill':
        Backfill.objects.create(webhook=webhook, state='running', object_types=[], total=1, started_at=timezone.now())
    address = f'{webhook.get_absolute_url()}{path}'
    with busy(webhook):
        [told] = messages_of(admin_pages.post(address, data, follow=True))
        assert 'busy with this webhook' in told
    answer = admin_pages.post(address, data, follow=True)
    assert answer.redirect_chain
    assert not [told for told in messages_of(answer) if 'busy' in told]


def said(answer: object) -> str:
    return ' '.join(str(message) for message in get_messages(answer.wsgi_request))


@pytest.mark.parametrize('is_one', [True, False])
def test_the_page_of_the_log_says_so(admin_pages, webhook, failed, is_one):
    address = f'{failed.get_absolute_url()}redeliver/' if is_one else '/plugins/webhooks/deliveries/redeliver/'
    data = {'pk': failed.pk, 'return_url': '/plugins/webhooks/deliveries/?status=failed'}
    with busy(webhook):
        answer = admin_pages.post(address, data)
        assert 'busy with this webhook' in said(answer)
        assert answer['Location'] == data['return_url']
    answer = admin_pages.post(address, data)
    assert '1 delivery is being redelivered' in said(answer)


def test_the_admin_says_so(admin_pages, webhook, failed):
    with busy(webhook):
        [told] = messages_of(run(admin_pages, WEBHOOKS, 'send_all', webhook))
        assert told.startswith(f'{webhook}: A worker is busy')
        assert 'busy' in messages_of(run(admin_pages, WEBHOOKS, 'redeliver_failed', webhook))[0]
        assert 'busy' in messages_of(run(admin_pages, DELIVERIES, 'redeliver', failed))[0]
        backfill = admin_pages.post(page_of(webhook, 'backfill'), {'_start': ''}, follow=True)
        assert 'busy' in messages_of(backfill)[0]
    assert 'being redelivered' in messages_of(run(admin_pages, DELIVERIES, 'redeliver', failed))[0]


def test_the_other_webhooks_of_a_choice_get_what_was_asked_for(admin_pages, webhook, receiver):
    other = subscribe(receiver.url('/other'), Site)
    with busy(webhook):
        told = messages_of(run(admin_pages, WEBHOOKS, 'send_all', webhook, other))
    assert sorted('busy' in message for message in told) == [False, True]


@pytest.mark.parametrize('command', ['webhooks_replay', 'webhooks_backfill'])
def test_commands_say_so(webhook, failed, command):
    arguments = [webhook.name] if command == 'webhooks_backfill' else []
    with busy(webhook), pytest.raises(CommandError, match='busy with this webhook'):
        call_command(command, *arguments)
    call_command(command, *arguments)


class TestTrial:
    """A request that was answered is not sent again: what came of it is known only here."""

    def test_its_outcome_is_recorded_when_the_lane_is_free_again(self, webhook, receiver, monkeypatch):
        monkeypatch.setattr(lanes, 'WAIT', 1000)
        site()
        tested: list[Delivery] = []
        tries: set[datetime] = set()

        def is_tried_again() -> bool:
            tries.update(blocked_since())
            return len(tries) > 1

        with busy(webhook):
            thread = in_thread(lambda: tested.append(trial.send_test(webhook)))
            assert wait_until(is_tried_again, PATIENCE)
        thread.join(PATIENCE)
        assert [one.status for one in tested] == [StatusChoices.DELIVERED]
        assert len(receiver.requests) == 1

    def test_its_outcome_is_told_where_it_cannot_be_recorded(self, api_client, webhook, receiver):
        site()
        receiver.answers('/hook', 500, 200)
        with busy(webhook):
            answer = api_client.post(f'{API}/webhooks/{webhook.pk}/test/')
        assert (answer.status_code, 'HTTP 500' in answer.json()['detail']) == (503, True)
        # Until its lease runs out it is under way.
        assert 'under way' in api_client.post(f'{API}/webhooks/{webhook.pk}/test/').json()['detail']

    def test_a_page_tells_it_too(self, admin_pages, webhook, receiver):
        site()
        receiver.answers('/hook', 500)
        with busy(webhook):
            answer = admin_pages.post(f'{webhook.get_absolute_url()}test/')
        assert answer.status_code == 302
        assert 'HTTP 500' in said(answer)

    def test_where_others_hold_the_place_of_tests_it_says_so(self, api_client, webhook, monkeypatch):
        monkeypatch.setattr(lanes, 'WAIT', 100)
        site()
        with open_transaction(count_tests):
            answer = api_client.post(f'{API}/webhooks/{webhook.pk}/test/')
        assert (answer.status_code, 'Others are being tested' in answer.json()['detail']) == (503, True)
        assert api_client.post(f'{API}/webhooks/{webhook.pk}/test/').status_code == 201


def count_tests() -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_advisory_xact_lock(%s)', [trial.COUNTING])


class TestPreviews:
    """Each may fork a process that grows by 256 MiB."""

    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url('/hook'), Site, body_template='of {{ data.name }}')

    def test_so_many_are_made_at_a_time(self, api_client, webhook):
        site(name='Bern')
        with open_transaction(lambda: take_rooms(preview.MOST - 1)):
            assert api_client.get(f'{API}/webhooks/{webhook.pk}/preview/').json()['body'] == 'of Bern'
        with open_transaction(lambda: take_rooms(preview.MOST)):
            answer = api_client.get(f'{API}/webhooks/{webhook.pk}/preview/')
        assert (answer.status_code, 'Others are looking' in answer.json()['detail']) == (503, True)

    def test_a_page_says_so(self, admin_pages, webhook, failed):
        pages = [
            f'{webhook.get_absolute_url()}preview/',
            page_of(webhook, 'preview'),
            failed.get_absolute_url(),
            page_of(failed),
        ]
        with open_transaction(lambda: take_rooms(preview.MOST)):
            assert all('Others are looking' in admin_pages.get(page).content.decode() for page in pages)
        for page in pages:
            shown = admin_pages.get(page).content.decode()
            assert 'Others are looking' not in shown
            assert f'of {failed.event.object_repr}' in shown


def take_rooms(count: int) -> None:
    sql.fetch('SELECT pg_advisory_xact_lock(%s, n) FROM generate_series(1, %s) AS n', [preview.COUNTING, count])


def blocked_since() -> list[datetime]:
    """When the statements began that wait for somebody's lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            'SELECT query_start FROM pg_stat_activity '
            'WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0'
        )
        return [moment for (moment,) in cursor.fetchall()]


def test_what_came_before_the_busy_lane_is_redelivered(webhook, receiver):
    free, held = sorted([webhook, subscribe(receiver.url('/other'), Site)], key=lambda one: one.pk)
    place = site()
    first, second = (delivery(event(place), one) for one in (free, held))
    with busy(held), pytest.raises(Busy):
        redelivery.redeliver(Delivery.objects.filter(pk__in=[first.pk, second.pk]))
    assert set(Delivery.objects.filter(status=StatusChoices.PENDING)) == {first}
