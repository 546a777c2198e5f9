"""A webhook that subscribes to a list: its receiver's copy is what the list of NetBox shows."""

import json
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from io import StringIO

import pytest
from core.models import ObjectType
from dcim.models import Interface, Region, Site
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Model, Q
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.http import urlencode
from extras.models import SavedFilter, TableConfig
from ipam.models import IPAddress, Prefix
from support.builders import NOWHERE, device, interface, named, site, subscribe
from support.engine import deliveries, dispatch_all, dispatching, open_transaction, work
from support.writers import before_statement
from tenancy.models import Contact, ContactAssignment, ContactGroup, ContactRole, Tenant, TenantGroup
from users.models import User

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks import list_filters
from webhooks.choices import KindChoices
from webhooks.engine import sql
from webhooks.engine.dispatch import memberships
from webhooks.engine.dispatch.undecided import Undecided
from webhooks.engine.tidy import loop as tidy
from webhooks.engine.walks import lists as lists_walk
from webhooks.engine.walks import loop as walks_loop
from webhooks.engine.walks.backfills import BackfillWalk
from webhooks.engine.walks.loop import Walks
from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.models import Delivery, Event, ListMember, ListWalk, Webhook
from webhooks.services import backfill, lists, redelivery, send_now
from webhooks.services.keys import find_wrong

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/webhooks/'
ACTIVE = {'dcim.site': 'status=active'}
ANY_NAME = {'and': [{'attr': 'name', 'op': 'regex', 'value': '.'}]}


def mirror(receiver: Receiver, query: str = 'status=active', **fields: object) -> Webhook:
    webhook = subscribe(receiver.url('/'), Site, filters={'dcim.site': query}, **fields)
    work()
    receiver.clear()
    return webhook


def told(receiver: Receiver) -> list[tuple[str, int, str | None]]:
    """Work, and return (event, id, membership) of each new request, in order."""
    work()
    bodies = [request.json() for request in receiver.requests]
    receiver.clear()
    return [(body['event'], body['data']['id'], body.get('membership')) for body in bodies]


def change(one: Model, **fields: object) -> None:
    for name, value in fields.items():
        setattr(one, name, value)
    with transaction.atomic():
        one.save()


def members(webhook: Webhook) -> list[int]:
    return sorted(ListMember.objects.filter(webhook_id=webhook.pk).values_list('object_id', flat=True))


def compare(webhook: Webhook) -> None:
    ListWalk.objects.filter(webhook_id=webhook.pk).update(asked=True)


def form() -> dict[str, object]:
    """Return what NetBox's form sends for a webhook of sites and tenants."""
    return {
        'name': 'list', 'payload_url': 'https://example.com/', 'type_create': True, 'http_method': 'POST',
        'http_content_type': 'application/json', 'payload_format': 'default', 'max_attempts': 8, 'concurrency': 16,
        'ordered': True, 'object_types_1': [ContentType.objects.get_for_model(one).pk for one in (Site, Tenant)],
    }  # fmt: skip


def saved_filter(**fields: object) -> SavedFilter:
    one = SavedFilter.objects.create(**named('filter'), parameters={'status': ['active']}, **{'shared': True, **fields})
    one.object_types.set([ObjectType.objects.get_for_model(Site)])
    return one


def forget_writes(model: type[Model], query: str) -> None:
    """Make it as if nothing was written that the filter reads. PostgreSQL counts late what was written last."""
    sql.execute('SELECT pg_stat_force_next_flush()')
    tables = lists_walk._tables(model, query)
    ListWalk.objects.update(written=sql.fetch_value(lists_walk.COUNT_WRITES, [list(tables)]))


def renamed_device() -> tuple[IPAddress, str, Callable[[], None]]:
    host = device(name='old')
    one = IPAddress.objects.create(address='10.0.0.1/24', assigned_object=interface(host))

    def rename() -> None:
        host.name = 'new'
        host.save()

    return one, 'device=new', rename


def moved_parent() -> tuple[TenantGroup, str, Callable[[], None]]:
    above, parent = (TenantGroup.objects.create(**named('group')) for _ in range(2))
    one = TenantGroup.objects.create(parent=parent, **named('group'))

    def move() -> None:
        parent.parent = above
        parent.save()

    return one, f'ancestor={above.slug}', move


def new_container() -> tuple[Prefix, str, Callable[[], None]]:
    one = Prefix.objects.create(prefix='10.1.0.0/16')
    return one, 'depth=1', lambda: Prefix.objects.create(prefix='10.0.0.0/8')


CASES = (renamed_device, moved_parent, new_container)


def prefix_of_a_site() -> tuple[Model, Callable[[], None]]:
    place, region = site(), Region.objects.create(**named('region'))
    return Prefix.objects.create(prefix='10.0.0.0/8', scope=place), lambda: change(place, region=region)


def interface_of_a_device() -> tuple[Model, Callable[[], None]]:
    host, place = device(), site()
    return interface(host), lambda: change(host, site=place)


def group_below_another() -> tuple[Model, Callable[[], None]]:
    above = TenantGroup.objects.create(**named('group'))
    return TenantGroup.objects.create(parent=above, **named('group')), lambda: change(above, name='new')


# Objects with columns that NetBox copies from others, and a change of such another one.
COPIES = (prefix_of_a_site, interface_of_a_device, group_below_another)


class TestChanges:
    def test_an_object_that_is_created_in_the_list_is_created(self, receiver: Receiver):
        webhook = mirror(receiver)
        inside, _outside = site(), site(status='retired')
        assert told(receiver) == [('created', inside.pk, None)]
        assert members(webhook) == [inside.pk]

    def test_an_object_is_sent_when_it_enters_changes_and_leaves(self, receiver: Receiver):
        webhook = mirror(receiver)
        one = site(status='planned')
        change(one, description='not told')
        assert told(receiver) == []
        change(one, status='active')
        assert told(receiver) == [('created', one.pk, 'entered')]
        change(one, description='told')
        assert told(receiver) == [('updated', one.pk, None)]
        change(one, status='retired')
        assert told(receiver) == [('deleted', one.pk, 'left')]
        change(one, description='not told either')
        assert told(receiver) == []
        assert members(webhook) == []

    def test_only_objects_of_the_list_are_sent_as_deleted(self, receiver: Receiver):
        mirror(receiver)
        inside, outside = site(), site(status='retired')
        assert told(receiver) == [('created', inside.pk, None)]
        pk = inside.pk
        with transaction.atomic():
            inside.delete()
            outside.delete()
        assert told(receiver) == [('deleted', pk, None)]

    def test_objects_that_go_with_the_one_that_the_filter_names_are_deleted(self, receiver: Receiver):
        """Nobody could mend the filter in time: once the device is gone, NetBox refuses it."""
        host = device()
        ports = sorted(interface(host).pk for _ in range(2))
        webhook = subscribe(receiver.url('/'), Interface, filters={'dcim.interface': f'device_id={host.pk}'})
        assert told(receiver) == []
        with transaction.atomic():
            host.delete()
        assert sorted(told(receiver)) == [('deleted', pk, None) for pk in ports]
        assert members(webhook) == []

    def test_kinds_choose_which_changes_of_the_list_are_sent(self, receiver: Receiver):
        webhook = mirror(receiver, kinds=(KindChoices.DELETED,))
        one = site()
        assert told(receiver) == []
        assert members(webhook) == [one.pk]
        change(one, status='retired')
        assert told(receiver) == [('deleted', one.pk, 'left')]

    def test_a_member_whose_updates_are_not_chosen_is_as_it_was_sent_until_they_are(self, receiver: Receiver):
        webhook = mirror(receiver, kinds=(KindChoices.CREATED, KindChoices.DELETED))
        one = site()
        work()
        (body,) = [request.json() for request in receiver.requests]
        receiver.clear()
        change(one, description='new')
        assert told(receiver) == []
        member = ListMember.objects.get(webhook_id=webhook.pk)
        assert (member.sequence, member.digest) == (body['sequence'], memberships.digest(body['data']))
        webhook.type_update = True
        webhook.save()
        compare(webhook)
        assert told(receiver) == [('updated', one.pk, None)]

    def test_types_without_a_filter_are_sent_as_always(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, Tenant, filters=ACTIVE)
        site(status='retired')
        tenant = Tenant.objects.create(**named('tenant'))
        assert told(receiver) == [('created', tenant.pk, None)]

    def test_a_member_names_what_was_sent_last(self, receiver: Receiver):
        webhook = mirror(receiver)
        site()
        work()
        (request,) = receiver.requests
        body, member = request.json(), ListMember.objects.get(webhook_id=webhook.pk)
        assert (member.sequence, member.digest) == (body['sequence'], memberships.digest(body['data']))

    def test_every_format_says_how_it_came(self, receiver: Receiver):
        for payload_format in ('netbox', 'cloudevents'):
            mirror(receiver, payload_format=payload_format)
        one = site(status='planned')
        assert told(receiver) == []
        change(one, status='active')
        work()
        assert [request.json()['membership'] for request in receiver.requests] == ['entered'] * 2

    @pytest.mark.parametrize('keys', [{'omit': {'dcim.site': ['description']}}, {'expand': ['region']}], ids=list)
    def test_a_webhook_for_all_changes_with_the_same_keys_takes_nothing_from_a_list(self, receiver: Receiver, keys):
        """A sender reads an event once for both, and they share what it shows."""
        subscribe(receiver.url('/all'), Site, **keys)
        mirror(receiver, **keys)
        subscribe(receiver.url('/all'), Site, **keys)
        one = site(status='planned')
        work()
        for status in ('active', 'planned'):
            change(one, status=status)
            dispatch_all()
            work()
        bodies = [request.json() for request in receiver.requests if request.path == '/']
        assert [(body['event'], body['membership']) for body in bodies] == [('created', 'entered'), ('deleted', 'left')]


class TestWalks:
    def test_a_change_without_an_event_is_sent_when_the_list_is_compared(self, receiver: Receiver):
        webhook = mirror(receiver)
        leaves, stays, enters = site(), site(), site(status='planned')
        assert len(told(receiver)) == 2
        Site.objects.filter(pk=leaves.pk).update(status='retired')
        Site.objects.filter(pk=enters.pk).update(status='active')
        compare(webhook)
        assert sorted(told(receiver)) == [('created', enters.pk, 'entered'), ('deleted', leaves.pk, 'left')]
        assert members(webhook) == sorted([stays.pk, enters.pk])
        compare(webhook)
        assert told(receiver) == []

    def test_an_object_that_is_gone_without_an_event_is_sent_as_deleted(self, receiver: Receiver):
        webhook = mirror(receiver)
        one = site()
        assert len(told(receiver)) == 1
        Site.objects.filter(pk=one.pk)._raw_delete('default')
        compare(webhook)
        assert told(receiver) == [('deleted', one.pk, None)]
        assert members(webhook) == []

    @pytest.mark.parametrize('ask', [lists.compare, Webhook.save], ids=['compared', 'saved'])
    def test_a_walk_comes_to_its_end_though_somebody_asks_again_and_again(self, receiver: Receiver, monkeypatch, ask):
        webhook = mirror(receiver)
        places = [site() for _ in range(4)]
        told(receiver)
        monkeypatch.setattr(walks_loop, 'OBJECTS_PER_SLICE', 1)
        Site.objects.update(description='changed without an event')
        walks = Walks([lists_walk.WalkOfList])
        for _ in places:
            ask(webhook)
            assert wait_until(walks.next_slice, timeout=60)
        assert [event.object_id for event in Event.objects.filter(dispatched_at=None).order_by('pk')] == [
            one.pk for one in places
        ]
        told(receiver)
        assert not ListWalk.objects.filter(Q(asked=True) | Q(walking=True)).exists()

    def test_a_write_to_what_the_filter_reads_begins_a_walk_after_a_minute(self, receiver: Receiver):
        group = TenantGroup.objects.create(**named('group'))
        tenant = Tenant.objects.create(**named('tenant'))
        webhook = mirror(receiver, f'tenant_group_id={group.pk}')
        one = site(tenant=tenant)
        assert told(receiver) == []
        tenant.group = group
        tenant.save()
        assert told(receiver) == []
        begun = timezone.now() - timedelta(minutes=2)
        ListWalk.objects.update(begun_at=begun)
        assert wait_until(lambda: told(receiver) == [('created', one.pk, 'entered')], timeout=60)
        ListWalk.objects.update(begun_at=begun)
        assert told(receiver) == []
        assert members(webhook) == [one.pk]

    @pytest.mark.parametrize('case', CASES)
    def test_so_does_one_to_another_object_of_the_same_type_or_that_the_filter_looks_up(self, receiver: Receiver, case):
        one, query, write = case()
        subscribe(receiver.url('/'), type(one), filters={type(one)._meta.label_lower: query})
        work()
        forget_writes(type(one), query)
        write()
        told(receiver)
        ListWalk.objects.update(begun_at=timezone.now() - timedelta(minutes=2))
        assert wait_until(lambda: ('created', one.pk, 'entered') in told(receiver), timeout=60)


class TestDefinitions:
    def test_the_present_list_is_taken_as_known(self, receiver: Receiver):
        inside, _outside = site(), site(status='retired')
        webhook = mirror(receiver)
        assert members(webhook) == [inside.pk]
        change(inside, status='retired')
        assert told(receiver) == [('deleted', inside.pk, 'left')]

    def test_the_present_list_is_sent_if_somebody_asks(self, receiver: Receiver, api_client):
        inside, _outside = site(), site(status='retired')
        sent = {
            'name': 'list', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_create': True,
            'filters': ACTIVE, 'send_list': True,
        }  # fmt: skip
        assert api_client.post('/api/plugins/webhooks/webhooks/', sent, format='json').status_code == 201
        assert told(receiver) == [('created', inside.pk, 'entered')]

    def test_another_filter_sends_the_difference(self, receiver: Receiver):
        active, retired = site(), site(status='retired')
        webhook = mirror(receiver)
        webhook.filters = {'dcim.site': 'status=retired'}
        webhook.save()
        assert sorted(told(receiver)) == [('created', retired.pk, 'entered'), ('deleted', active.pk, 'left')]

    def test_without_the_filter_nothing_is_known_any_more(self, receiver: Receiver):
        one = site()
        webhook = mirror(receiver)
        webhook.filters = {}
        webhook.save()
        assert (members(webhook), ListWalk.objects.count()) == ([], 0)
        change(one, status='retired')
        assert told(receiver) == [('updated', one.pk, None)]

    def test_a_backfill_sends_the_list(self, receiver: Receiver):
        inside, _outside = site(), site(status='retired')
        webhook = mirror(receiver)
        backfill.start(webhook, backfill.choose(webhook))
        assert told(receiver) == [('updated', inside.pk, None)]

    def test_a_backfill_and_send_now_send_members_though_updates_are_not_chosen(self, receiver: Receiver):
        webhook = mirror(receiver, kinds=(KindChoices.CREATED, KindChoices.DELETED))
        one = site()
        assert told(receiver) == [('created', one.pk, None)]
        backfill.start(webhook, backfill.choose(webhook))
        assert told(receiver) == [('updated', one.pk, None)]
        send_now.send(send_now.choose(webhook, ContentType.objects.get_for_model(Site), [one.pk]))
        assert told(receiver) == [('updated', one.pk, None)]
        change(one, description='changed')
        Site.objects.update(description='changed without an event')
        compare(webhook)
        assert told(receiver) == []

    def test_what_a_canceled_backfill_left_out_is_sent_when_the_list_is_compared(self, receiver: Receiver):
        """A backfill is what the docs advise after a change without an event."""
        webhook = mirror(receiver)
        one = site()
        assert len(told(receiver)) == 1
        Site.objects.filter(pk=one.pk).update(description='not sent')
        backfill.start(webhook, backfill.choose(webhook))
        with dispatching() as role:
            assert wait_until(lambda: role.step() is None and deliveries('pending'), timeout=60)
        backfill.cancel(webhook)
        assert told(receiver) == []
        assert [found.names_of_stale for found in lists.differences(webhook)] == [[one.name]]
        compare(webhook)
        assert told(receiver) == [('updated', one.pk, None)]

    def test_what_is_judged_while_its_backfill_is_canceled_is_not_taken_for_sent(self, receiver: Receiver):
        webhook = mirror(receiver)
        one = site(status='planned')
        assert told(receiver) == []
        Site.objects.filter(pk=one.pk).update(status='active')
        backfill.start(webhook, backfill.choose(webhook))
        assert Walks([BackfillWalk]).next_slice()
        with open_transaction(lambda: sql.fetch(memberships.TRY_LOCK_MEMBERS, [webhook.pk])):
            dispatch_all()
        assert [found.object_id for found in deliveries('undecided')] == [one.pk]
        with before_statement(tidy.REMOVE_UNTRIED.partition('%')[0], Undecided().step):
            backfill.cancel(webhook)
        work()
        compare(webhook)
        assert told(receiver) == [('created', one.pk, 'entered')]

    def test_a_filter_that_fails_is_named_and_holds_no_other_webhook(self, receiver: Receiver, admin_pages):
        webhook = mirror(receiver)
        other = subscribe(receiver.url('/other'), Site)
        Webhook.objects.filter(pk=webhook.pk).update(filters={'dcim.site': 'cf_gone=1'})
        site()
        work()
        assert [request.path for request in receiver.requests] == ['/other']
        assert 'cf_gone' in ListWalk.objects.get(webhook_id=webhook.pk).error
        assert [one.status for one in deliveries('undecided')] == ['undecided']
        assert other.pk
        page = admin_pages.get(webhook.get_absolute_url()).content.decode()
        assert 'cf_gone' in page.partition('<h2 class="card-header">Lists</h2>')[2].partition('</table>')[0]


class TestFilters:
    def test_what_expired_while_a_filter_failed_is_still_judged_when_it_goes_again(self, receiver: Receiver):
        saved = saved_filter()
        webhook = mirror(receiver, f'filter_id={saved.pk}')
        inside, outside = site(), site(status='retired')
        SavedFilter.objects.update(shared=False)
        assert told(receiver) == []
        Delivery.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert tidy.expire()
        SavedFilter.objects.update(shared=True)
        assert redelivery.redeliver(redelivery.select(webhook)) == 2
        assert told(receiver) == [('created', inside.pk, None)]
        assert {one.object_id for one in deliveries()} == {inside.pk} != {outside.pk}

    @pytest.mark.parametrize('conditions', [{}, ANY_NAME], ids=['', 'conditions'])
    def test_without_the_failing_filter_only_the_chosen_kinds_go(self, receiver: Receiver, conditions: dict):
        saved = saved_filter()
        webhook = mirror(receiver, f'filter_id={saved.pk}', kinds=('created',))
        SavedFilter.objects.update(shared=False)
        one = site()
        assert told(receiver) == []
        change(one, description='changed')
        assert told(receiver) == []
        webhook.filters, webhook.conditions = {}, conditions
        webhook.save()
        assert told(receiver) == [('created', one.pk, None)]

    @pytest.mark.parametrize('conditions', [{}, ANY_NAME], ids=['', 'conditions'])
    def test_without_the_type_of_the_failing_filter_nothing_goes(self, receiver: Receiver, conditions: dict):
        """Most of it was never in the list."""
        saved = saved_filter()
        webhook = subscribe(receiver.url('/'), Site, Tenant, filters={'dcim.site': f'filter_id={saved.pk}'})
        SavedFilter.objects.update(shared=False)
        site(status='retired')
        tenant = Tenant.objects.create(**named('tenant'))
        assert told(receiver) == [('created', tenant.pk, None)]
        assert [one.status for one in deliveries('undecided')] == ['undecided']
        webhook.filters, webhook.conditions = {}, conditions
        webhook.save()
        webhook.object_types.set([ContentType.objects.get_for_model(Tenant)])
        assert told(receiver) == []
        assert not deliveries('undecided')

    @pytest.mark.parametrize(
        ('narrow', 'limit', 'reason'),
        [
            (lambda _sites: threading.Event().wait(), {'FILTER_SECONDS': 1.0}, 'it takes more than 1 second'),
            (
                lambda sites: sites.extra(where=['(SELECT pg_sleep(60)) IS NOT NULL']),
                {'FILTER_MS': 300, 'FILTER_SECONDS': 60.0},
                'PostgreSQL takes too long',
            ),
        ],
    )
    def test_one_that_hangs_is_named_and_holds_no_other_webhook(
        self, receiver: Receiver, filtered, monkeypatch, narrow, limit, reason
    ):
        webhook = mirror(receiver)
        subscribe(receiver.url('/other'), Site)
        leaves = site()
        assert len(told(receiver)) == 2
        with monkeypatch.context() as hasty:
            for name, value in limit.items():
                hasty.setattr(list_filters, name, value)
            filtered(narrow)
            lists_walk._tables.cache_clear()  # as in a new process
            enters = site()
            Site.objects.filter(pk=leaves.pk).update(status='retired')
            compare(webhook)
            work()
        assert [request.path for request in receiver.requests] == ['/other']
        assert reason in ListWalk.objects.get(webhook_id=webhook.pk).error
        receiver.clear()
        filtered(lambda sites: sites)
        compare(webhook)
        assert sorted(told(receiver)) == [('created', enters.pk, None), ('deleted', leaves.pk, 'left')]
        assert ListWalk.objects.get(webhook_id=webhook.pk).error == ''

    def test_one_that_fails_holds_no_other_list_of_its_webhook(self, receiver: Receiver):
        saved = saved_filter()
        filters = {'dcim.site': f'filter_id={saved.pk}', 'tenancy.tenant': 'slug__isw=tenant'}
        webhook = subscribe(receiver.url('/'), Site, Tenant, filters=filters)
        SavedFilter.objects.update(shared=False)
        one = site()
        tenant = Tenant.objects.create(**named('tenant'))
        assert told(receiver) == [('created', tenant.pk, None)]
        failing = ListWalk.objects.exclude(error='').get(webhook_id=webhook.pk)
        assert failing.query == filters['dcim.site']
        SavedFilter.objects.update(shared=True)
        assert told(receiver) == [('created', one.pk, None)]

    def test_an_error_that_has_passed_is_forgotten_with_the_next_change(self, receiver: Receiver, filtered):
        """The next comparison may be an hour away."""
        webhook = mirror(receiver)
        filtered(lambda _sites: 1 / 0)
        one = site()
        assert told(receiver) == []
        assert 'ZeroDivisionError' in ListWalk.objects.get(webhook_id=webhook.pk).error
        filtered(lambda sites: sites)
        assert told(receiver) == [('created', one.pk, None)]
        assert ListWalk.objects.get(webhook_id=webhook.pk).error == ''

    def test_a_filter_that_becomes_true_by_the_clock_is_noticed_within_an_hour(self, receiver: Receiver, filtered):
        today = ['2030-01-01']
        filtered(lambda sites: sites.filter(description__lte=today[0]))
        mirror(receiver)
        one = site(description='2030-01-02')
        assert told(receiver) == []
        today[0] = '2030-01-02'
        for minutes, events in ((59, []), (61, [('created', one.pk, 'entered')])):
            forget_writes(Site, 'status=active')
            ListWalk.objects.update(begun_at=timezone.now() - timedelta(minutes=minutes))
            assert told(receiver) == events

    def test_a_saved_filter_that_is_changed_changes_the_list(self, receiver: Receiver):
        saved = saved_filter()
        active, retired = site(), site(status='retired')
        mirror(receiver, f'filter_id={saved.pk}')
        saved.parameters = {'status': ['retired']}
        saved.save()
        ListWalk.objects.update(begun_at=timezone.now() - timedelta(minutes=2))
        assert wait_until(lambda: len(receiver.requests) == 2 or not work(), timeout=60)
        assert sorted(told(receiver)) == [('created', retired.pk, 'entered'), ('deleted', active.pk, 'left')]

    def test_a_write_to_what_a_changed_saved_filter_reads_begins_a_walk_after_a_minute(self, receiver: Receiver):
        saved, group = saved_filter(), ContactGroup.objects.create(**named('group'))
        one, contact = site(), Contact.objects.create(name='One')
        ContactAssignment.objects.create(object=one, contact=contact, role=ContactRole.objects.create(**named('role')))
        mirror(receiver, f'filter_id={saved.pk}')
        saved.parameters = {'contact_group': [group.pk]}
        saved.save()
        ListWalk.objects.update(begun_at=timezone.now() - timedelta(minutes=2))
        assert wait_until(lambda: ('deleted', one.pk, 'left') in told(receiver), timeout=60)
        contact.groups.add(group)
        ListWalk.objects.update(begun_at=timezone.now() - timedelta(minutes=2))
        assert wait_until(lambda: ('created', one.pk, 'entered') in told(receiver), timeout=60)

    def test_a_saved_filter_narrows_beside_other_parameters(self, receiver: Receiver):
        mirror(receiver, f'filter={saved_filter().slug}&name=Bern')
        site(), site(name='Bern', status='retired')
        assert told(receiver) == []
        one = Site.objects.get(name='Bern')
        change(one, status='active')
        assert told(receiver) == [('created', one.pk, 'entered')]

    @pytest.mark.parametrize('loss', [lambda one: one.delete(), lambda _one: SavedFilter.objects.update(shared=False)])
    def test_a_saved_filter_that_is_gone_is_named_and_nothing_is_sent(self, receiver: Receiver, loss):
        """NetBox shows all objects then."""
        saved = saved_filter()
        inside, _outside = site(), site(status='retired')
        webhook = mirror(receiver, f'filter_id={saved.pk}')
        pk = saved.pk
        loss(saved)
        change(inside, status='retired')
        compare(webhook)
        assert told(receiver) == []
        assert f'saved filter {pk}' in ListWalk.objects.get().error
        assert members(webhook) == [inside.pk]

    def test_a_webhook_can_be_disabled_while_its_filter_fails(self, receiver: Receiver, api_client):
        saved = saved_filter()
        webhook = mirror(receiver, f'filter_id={saved.pk}')
        address = f'{API}{webhook.pk}/'
        shown = api_client.get(address).json()
        SavedFilter.objects.update(shared=False)
        answer = api_client.patch(address, {name: shown[name] for name in ('filters', 'object_types')}, format='json')
        assert answer.status_code == 200
        assert api_client.put(address, shown | {'enabled': False}, format='json').status_code == 200
        for changed in ({'object_types': ['dcim.site', 'ipam.vrf']}, {'filters': {'dcim.site': 'filter_id=0'}}):
            assert api_client.patch(address, changed, format='json').json().keys() == {'filters'}

    def test_one_that_nobody_shares_is_refused(self, receiver: Receiver, api_client):
        private = saved_filter(shared=False)
        for query in (f'filter_id={private.pk}', f'filter={private.slug}', 'filter_id=x'):
            sent = {
                'name': 'list', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_create': True,
                'filters': {'dcim.site': query},
            }  # fmt: skip
            answer = api_client.post(API, sent, format='json')
            assert (answer.status_code, [*answer.json()]) == (400, ['filters'])
            assert query.partition('=')[2] in str(answer.json())


def test_a_dump_with_a_list_can_be_loaded_and_its_receiver_is_known_to_have_the_same(receiver: Receiver, tmp_path):
    webhook = mirror(receiver)
    one = site()
    assert len(told(receiver)) == 1
    known = list(ListMember.objects.values())
    file = tmp_path / 'webhooks.json'
    call_command('dumpdata', 'webhooks', output=file)
    Webhook.objects.get(pk=webhook.pk).delete()
    while tidy.step():
        pass
    assert not ListWalk.objects.exists()
    call_command('loaddata', file, verbosity=0)
    assert list(ListMember.objects.values()) == known
    change(one, status='retired')
    assert told(receiver) == [('deleted', one.pk, 'left')]


class TestFeeds:
    def test_a_feed_has_what_enters_changes_and_leaves(self, api_client):
        webhook = subscribe('', Site, filters=ACTIVE)
        one, _outside = site(status='planned'), site(status='planned')
        work()
        for fields in ({'status': 'active'}, {'description': 'changed'}, {'status': 'retired'}):
            change(one, **fields)
            work()
        items = api_client.get(f'{API}{webhook.pk}/feed/').json()['items']
        bodies = [json.loads(item['body']) for item in items]
        assert [(body['event'], body['data']['id'], body.get('membership')) for body in bodies] == [
            ('created', one.pk, 'entered'), ('updated', one.pk, None), ('deleted', one.pk, 'left'),
        ]  # fmt: skip

    def test_a_walk_publishes_what_differs(self, api_client):
        webhook = subscribe('', Site, filters=ACTIVE)
        one = site(status='planned')
        work()
        Site.objects.filter(pk=one.pk).update(status='active')
        compare(webhook)
        work()
        (item,) = api_client.get(f'{API}{webhook.pk}/feed/').json()['items']
        assert json.loads(item['body'])['membership'] == 'entered'
        (member,) = api_client.get(f'{API}{webhook.pk}/members/').json()['results']
        assert (member['object_id'], member['sequence']) == (one.pk, json.loads(item['body'])['sequence'])


class TestDeletion:
    def test_a_deleted_webhook_leaves_no_list_and_stops_no_other(self, receiver: Receiver):
        webhook, other = mirror(receiver), mirror(receiver, 'status=planned')
        site()
        assert len(told(receiver)) == 1
        one = site()
        compare(webhook)
        webhook.delete()
        assert told(receiver) == []
        change(one, status='planned')
        assert told(receiver) == [('created', one.pk, 'entered')]
        assert {*ListWalk.objects.values_list('webhook_id', flat=True)} == {other.pk}
        assert {*ListMember.objects.values_list('webhook_id', flat=True)} == {other.pk}


class TestRefusals:
    @pytest.mark.parametrize(
        ('wrong', 'field', 'named'),
        [
            ({'filters': {'dcim.site': 'stauts=active'}}, 'filters', 'stauts'),
            ({'filters': {'dcim.site': 'status=gone'}}, 'filters', 'gone'),
            ({'filters': {'dcim.site': 'description__empty=yes'}}, 'filters', 'description__empty: Enter true'),
            ({'filters': {'dcim.device': 'status=active'}}, 'filters', 'dcim.device'),
            ({'filters': {'dcim.site': 7}}, 'filters', 'texts'),
            ({'filters': ['dcim.site']}, 'filters', 'object'),
            ({'conditions': {'attr': 'name', 'value': 'Bern'}}, 'conditions', 'filters'),
            ({'latest_only': True}, 'latest_only', 'filters'),
            ({'ordered': False}, 'ordered', 'list'),
        ],
    )
    def test_a_wrong_definition_is_refused_and_named(self, receiver: Receiver, api_client, wrong, field, named):
        sent = {
            'name': 'list', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_create': True,
            'filters': ACTIVE,
        }  # fmt: skip
        answer = api_client.post(API, sent | wrong, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, [field])
        assert named in str(answer.json())

    def test_a_filter_at_which_netbox_itself_fails_is_refused(self, api_client):
        """NetBox's own list answers 500."""
        sent = {'name': 'list', 'payload_url': '', 'object_types': ['ipam.prefix'], 'type_create': True}
        pk = api_client.post(API, sent, format='json').json()['id']
        query = 'present_in_vrf_id=null'
        answer = api_client.patch(f'{API}{pk}/', {'filters': {'ipam.prefix': query}}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['filters'])
        answer = api_client.post(f'{API}{pk}/backfill/', {'filter': query}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['filter'])

    def test_a_filter_is_tried_without_comparing_whole_rows(self, receiver: Receiver):
        """With a million objects that would take longer than a filter may."""
        webhook = mirror(receiver)
        for tried in (
            lambda: find_wrong(webhook, {'filters': {'dcim.site': 'status=planned'}}),
            lambda: backfill.choose(webhook, query='status=active'),
        ):
            with CaptureQueriesContext(connection) as captured:
                tried()
            assert any('DISTINCT "dcim_site"."id" AS' in one['sql'] for one in captured)
            assert not any('DISTINCT' in one['sql'] and '"comments"' in one['sql'] for one in captured)

    def test_a_question_mark_stands_before_a_filter_in_every_place(self, api_client):
        sent = {'name': 'list', 'payload_url': '', 'object_types': ['dcim.site'], 'type_create': True}
        for shown, stored in (('?', ''), (' ?status=active ', 'status=active')):
            filters = {'filters': {'dcim.site': shown}}
            assert api_client.post(API, sent | filters, format='json').json()['filters'] == {'dcim.site': stored}
            Webhook.objects.all().delete()
            form = WebhookImportForm(sent | filters)
            assert form.is_valid(), form.errors
            assert form.cleaned_data['filters'] == {'dcim.site': stored}

    def test_a_filter_needs_the_right_to_view_all_objects(self, receiver: Receiver, grant, clerk_api):
        """A match would tell what is hidden."""
        grant(Webhook, 'view', 'add', 'change')
        grant(Site, 'view', name='Bern')
        sent = {'name': 'list', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_create': True}
        assert clerk_api.post(API, sent, format='json').status_code == 201
        answer = clerk_api.post(API, sent | {'name': 'two', 'filters': ACTIVE}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['filters'])


class TestProof:
    def test_members_are_listed_for_those_who_may_view_them(self, receiver: Receiver, api_client):
        webhook = mirror(receiver)
        first, second = site(), site()
        work()
        address = f'{API}{webhook.pk}/members/'
        found = api_client.get(f'{address}?limit=1').json()
        assert (found['count'], [one['object_id'] for one in found['results']]) == (2, [first.pk])
        (one,) = api_client.get(f'{address}?object_type=dcim.site&object_id={second.pk}').json()['results']
        assert (one['object_type'], one['object_id'], len(one['digest'])) == ('dcim.site', second.pk, 64)
        assert api_client.get(f'{address}?object_id=x').status_code == 400

    def test_deliveries_are_found_by_the_kind_that_was_sent(self, receiver: Receiver, api_client):
        mirror(receiver)
        one = site()
        work()
        change(one, status='planned')
        assert [event for event, *_more in told(receiver)] == ['created', 'deleted']
        for query, kinds in (
            ('kind=created', ['created']),
            ('kind=updated', []),
            ('kind=deleted', ['deleted']),
            ('kind__n=deleted', ['created']),
        ):
            found = api_client.get(f'/api/plugins/webhooks/deliveries/?{query}').json()['results']
            assert [row['kind'] for row in found] == kinds, query

    def test_a_dry_run_names_what_is_missing_stale_and_extra(self, receiver: Receiver, api_client, admin_pages):
        webhook = mirror(receiver)
        extra, stale, _same = site(name='Basel'), site(name='Chur'), site(name='Davos')
        missing = site(name='Bern', status='planned')
        assert len(told(receiver)) == 3
        Site.objects.filter(pk=extra.pk).update(status='retired')
        Site.objects.filter(pk=missing.pk).update(status='active')
        Site.objects.filter(pk=stale.pk).update(description='changed')
        address = f'{API}{webhook.pk}/compare/'
        (found,) = api_client.post(address, {'dry_run': True}, format='json').json()['lists']
        assert (found['listed'], found['missing'], found['names_of_missing']) == (3, 1, ['Bern'])
        assert (found['stale'], found['names_of_stale']) == (1, ['Chur'])
        assert (found['extra'], found['names_of_extra']) == (1, ['Basel'])
        output = StringIO()
        call_command('webhooks_compare', webhook.name, '--dry-run', stdout=output)
        assert output.getvalue().splitlines() == [
            'dcim.site status=active: 3 objects, 1 missing, 1 stale, 1 extra', '  missing: Bern', '  stale: Chur',
            '  extra: Basel',
        ]  # fmt: skip
        page = admin_pages.get(f'{webhook.get_absolute_url()}differences/').content.decode()
        rows = re.findall(r'<th scope="row">([\w ]+):[^<]*</th>\s*<td>(\d+)<div[^>]*>([^<]*)</div>', page)
        assert rows == [('Missing', '1', 'Bern'), ('Stale', '1', 'Chur'), ('Extra', '1', 'Basel')]
        assert told(receiver) == []
        assert api_client.post(address, format='json').status_code == 200
        assert sorted(told(receiver)) == [
            ('created', missing.pk, 'entered'), ('deleted', extra.pk, 'left'), ('updated', stale.pk, None),
        ]  # fmt: skip

    def test_a_dry_run_leaves_out_what_is_on_its_way(self, receiver: Receiver):
        webhook = mirror(receiver)
        one, other = site(), site(status='planned')
        assert len(told(receiver)) == 1
        change(one, description='changed')
        change(other, status='active')
        (found,) = lists.differences(webhook)
        assert (found.missing, found.stale, found.extra) == (0, 0, 0)
        assert len(told(receiver)) == 2

    def test_what_is_on_its_way_to_another_webhook_only_is_not_left_out(self, receiver: Receiver):
        webhook, other = mirror(receiver), subscribe(receiver.url('/other'), Site)
        one = site(status='planned')
        work()
        Site.objects.filter(pk=one.pk).update(status='active')
        send_now.send(send_now.choose(other, ContentType.objects.get_for_model(Site), [one.pk]))
        (found,) = lists.differences(webhook)
        assert found.names_of_missing == [one.name]

    def test_what_changed_while_the_webhook_was_disabled_is_sent_afterwards(self, receiver: Receiver):
        known = site()
        webhook = mirror(receiver)
        sent, same = site(), site()
        assert len(told(receiver)) == 2
        webhook.enabled = False
        webhook.save()
        for one in (known, sent):
            change(one, description='changed')
        change(same)
        webhook.enabled = True
        webhook.save()
        assert sorted(told(receiver)) == [('updated', known.pk, None), ('updated', sent.pk, None)]
        compare(webhook)
        assert told(receiver) == []

    def test_what_an_ignored_user_changes_is_not_stale(self, receiver: Receiver):
        webhook = mirror(receiver)
        one = site()
        assert len(told(receiver)) == 1
        webhook.ignore_users.add(User.objects.create(username='robot'))
        Site.objects.filter(pk=one.pk).update(description='changed')
        compare(webhook)
        assert told(receiver) == []
        webhook.ignore_users.clear()
        compare(webhook)
        assert told(receiver) == [('updated', one.pk, None)]

    @pytest.mark.parametrize('made', COPIES)
    def test_columns_that_netbox_copies_from_other_objects_make_none_stale(self, receiver: Receiver, made):
        """The receiver would get the same data again, of each prefix at a site that moves to another region."""
        one, change_another = made()
        webhook = subscribe(receiver.url('/'), type(one), filters={one._meta.label_lower: f'id={one.pk}'})
        assert told(receiver) == []
        change_another()
        compare(webhook)
        assert told(receiver) == []
        type(one).objects.update(description='changed')
        compare(webhook)
        assert told(receiver) == [('updated', one.pk, None)]

    @pytest.mark.parametrize('noted', [lambda: {'last_updated': timezone.now()}, dict], ids=['saved', 'updated'])
    def test_a_row_that_was_written_again_before_its_event_is_judged_is_stale(self, receiver: Receiver, noted):
        """No event tells of the second write."""
        webhook = mirror(receiver)
        one = site()
        Site.objects.filter(pk=one.pk).update(description='not sent', **noted())
        assert told(receiver) == [('created', one.pk, None)]
        assert [found.names_of_stale for found in lists.differences(webhook)] == [[one.name]]
        compare(webhook)
        assert told(receiver) == [('updated', one.pk, None)]

    def test_while_somebody_holds_its_table_a_filter_is_refused_at_once(self, receiver: Receiver, api_client):
        webhook = mirror(receiver)
        definition = {
            'name': 'list', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_create': True,
            'filters': ACTIVE,
        }  # fmt: skip
        with open_transaction(lambda: sql.execute('LOCK TABLE dcim_site IN ACCESS EXCLUSIVE MODE')):
            saved = api_client.post(API, definition, format='json')
            foretold = api_client.post(f'{API}{webhook.pk}/compare/', {'dry_run': True}, format='json')
        assert (saved.status_code, foretold.status_code) == (400, 503)
        assert 'lock timeout' in saved.json()['filters'][0]


class TestPages:
    def test_a_list_of_netbox_begins_a_webhook_for_it(self, admin_pages):
        sites = ObjectType.objects.get_for_model(Site)
        columns = TableConfig.objects.create(name='few', object_type=sites, table='SiteTable', columns=['name'])
        beside = f'sort=name&tableconfig_id={columns.pk}&include_columns=status&exclude_columns=facility'
        page = admin_pages.get(f'/dcim/sites/?status=active&{beside}&region=north').content.decode()
        (link,) = re.findall(r'href="(/plugins/webhooks/webhooks/add/[^"]+)"', page)
        page = admin_pages.get(unescape(link))
        assert 'value="status=active&amp;region=north"' in page.content.decode()
        chosen = page.context['form']['object_types'].value()
        assert [str(pk) for pk in chosen] == [str(ContentType.objects.get_for_model(Site).pk)]

    def test_a_list_without_a_filter_begins_a_webhook_for_all_objects(self, admin_pages):
        page = admin_pages.get('/dcim/sites/').content.decode()
        (link,) = re.findall(r'href="(/plugins/webhooks/webhooks/add/[^"]+)"', page)
        assert 'name="filters:dcim.site" value="?"' in admin_pages.get(unescape(link)).content.decode()

    def test_a_page_with_a_part_of_the_objects_has_no_buttons_for_their_list(self, admin_pages):
        subscribe(NOWHERE, Interface)
        for address, is_list in (('/dcim/interfaces/', True), ('/dcim/interface-connections/', False)):
            page = admin_pages.get(address).content.decode()
            assert [name in page for name in ('webhooks-subscribe', 'webhooks-send-now')] == [is_list] * 2

    def test_the_form_takes_a_filter_for_each_type(self, admin_pages):
        sent = {**form(), 'filters:dcim.site': '?status=active', 'filters:tenancy.tenant': 'group=x=y'}
        answer = admin_pages.post('/plugins/webhooks/webhooks/add/', sent)
        assert 'group' in str(answer.context['form'].errors['filters'])
        assert 'name="filters:tenancy.tenant" value="group=x=y"' in answer.content.decode()
        sent['filters:tenancy.tenant'] = '?'
        assert admin_pages.post('/plugins/webhooks/webhooks/add/', sent).status_code == 302
        webhook = Webhook.objects.get()
        assert webhook.filters == {'dcim.site': 'status=active', 'tenancy.tenant': ''}
        edit = f'{webhook.get_absolute_url()}edit/'
        page = admin_pages.get(edit).content.decode()
        assert 'name="filters:dcim.site" value="status=active"' in page
        assert 'name="filters:tenancy.tenant" value="?"' in page
        assert admin_pages.post(edit, {**form(), 'filters:dcim.site': ' '}).status_code == 302
        assert Webhook.objects.get().filters == {}

    def test_a_copy_of_a_webhook_begins_with_its_filters(self, receiver: Receiver, admin_pages):
        webhook = mirror(receiver)
        page = admin_pages.get(f'/plugins/webhooks/webhooks/add/?{urlencode(webhook.clone(), doseq=True)}')
        assert 'name="filters:dcim.site" value="status=active"' in page.content.decode()

    def test_the_admin_takes_a_line_for_each_type(self, receiver: Receiver, admin_pages):
        webhook = mirror(receiver)
        address = f'/admin/webhooks/webhook/{webhook.pk}/change/'
        form = admin_pages.get(address).context['adminform'].form
        assert form['filters'].value() == 'dcim.site: status=active'
        sent = {one.html_name: one.value() for one in form if one.value() not in (None, '', False)}
        sent['tags'] = []
        answer = admin_pages.post(address, {**sent, 'filters': 'dcim.site: stauts=active'})
        assert 'stauts' in str(answer.context['adminform'].form.errors['filters'])
        assert admin_pages.post(address, {**sent, 'filters': 'dcim.site: status=retired'}).status_code == 302
        assert Webhook.objects.get().filters == {'dcim.site': 'status=retired'}
