"""A webhook without a URL is a feed with a cursor."""

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from dcim.models import Rack, Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from prometheus_client import generate_latest
from support.builders import NOWHERE, site, subscribe
from support.engine import (
    deliveries,
    dispatch_all,
    health,
    in_thread,
    is_anybody_blocked,
    open_transaction,
    pass_retry_waits,
    suspect,
    work,
)
from support.loopback import serving
from support.settings import change_settings
from tenancy.models import Tenant
from users.models import ObjectPermission, Token, User

from devstack.folders import CHECKOUT
from devstack.process import wait_until
from webhooks import metrics
from webhooks.choices import StatusChoices
from webhooks.engine.deliver import order
from webhooks.engine.tidy import retention
from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.models import Attempt, Credential, Delivery, Event, Health, Webhook
from webhooks.models.fields import Sealed
from webhooks.presentation.states import state_of
from webhooks.services import feed as service
from webhooks.services import redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')

WEBHOOKS = '/api/plugins/webhooks/webhooks/'
PATIENCE = 60


@pytest.fixture
def feed() -> Webhook:
    return subscribe('', Site)


def read(client, webhook: Webhook, status: int = 200, **asked) -> dict:
    answer = client.get(f'{WEBHOOKS}{webhook.pk}/feed/', asked)
    assert answer.status_code == status, answer.content
    return answer.json()


def names(page: dict) -> list[str]:
    return [json.loads(item['body'])['data']['name'] for item in page['items']]


def publish(*wanted: str) -> list[Site]:
    made = [site(name=name) for name in wanted]
    work()
    return made


def publish_and(take_away: Callable[[], object]) -> None:
    """Take it away in the transaction that publishes: a reader sees both or none."""
    site(name='Bern')
    dispatch_all()
    with transaction.atomic():
        work()
        take_away()


class TestItems:
    def test_changes_are_published_in_order_and_not_sent(self, feed, api_client):
        (bern,) = publish('Bern')
        for number in range(3):
            bern.description = str(number)
            bern.save()
        assert work() == '3 delivered'
        page = read(api_client, feed)
        told = [json.loads(item['body'])['data']['description'] for item in page['items']]
        assert told == ['', '0', '1', '2']
        assert list(Delivery.objects.order_by('pk').values_list('status', 'position')) == [
            (StatusChoices.DELIVERED, number) for number in (1, 2, 3, 4)
        ]
        assert not Attempt.objects.exists()
        assert (health(feed).delivered, health(feed).position) == (4, 4)

    def test_an_item_is_what_a_request_would_have_carried(self, receiver, api_client):
        shared = {'payload_format': 'cloudevents', 'additional_headers': 'X-Key: sesame', 'secret': 'a' * 32}
        webhook, feed = subscribe(receiver.url('/hook'), Site, **shared), subscribe('', Site, **shared)
        publish('Bern')
        (request,), (item,) = receiver.requests, read(api_client, feed)['items']
        assert item['body'].encode() == request.body
        assert item['headers']['Content-Type'] == request.header('Content-Type')
        assert item['id'] == item['headers']['webhook-id'] == str(Delivery.objects.get(webhook=feed).uuid)
        assert Delivery.objects.get(webhook=webhook).position is None
        shown = json.dumps(item).lower()
        assert 'sesame' not in shown
        assert 'signature' not in shown

    def test_headers_that_fail_have_no_effect(self, feed, api_client):
        Webhook.objects.filter(pk=feed.pk).update(additional_headers='X-Name: {{ data.name / 0 }}')
        publish('Bern')
        assert names(read(api_client, feed)) == ['Bern']

    @pytest.mark.parametrize(
        'lost',
        [
            {'secret': 'file:/run/secrets/of-workers'},
            {'secret': Sealed('of another key')},
            {'additional_headers': Sealed('of another key')},
        ],
        ids=['reference', 'secret', 'headers'],
    )
    def test_a_secret_that_cannot_be_read_has_no_effect(self, feed, api_client, lost, monkeypatch):
        change_settings(monkeypatch, secret_folders=(Path('/run/secrets'),))
        Webhook.objects.filter(pk=feed.pk).update(**lost)
        publish('Bern')
        assert names(read(api_client, feed)) == ['Bern']
        assert trial.send_test(feed).error == ''

    def test_each_feed_has_numbers_of_its_own(self, feed, api_client):
        other = subscribe('', Site)
        publish('Bern', 'Basel')
        assert names(read(api_client, feed)) == names(read(api_client, other)) == ['Bern', 'Basel']

    def test_a_template_makes_the_body(self, api_client):
        feed = subscribe('', Site, body_template='{{ data.name }}!')
        publish('Bern')
        assert [item['body'] for item in read(api_client, feed)['items']] == ['Bern!']

    def test_an_item_whose_template_fails_has_the_error_and_can_be_read_again(self, feed, api_client):
        publish('Bern', 'Basel')
        Webhook.objects.filter(pk=feed.pk).update(body_template='{{ 1 / (data.name | length - 4) }}')
        first, second = read(api_client, feed)['items']
        assert first['body'] is None
        assert first['error'].startswith('body_template: ')
        assert second['body'] == '1.0'
        Webhook.objects.filter(pk=feed.pk).update(body_template='{{ data.name }}')
        assert [item['body'] for item in read(api_client, feed)['items']] == ['Bern', 'Basel']

    def test_an_event_that_cannot_be_rendered_fails_by_name(self, feed, api_client):
        publish('Bern')
        site(name='Basel')
        dispatch_all()
        Event.objects.filter(object_repr='Basel').update(data='', error='it cannot be rendered')
        publish('Genf')
        assert names(read(api_client, feed)) == ['Bern', 'Genf']
        (failed,) = deliveries(StatusChoices.FAILED)
        assert failed.error == 'it cannot be rendered'


class TestCursor:
    def test_pages_follow_each_other_without_a_gap(self, feed, api_client):
        publish('A', 'B', 'C', 'D', 'E')
        page = read(api_client, feed, limit=2)
        assert (names(page), page['unread']) == (['A', 'B'], 3)
        assert page['unread_since']
        page = read(api_client, feed, limit=2, after=page['cursor'])
        assert (names(page), page['unread']) == (['C', 'D'], 1)
        page = read(api_client, feed, limit=2, after=page['cursor'])
        assert (names(page), page['unread'], page['unread_since']) == (['E'], 0, None)
        last = page['cursor']
        page = read(api_client, feed, after=last)
        assert (page['items'], page['cursor']) == ([], last)

    def test_each_item_has_a_cursor(self, feed, api_client):
        publish('A', 'B', 'C')
        first, *_rest = read(api_client, feed)['items']
        assert names(read(api_client, feed, after=first['cursor'])) == ['B', 'C']

    def test_an_answer_is_bounded_in_bytes(self, feed, api_client, monkeypatch):
        publish('A', 'B', 'C')
        first, second, _third = (len(item['body'].encode()) for item in read(api_client, feed)['items'])
        for most, told in ((1, ['A']), (first, ['A']), (first + second, ['A', 'B'])):
            monkeypatch.setattr(service, 'MAX_PAGE_BYTES', most)
            page = read(api_client, feed)
            assert names(page) == told
            assert names(read(api_client, feed, after=page['cursor']))[0] == 'ABC'[len(told)]

    @pytest.mark.parametrize('cursor', ['-1', 'x', '1.x', '1' * 40])
    def test_an_unknown_cursor_is_refused(self, feed, api_client, cursor):
        publish('A')
        assert 'after' in read(api_client, feed, 400, after=cursor)

    @pytest.mark.parametrize('cursor', ['9', '9.00000000', '1.00000000'])
    def test_a_cursor_from_before_a_restore_is_gone(self, feed, api_client, cursor):
        publish('A')
        gone = read(api_client, feed, 410, after=cursor)
        assert 'backfill' in gone['detail']
        publish('B')
        assert names(read(api_client, feed, after=gone['cursor'])) == ['B']

    @pytest.mark.parametrize('asked', [{'limit': 0}, {'limit': 1001}, {'wait': 61}, {'wait': 'nan'}, {'limit': 'x'}])
    def test_bad_input_is_refused_by_name(self, feed, api_client, asked):
        assert read(api_client, feed, 400, **asked).keys() == asked.keys()

    def test_a_cursor_before_deleted_items_is_gone(self, feed, api_client):
        publish('A', 'B', 'C', 'D')
        first, second, *_rest = (item['cursor'] for item in read(api_client, feed)['items'])
        Event.objects.filter(object_repr__in=('A', 'C')).delete()
        assert names(read(api_client, feed, after=first)) == ['B']
        gone = read(api_client, feed, 410, after=second)
        assert 'backfill' in gone['detail']
        publish('E')
        assert names(read(api_client, feed, after=gone['cursor'])) == ['E']

    def test_a_reader_without_a_cursor_begins_after_the_last_gap(self, feed, api_client):
        publish('A', 'B', 'C', 'D', 'E')
        assert names(read(api_client, feed)) == ['A', 'B', 'C', 'D', 'E']
        Event.objects.filter(object_repr__in=('B', 'D')).delete()
        page = read(api_client, feed)
        assert (names(page), page['unread']) == (['E'], 0)
        Event.objects.filter(object_repr='E').delete()
        page = read(api_client, feed)
        assert (page['items'], page['cursor']) == ([], '5')
        publish('F')
        assert names(read(api_client, feed)) == names(read(api_client, feed, after=page['cursor'])) == ['F']

    def test_where_all_was_deleted_readers_go_on_with_what_comes(self, feed, api_client):
        publish('A', 'B')
        first, second = (item['cursor'] for item in read(api_client, feed)['items'])
        assert retention.prune_all(0) == 2
        gone = read(api_client, feed, 410, after=first)
        assert read(api_client, feed, after=second)['items'] == []
        publish('C')
        for cursor in (gone['cursor'], second):
            assert names(read(api_client, feed, after=cursor)) == ['C']

    def test_a_redelivery_has_a_new_position(self, feed, api_client):
        publish('A', 'B')
        last = read(api_client, feed)['cursor']
        redelivery.redeliver(Delivery.objects.filter(event__object_repr='A'))
        work()
        page = read(api_client, feed, after=last)
        assert names(page) == ['A']
        assert page['cursor'].startswith('3.')


class TestPermissions:
    def test_a_permission_of_its_own_is_needed(self, feed, clerk_api, grant):
        grant(Webhook, 'view', 'change')
        grant(Site, 'view')
        publish('Bern')
        read(clerk_api, feed, 403)
        grant(Webhook, 'read_feed')
        assert names(read(clerk_api, feed)) == ['Bern']

    def test_it_may_be_for_some_feeds(self, feed, clerk_api, grant):
        other = subscribe('', Site, name='Other')
        grant(Webhook, 'read_feed', name='Other')
        grant(Site, 'view')
        read(clerk_api, feed, 404)
        read(clerk_api, other)

    @pytest.mark.parametrize('wait', [0, 60])
    def test_a_reader_has_to_view_all_objects_of_its_types(self, clerk_api, grant, wait):
        feed = subscribe('', Site, Rack)
        publish('Bern', 'Basel')
        grant(Webhook, 'read_feed')
        grant(Site, 'view', name='Basel')
        refused = read(clerk_api, feed, 403, wait=wait)['detail']
        assert 'dcim.rack, dcim.site' in refused
        assert 'conditions' in refused
        grant(Site, 'view')
        assert 'dcim.site' not in read(clerk_api, feed, 403, wait=wait)['detail']
        grant(Rack, 'view')
        assert names(read(clerk_api, feed, wait=wait)) == ['Bern', 'Basel']

    def test_an_item_of_a_type_that_the_feed_had_once_needs_its_view(self, feed, clerk_api, grant):
        publish('Bern')
        feed.object_types.set([ContentType.objects.get_for_model(Rack)])
        grant(Webhook, 'read_feed')
        grant(Rack, 'view')
        assert 'dcim.site' in read(clerk_api, feed, 403)['detail']
        grant(Site, 'view')
        assert names(read(clerk_api, feed)) == ['Bern']

    def test_a_ping_needs_no_view_of_webhooks(self, feed, clerk_api, grant):
        grant(Webhook, 'read_feed')
        grant(Site, 'view')
        trial.send_test(feed)
        publish('Bern')
        items = read(clerk_api, feed)['items']
        assert [json.loads(item['body'])['object_type'] for item in items] == ['webhooks.webhook', 'dcim.site']

    def test_an_expanded_item_needs_the_view_of_its_objects(self, clerk_api, grant):
        feed = subscribe('', Site, expand=['tenant'])
        grant(Webhook, 'read_feed')
        grant(Site, 'view')
        site(name='Bern', tenant=Tenant.objects.create(name='A', slug='a'))
        work()
        assert 'tenancy.tenant' in read(clerk_api, feed, 403)['detail']
        grant(Tenant, 'view')
        assert names(read(clerk_api, feed)) == ['Bern']

    def test_a_webhook_with_a_url_has_no_feed(self, api_client):
        assert 'payload_url' in read(api_client, subscribe(NOWHERE, Site), 400)


class TestWaiting:
    def test_a_reader_that_waits_gets_what_arrives(self, feed, api_client):
        """A waiting reader must hold no transaction."""
        idle = []

        def holds_nothing() -> bool:
            with connection.cursor() as cursor:
                cursor.execute(
                    'SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() '
                    "AND pid <> pg_backend_pid() AND (state = 'idle in transaction' OR backend_xmin IS NOT NULL)"
                )
                return cursor.fetchone() == (0,)

        def act() -> None:
            assert wait_until(lambda: service._waiting, 60)
            idle.append(wait_until(holds_nothing, 30))  # between its queries
            publish('Bern')

        thread = in_thread(act)
        page = read(api_client, feed, wait=60)
        thread.join()
        assert names(page) == ['Bern']
        assert idle == [True]
        assert not service._waiting

    @pytest.mark.parametrize(
        ('take_away', 'status'),
        [
            (lambda: ObjectPermission.objects.filter(actions=['view']).delete(), 403),
            (lambda: ObjectPermission.objects.filter(actions=['read_feed']).delete(), 403),
            (lambda: Token.objects.update(enabled=False), 403),
            (lambda: User.objects.update(is_active=False), 403),
            (lambda: Webhook.objects.get().delete(), 404),
            (lambda: None, 200),
        ],
    )
    def test_permissions_that_go_while_a_reader_waits_count(self, feed, clerk_api, grant, take_away, status):
        grant(Webhook, 'read_feed')
        grant(Site, 'view')

        def act() -> None:
            assert wait_until(lambda: service._waiting, 60)
            publish_and(take_away)

        thread, began = in_thread(act), time.monotonic()
        answer = read(clerk_api, feed, status, wait=60)
        assert time.monotonic() - began < 60
        thread.join()
        assert ('Bern' in json.dumps(answer)) is (status == 200)

    def test_a_session_that_waits_is_asked_again_too(self, feed, clerk_pages, grant):
        grant(Webhook, 'read_feed')
        grant(Site, 'view')

        def act() -> None:
            assert wait_until(lambda: service._waiting, 60)
            publish_and(lambda: ObjectPermission.objects.filter(actions=['view']).delete())

        thread = in_thread(act)
        assert 'dcim.site' in read(clerk_pages, feed, 403, wait=60)['detail']
        thread.join()

    def test_where_nothing_comes_it_is_answered_in_the_end(self, feed, api_client):
        page = read(api_client, feed, wait=1)
        assert (page['items'], page['cursor']) == ([], '0')

    def test_readers_take_no_more_threads_than_they_may(self, feed, api_client, monkeypatch):
        change_settings(monkeypatch, feed_readers=0)
        answer = api_client.get(f'{WEBHOOKS}{feed.pk}/feed/', {'wait': 30})
        assert answer.status_code == 503
        assert int(answer['Retry-After']) > 0
        publish('Bern')
        assert names(read(api_client, feed, wait=30)) == ['Bern']

    def test_a_second_reader_does_not_take_the_next_thread(self, feed, api_client):
        thread = in_thread(lambda: read(api_client, feed, wait=60))
        assert wait_until(lambda: service._waiting, 60)
        read(api_client, feed, 503, wait=60)
        publish('Bern')
        thread.join()
        assert not service._waiting


class TestStates:
    def test_a_paused_feed_publishes_when_it_is_resumed(self, feed, api_client):
        Webhook.objects.update(paused=True)
        publish('Bern')
        assert read(api_client, feed)['items'] == []
        Webhook.objects.update(paused=False)
        work()
        assert names(read(api_client, feed)) == ['Bern']

    def test_a_disabled_feed_shows_what_it_has_published(self, feed, api_client):
        publish('Bern')
        feed.enabled = False
        feed.save()
        publish('Basel')
        assert names(read(api_client, feed)) == ['Bern']

    def test_a_deleted_feed_is_gone(self, feed, api_client):
        publish('Bern')
        feed.delete()
        read(api_client, feed, 404)

    def test_cursors_last_while_it_has_a_url(self, feed, receiver, api_client):
        publish('A')
        cursor = read(api_client, feed)['cursor']
        feed.payload_url = receiver.url('/hook')
        feed.save()
        publish('B')
        assert 'payload_url' in read(api_client, feed, 400, after=cursor)
        feed.payload_url = ''
        feed.save()
        publish('C')
        assert names(read(api_client, feed, after=cursor)) == ['C']
        assert len(receiver.requests) == 1

    def test_a_metric_and_the_page_say_how_far_its_reader_is_behind(self, feed, api_client, admin_pages):
        publish('A', 'B', 'C')
        cursor = read(api_client, feed, limit=1)['cursor']
        read(api_client, feed, after=cursor)
        assert f'webhooks_feed_unread{{webhook="{feed.name}"}} 2.0' in generate_latest(metrics._registry).decode()
        for page in ('/plugins/webhooks/webhooks/{}/',):
            assert 'the last reader has not read: 2' in admin_pages.get(page.format(feed.pk)).content.decode()


class TestDefinition:
    def test_a_blank_url_has_to_be_said(self, api_client):
        valid = {'name': 'Feed', 'object_types': ['dcim.site'], 'type_create': True}
        answer = api_client.post(WEBHOOKS, valid, format='json')
        assert 'payload_url' in answer.json()
        answer = api_client.post(WEBHOOKS, {**valid, 'payload_url': ''}, format='json')
        assert (answer.status_code, answer.json()['payload_url']) == (201, '')

    def test_an_import_has_to_say_it_too(self):
        data = {'name': 'Feed', 'object_types': 'dcim.site', 'type_create': 'true'}
        assert 'payload_url' in WebhookImportForm(data).errors
        assert WebhookImportForm({**data, 'payload_url': ''}).is_valid()

    def test_a_feed_has_no_change_sets(self, feed, api_client):
        answer = api_client.patch(f'{WEBHOOKS}{feed.pk}/', {'change_set': True}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['change_set'])

    def test_a_feed_has_no_credential(self, feed, api_client):
        kept = Credential.objects.create(name='Token', type='bearer', hosts=['https://a.example'], secret='sesame')
        answer = api_client.patch(f'{WEBHOOKS}{feed.pk}/', {'credential': kept.pk}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['credential'])

    def test_a_webhook_in_trouble_that_becomes_a_feed_has_none(self, api_client):
        webhook = subscribe('http://127.0.0.1:1/', Site, max_attempts=1)
        publish('Bern')
        assert deliveries(StatusChoices.FAILED)
        webhook.payload_url = ''
        webhook.full_clean()
        webhook.save()
        publish('Basel')
        assert names(read(api_client, webhook)) == ['Basel']
        assert state_of(Webhook.objects.get(pk=webhook.pk)).label == 'Active'

    def test_a_suspect_is_published_as_well(self, receiver, api_client):
        webhook = subscribe(receiver.url('/hook'), Site)
        site(name='A')
        dispatch_all()
        suspect(*deliveries())
        webhook.payload_url = ''
        webhook.save()
        pass_retry_waits()
        assert wait_until(lambda: work() and not deliveries('pending', lapses__gt=0), PATIENCE)
        assert names(read(api_client, webhook)) == ['A']

    def test_changes_that_wait_when_a_feed_gets_a_url_are_sent_there(self, feed, receiver, api_client):
        Webhook.objects.filter(pk=feed.pk).update(paused=True)
        publish('Bern')
        assert read(api_client, feed)['items'] == []
        feed.refresh_from_db()
        feed.payload_url, feed.paused = receiver.url('/hook'), False
        feed.save()
        work()
        assert [request.json()['data']['name'] for request in receiver.requests] == ['Bern']

    def test_a_test_is_in_the_feed(self, feed, api_client):
        publish('Bern')
        delivery = trial.send_test(feed)
        _first, second = read(api_client, feed)['items']
        assert json.loads(second['body'])['test'] is True
        assert second['id'] == str(delivery.uuid)
        assert 'feed' in trial.announce(delivery)[1]

    def test_a_test_says_that_changes_are_not_sent_while_webhooks_are_off(self, feed, monkeypatch):
        publish('Bern')
        delivery = trial.send_test(feed)
        assert 'Changes are not sent' not in trial.announce(delivery)[1]
        change_settings(monkeypatch, enabled=False)
        assert 'Changes are not sent' in trial.announce(delivery)[1]

    def test_a_test_waits_for_a_turn_that_publishes(self, feed, api_client):
        publish('Bern')
        with open_transaction(lambda: order.try_lock_lanes([feed.pk])):
            testing = in_thread(lambda: trial.send_test(feed))
            assert wait_until(is_anybody_blocked, timeout=PATIENCE)
        testing.join()
        assert [one['error'] for one in read(api_client, feed)['items']] == ['', '']

    def test_each_change_of_a_set_that_waited_is_an_item_of_its_own(self, receiver, api_client):
        webhook = subscribe(receiver.url('/hook'), Site, change_set=True)
        receiver.answers('/hook', 500)
        with transaction.atomic():
            site(name='Bern'), site(name='Basel')
        work()
        webhook.payload_url, webhook.change_set = '', False
        webhook.save()
        pass_retry_waits()
        work()
        assert names(read(api_client, webhook)) == ['Bern', 'Basel']

    def test_a_lane_that_somebody_holds_is_published_later(self, feed, api_client):
        site(name='Bern')
        dispatch_all()
        with open_transaction(lambda: order.lock_lanes([feed.pk])):
            work()
            assert read(api_client, feed)['items'] == []
        work()
        assert names(read(api_client, feed)) == ['Bern']

    @pytest.mark.parametrize('page', ['/plugins/webhooks/webhooks/{}/'])
    def test_pages_show_the_address(self, feed, admin_pages, page):
        told = admin_pages.get(page.format(feed.pk)).content.decode()
        assert f'http://testserver{WEBHOOKS}{feed.pk}/feed/' in told

    @pytest.mark.parametrize('page', ['/plugins/webhooks/webhooks/', '/admin/webhooks/webhook/'])
    def test_lists_call_it_a_feed(self, feed, admin_pages, page):
        assert 'Feed' in admin_pages.get(page).content.decode()

    def test_a_preview_shows_the_item(self, feed, admin_pages):
        publish('Bern')
        told = admin_pages.get(f'/plugins/webhooks/webhooks/{feed.pk}/preview/').content.decode()
        assert 'Bern' in told
        assert 'alert-danger' not in told


def test_two_clients_on_one_file_store_each_change_once(feed, netbox_server, netbox_user, tmp_path, monkeypatch):
    token = Token.objects.create(user=netbox_user)
    monkeypatch.setenv('FEED', f'{netbox_server.url.rstrip("/")}{WEBHOOKS}{feed.pk}/feed/')
    monkeypatch.setenv('TOKEN', f'{token.get_auth_header_prefix()}{token.token}'.removeprefix('Bearer '))
    monkeypatch.setenv('DATABASE', str(tmp_path / 'feed.sqlite'))
    first, second = contributed('feed_client'), contributed('feed_client')
    first.WAIT = 1  # at last there is nothing new
    publish('Bern', 'Basel')
    first.read()
    first.db.execute('DELETE FROM cursor')  # as the second knew it when it asked
    first.db.commit()
    publish('Chur')
    second.read()
    first.read()
    inbox = [json.loads(body)['data']['name'] for (body,) in first.db.execute('SELECT body FROM inbox ORDER BY number')]
    assert inbox == ['Bern', 'Basel', 'Chur']
    assert first.db.execute('SELECT value FROM cursor').fetchone()[0].startswith('3.')


@pytest.mark.parametrize('asked', [b'Wed, 21 Oct 2026 07:28:00 GMT', b'soon'])
def test_clients_go_on_though_a_proxy_asks_them_to_wait_in_another_way(asked, tmp_path, monkeypatch):
    """RFC 9110 allows a date."""
    monkeypatch.setenv('DATABASE', str(tmp_path / 'feed.sqlite'))
    monkeypatch.setenv('TOKEN', 'any')
    busy = b'HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: ' + asked + b'\r\n\r\n'
    wrong = b'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'
    with serving(busy, wrong) as server:
        monkeypatch.setenv('FEED', server.url())
        assert contributed('feed_client').read() == 5
    source = contributed('ansible_rulebook_feed')
    source.PAUSE = 0.01
    with serving(busy, wrong) as server, pytest.raises(RuntimeError, match='404'):
        args = {'url': server.url(), 'token': 'any', 'state': str(tmp_path / 'cursor')}
        asyncio.run(source.main(asyncio.Queue(), args))


def contributed(name: str) -> ModuleType:
    path = CHECKOUT / 'contrib' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_event_source_of_ansible_rulebook_goes_on_after_its_cursor(
    feed, netbox_server, netbox_user, tmp_path: Path
):
    token = Token.objects.create(user=netbox_user)
    args = {
        'url': f'{netbox_server.url.rstrip("/")}{WEBHOOKS}{feed.pk}/feed/',
        'token': f'{token.get_auth_header_prefix()}{token.token}'.removeprefix('Bearer '),
        'state': str(tmp_path / 'cursor'),
        'wait': 1,
    }
    source = contributed('ansible_rulebook_feed')

    def first() -> dict:
        async def run() -> dict:
            queue = asyncio.Queue()
            task = asyncio.create_task(source.main(queue, args))
            event = await asyncio.wait_for(queue.get(), 60)
            while not (tmp_path / 'cursor').exists():
                await asyncio.sleep(0.01)
            task.cancel()
            return event

        return asyncio.run(run())

    publish('Bern')
    event = first()
    assert (event['event'], event['data']['name']) == ('created', 'Bern')
    assert event['meta']['id'] == str(Delivery.objects.get().uuid)
    publish('Basel')
    assert first()['data']['name'] == 'Basel'
    assert Health.objects.get().position == 2
