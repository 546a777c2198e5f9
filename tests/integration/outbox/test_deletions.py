"""An object's events still show the REST API's answers after its deletion."""

import signal
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from core.models import ObjectType
from dcim.api.serializers import InterfaceSerializer
from dcim.models import Device, Interface, MACAddress, Rack, Site
from django.db import connection, transaction
from django.db.models import Model
from django.db.models.signals import post_delete, pre_delete
from django.test.utils import CaptureQueriesContext, override_script_prefix
from django.urls import reverse
from extras.models import CustomField, Tag
from ipam.models import VLAN, IPAddress, VLANGroup
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    changes,
    device,
    forget_events,
    interface,
    named,
    recorded,
    site,
    subscribe,
)
from support.builtin import builtin_rule, request_by
from support.cases import first
from support.engine import dispatch_all, in_thread, work
from support.kinds import some_kinds
from support.objects import make_device, make_interface, make_virtual_machine
from support.objects.dcim import connect
from support.objects.surroundings import some_device, some_site
from support.rest import delete, free, get, without_host
from virtualization.models import Cluster, ClusterType, VirtualDisk, VirtualMachine

from devstack.receiver import Receiver
from webhooks.models import Event
from webhooks.outbox import deletions, scope
from webhooks.rendering import bulk
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')


class RolledBack(Exception):
    """Raised to roll back."""


def shown(instance: Model, pk: int) -> dict[str, dict[str, Any]]:
    """Return {kind: payload data}."""
    return {event.kind: event.payload_data for event in recorded(type(instance)) if event.object_id == pk}


def is_rendered(event: Event) -> bool:
    return 'shown' in event.snapshot


def is_free(instance: Model) -> bool:
    with transaction.atomic():
        return type(instance).objects.select_for_update(skip_locked=True, of=('self',)).filter(pk=instance.pk).exists()


def in_thread_for(function: Callable[[], Any]) -> Any:
    """The function needs a connection of its own."""
    results = []
    in_thread(lambda: results.append(function())).join(60)
    return results[0]


class TestAllModels:
    @some_kinds
    def test_each_change_is_as_the_api_showed_it_although_the_object_is_gone(self, api_client, make: Callable):
        """Rendering waits until the object is gone."""
        kind = type(make())
        subscribe(NOWHERE, kind)
        with transaction.atomic():
            instance = make()
            free(api_client, instance)
        instance = kind.objects.get(pk=instance.pk)
        expected = {CREATED: get(api_client, instance)}
        # The name would also change in related objects.
        instance.description = 'Changed'
        instance.save()
        expected |= dict.fromkeys((UPDATED, DELETED), get(api_client, instance))
        pk = instance.pk
        delete(api_client, instance)
        dispatch_all()
        found = shown(instance, pk)
        for name in (CREATED, UPDATED, DELETED):
            assert found[name] == expected[name], name
            assert list(found[name]) == list(expected[name])
        assert not any(event.partial for event in recorded(kind) if event.object_id == pk)

    @pytest.mark.parametrize(
        ('way', 'make'),
        first(
            2,
            [
                ('queryset', make_device),
                ('bulk_operation', make_interface),
                ('queryset', make_interface),
                ('bulk_operation', make_device),
            ],
        ),
    )
    def test_a_deletion_is_as_the_api_showed_it_however_it_is_deleted(self, api_client, way: str, make: Callable):
        instance = make()
        free(api_client, instance)
        kind, pk = type(instance), instance.pk
        subscribe(NOWHERE, kind)
        expected = get(api_client, instance)
        with transaction.atomic():
            if way == 'queryset':
                kind.objects.filter(pk=pk).delete()
            else:
                bulk_operation.send(sender=kind, instances=[instance], event=DELETED)
        dispatch_all()
        assert shown(instance, pk)[DELETED] == expected

    @pytest.mark.parametrize('logged', [True, False])
    def test_a_deleted_object_may_have_custom_fields_that_point_to_nothing(self, api_client, netbox_user, logged: bool):
        """NetBox keeps the dangling value and no longer shows it."""
        fields = [CustomField(name=kind, type=kind) for kind in ('object', 'multiobject')]
        for field in fields:
            field.related_object_type = ObjectType.objects.get_for_model(Site)
            field.save()
            field.object_types.set([field.related_object_type])
        target = site()
        place = site(custom_field_data={'object': target.pk, 'multiobject': [target.pk]})
        with request_by(netbox_user) if logged else nullcontext():
            target.delete()
        subscribe(NOWHERE, Site)
        if logged:
            place.tags.add(Tag.objects.create(**named('tag')))  # leaves last_updated unchanged
        expected = get(api_client, place)
        pk = place.pk
        dispatch_all()
        Site.objects.get(pk=pk).delete()
        dispatch_all()
        assert expected['custom_fields'] == {'object': None, 'multiobject': []}
        assert shown(place, pk) == dict.fromkeys((UPDATED, DELETED) if logged else (DELETED,), expected)


class TestBesideTheBuiltin:
    def compare(self, receiver: Receiver, drain: Callable, user: Any, doomed: Model, *models: type[Model]) -> None:
        subscribe(receiver.url('/ours'), *models, kinds=(DELETED,))
        builtin_rule(*models, kinds=('object_deleted',), payload_url=receiver.url('/builtin'))
        with request_by(user):
            doomed.delete()
        drain()
        work()
        ours = self.told(receiver, '/ours')
        builtin = self.told(receiver, '/builtin')
        assert {label for label, _pk in ours} == {model._meta.label_lower for model in models}
        assert builtin.keys() <= ours.keys()
        for key, data in builtin.items():
            missing = {name: value for name, value in data.items() if value and not ours[key].get(name)}
            assert not missing, key

    def told(self, receiver: Receiver, path: str) -> dict[tuple[str, int], dict[str, Any]]:
        bodies = [request.json() for request in receiver.matching(lambda request: request.path == path)]
        return {(body['object_type'], body['data']['id']): without_host(body['data']) for body in bodies}

    def test_a_deleted_device_with_all_on_it_is_shown_as_by_the_builtin(self, receiver, drain, netbox_user):
        owner = make_device()
        for _ in range(2):
            port = interface(owner)
            MACAddress.objects.create(mac_address=f'02:00:00:00:00:{port.pk % 256:02x}', assigned_object=port)
            IPAddress.objects.create(address=f'198.51.100.{port.pk % 250}/24', assigned_object=port)
            connect(port)
        forget_events()
        self.compare(receiver, drain, netbox_user, owner, Device, Interface, IPAddress)
        ours = self.told(receiver, '/ours')
        ports = [data for (label, _pk), data in ours.items() if label == 'dcim.interface']
        assert sum(len(data['mac_addresses']) for data in ports) == 2
        assert sum(bool(data['cable'] and data['link_peers']) for data in ports) == 2

    def test_a_deleted_interface_with_all_on_it_is_shown_as_by_the_builtin(self, receiver, drain, netbox_user):
        self.compare(receiver, drain, netbox_user, make_interface(), Interface, IPAddress)

    def test_a_deleted_group_of_vlans_is_shown_as_by_the_builtin(self, receiver, drain, netbox_user):
        group = VLANGroup.objects.create(**named('vlans'))
        for vid in (1, 2):
            VLAN.objects.create(group=group, vid=vid, name=f'VLAN {vid}')
        VLAN.objects.filter(vid=2).delete()
        VLAN.objects.update(group=None)
        self.compare(receiver, drain, netbox_user, group, VLANGroup)

    def test_a_deleted_virtual_machine_with_disks_is_shown_as_by_the_builtin(self, receiver, drain, netbox_user):
        machine = make_virtual_machine()
        VirtualDisk.objects.create(virtual_machine=machine, name='disk1', size=50)
        self.compare(receiver, drain, netbox_user, VirtualMachine.objects.get(pk=machine.pk), VirtualMachine, IPAddress)


class TestWhatGoesAlong:
    def equipped(self, count: int) -> Device:
        owner = some_device(some_site())
        for _ in range(count):
            port = interface(owner)
            IPAddress.objects.create(address='192.0.2.1/24', assigned_object=port)
            MACAddress.objects.create(mac_address='02:00:00:00:00:01', assigned_object=port)
        return owner

    def test_ours_is_the_first_to_hear_of_a_deletion(self):
        receivers, _asynchronous = pre_delete._live_receivers(Site)
        assert receivers[0].__module__ == 'webhooks.outbox.first_receiver'
        assert 'core.signals' in [receiver.__module__ for receiver in receivers[1:]]

    def test_queries_do_not_grow_with_what_goes_along(self, monkeypatch):
        monkeypatch.setattr(deletions, 'SLICE_SECONDS', 60.0)  # two slices on any machine
        subscribe(NOWHERE, Device, Interface, IPAddress)
        taken = []
        for count in (6, 6, 40):
            owner = self.equipped(count)
            with transaction.atomic(), CaptureQueriesContext(connection) as queries:
                deletions.begin(owner, owner, 'default')
            taken.append((count, len(queries)))
            assert len(vars(owner)[deletions.DELETION_SLOT].snapshots) == 1 + 2 * count
        assert taken[1][1] == taken[2][1]

    def test_nobody_changes_what_goes_along_once_it_is_taken(self):
        subscribe(NOWHERE, Interface)
        owner = self.equipped(1)
        (port,) = Interface.objects.all()
        with transaction.atomic():
            port_is_free = in_thread_for(lambda: is_free(port))
            deletions.begin(owner, owner, 'default')
            assert (port_is_free, in_thread_for(lambda: is_free(port))) == (True, False)

    def test_only_what_somebody_wants_to_see_deleted_is_taken(self):
        subscribe(NOWHERE, Interface, kinds=(DELETED,))
        subscribe(NOWHERE, Device, IPAddress, kinds=(CREATED, UPDATED))
        self.equipped(2).delete()
        rendered = {True: set(), False: set()}
        for event in recorded():
            if event.kind == DELETED:
                rendered[is_rendered(event)].add(event.object_type.model)
        assert rendered == {True: {'interface'}, False: {'device', 'ipaddress'}}

    def test_where_nobody_wants_deletions_nothing_is_asked_for_one(self):
        subscribe(NOWHERE, Site, kinds=(CREATED, UPDATED))
        place, other = site(), site()
        with transaction.atomic():
            other.save()
            assert not scope.wants(Rack, 'default')  # asks for the first model alone, then for all
            deletions.begin(other, other, 'default')  # fills caches
            with CaptureQueriesContext(connection) as queries:
                deletions.begin(place, place, 'default')
        assert len(queries) == 0
        subscribe(NOWHERE, Site, kinds=(DELETED,))
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            deletions.begin(place, place, 'default')
        assert len(queries) > 5

    def test_a_query_set_that_locks_its_rows_is_deleted(self):
        owner = some_device(some_site())
        subscribe(NOWHERE, Device)
        with transaction.atomic():
            # With an outer join, PostgreSQL locks no rows.
            Device.objects.select_for_update().filter(tenant__group=None).delete()
        assert changes(Device) == [(DELETED, owner.pk)]

    def test_objects_that_are_deleted_one_after_the_other_are_each_as_they_were(self, api_client):
        owner = self.equipped(0)
        ports = [interface(owner) for _ in range(2)]
        ports[1].bridge = ports[0]
        ports[1].save()
        subscribe(NOWHERE, Interface)
        first = get(api_client, ports[0])
        pks = [port.pk for port in ports]
        with transaction.atomic():
            ports[0].delete()
            ports[1].refresh_from_db()
            then = get(api_client, ports[1])
            ports[1].delete()
        dispatch_all()
        assert shown(ports[0], pks[0])[DELETED] == first
        assert first['bridge_interfaces'] and then['bridge'] is None
        assert shown(ports[1], pks[1])[DELETED] == then


class TestTransactions:
    def test_a_deletion_that_was_rolled_back_leaves_nothing(self, api_client):
        subscribe(NOWHERE, Site)
        place = site()
        forget_events()
        with transaction.atomic():
            with pytest.raises(RolledBack), transaction.atomic():
                place.delete()
                assert [kind for kind, _pk in changes()] == [DELETED]
                raise RolledBack
            place = Site.objects.get()
            place.save()
        assert changes() == [(UPDATED, place.pk)]

    @pytest.mark.parametrize('again', ['same transaction', 'another one'])
    def test_an_object_is_shown_as_it_was_before_the_deletion_that_counts(self, api_client, again: str):
        subscribe(NOWHERE, Site)
        place = site()
        pk = place.pk
        forget_events()

        def delete_in_vain() -> None:
            with pytest.raises(RolledBack), transaction.atomic():
                place.delete()
                raise RolledBack
            place.pk = pk
            place.description = 'later'
            place.save()

        if again == 'another one':
            delete_in_vain()
            place.delete()
        else:
            with transaction.atomic():
                delete_in_vain()
                place.delete()
        dispatch_all()
        assert shown(place, pk)[DELETED]['description'] == 'later'

    def test_a_deletion_that_begins_anew_in_the_same_transaction_shows_the_later_state(self):
        def fail(**kwargs: Any) -> None:
            raise RolledBack

        subscribe(NOWHERE, Site)
        first, second = site(), site()
        forget_events()
        both = Site.objects.filter(pk__in=[first.pk, second.pk])
        with transaction.atomic():
            first.save()
            pre_delete.connect(fail, sender=Site)
            try:
                with pytest.raises(RolledBack), transaction.atomic():
                    both.delete()
            finally:
                pre_delete.disconnect(fail, sender=Site)
            second.description = 'later'
            second.save()
            both.delete()
        dispatch_all()
        assert shown(second, second.pk)[DELETED]['description'] == 'later'

    def test_a_deletion_that_failed_is_not_sent_when_somebody_else_has_deleted_the_object(self):
        def fail(**kwargs: Any) -> None:
            raise RolledBack

        place = site()
        pk = place.pk
        subscribe(NOWHERE, Site)
        post_delete.connect(fail, sender=Site)
        post_delete.receivers.insert(0, post_delete.receivers.pop())
        try:
            with pytest.raises(RolledBack):
                place.delete()
        finally:
            post_delete.disconnect(fail, sender=Site)
        Site.objects.filter(pk=pk).delete()
        place.delete()
        assert changes() == [(DELETED, pk)]

    def test_an_object_that_is_deleted_and_made_again_is_an_update_with_the_new_state(self, api_client):
        subscribe(NOWHERE, Site)
        place = site()
        pk = place.pk
        forget_events()
        with transaction.atomic():
            place.delete()
            again = Site.objects.create(pk=pk, name='Again', slug='again')
        dispatch_all()
        assert changes() == [(UPDATED, pk)]
        assert recorded()[0].payload_data == get(api_client, again)

    def test_an_object_that_is_updated_and_deleted_is_shown_as_it_was_in_between(self, api_client):
        subscribe(NOWHERE, Site)
        place = site()
        pk = place.pk
        forget_events()
        with transaction.atomic():
            place.description = 'updated'
            place.save()
            expected = get(api_client, place)
            place.delete()
        dispatch_all()
        assert changes() == [(DELETED, pk)]
        assert recorded()[0].payload_data == expected
        assert expected['description'] == 'updated'

    def test_the_snapshot_before_a_deletion_does_not_store_the_rendered_object_twice(self, receiver):
        """The rendered part is stored once."""
        subscribe(receiver.url('/'), Site, include_snapshots=True)
        place = site()
        forget_events()
        place.delete()
        (event,) = recorded()
        name = event.snapshot['row']['name']
        assert is_rendered(event)
        assert event.prechange == {key: event.snapshot[key] for key in ('row', 'm2m')}
        assert work() == '1 delivered'
        assert receiver.requests[-1].json()['snapshots']['prechange']['name'] == name


class TestTroubles:
    """A failed rendering is repeated later."""

    @pytest.fixture
    def doomed(self, committed: None) -> tuple[Device, list[Interface]]:
        owner = device()
        ports = [interface(owner) for _ in range(3)]
        subscribe(NOWHERE, Device, Interface)
        return owner, ports

    @pytest.fixture
    def unprepared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deletions, '_prepared', set())
        bulk._renderer.cache_clear()

    def test_a_serializer_that_raises_fails_no_deletion(self, doomed, monkeypatch):
        owner, ports = doomed
        bad = ports[1].pk

        def raises(self: Any, instance: Interface) -> str:
            if instance.pk == bad:
                raise RuntimeError('a plugin')
            return 'shown'

        monkeypatch.setattr(InterfaceSerializer, 'get_link_peers_type', raises)
        with transaction.atomic():
            owner.delete()
        rendered = {event.object_id: is_rendered(event) for event in recorded(Interface) if event.kind == DELETED}
        assert rendered == {port_pk: port_pk != bad for port_pk in rendered}
        assert len(rendered) == 3
        assert [is_rendered(event) for event in recorded(Device)] == [True]

    def test_a_model_that_cannot_be_prepared_fails_no_deletion(self, doomed, unprepared, monkeypatch):
        owner, _ports = doomed

        def raises(self: Any) -> None:
            raise RuntimeError('a plugin')

        monkeypatch.setattr(InterfaceSerializer, 'get_fields', raises)
        with transaction.atomic():
            owner.delete()
        assert {is_rendered(event) for event in recorded(Interface) if event.kind == DELETED} == {False}
        assert {is_rendered(event) for event in recorded(Device)} == {True}

    def test_below_a_prefix_of_the_web_server_it_is_rendered_too(self, doomed, unprepared):
        """SCRIPT_NAME sets such a prefix in a new process."""
        owner, _ports = doomed
        with override_script_prefix('/x/'):
            assert reverse('dcim-api:device-list').startswith('/x/')
            with transaction.atomic():
                owner.delete()
        assert [is_rendered(event) for event in recorded() if event.kind == DELETED] == [True] * 4

    @pytest.mark.parametrize('where', ['get_fields', 'get_link_peers_type'], ids=['preparing', 'rendering'])
    def test_the_end_of_a_job_s_time_is_no_trouble_of_rendering(self, doomed, unprepared, monkeypatch, where: str):
        owner, _ports = doomed

        monkeypatch.setattr(InterfaceSerializer, where, lambda *_arguments: signal.raise_signal(signal.SIGALRM))
        with pytest.raises(JobTimeoutException), UnixSignalDeathPenalty(600, JobTimeoutException):
            owner.delete()
        assert recorded() == []

    def test_a_query_that_takes_long_is_broken_off(self, doomed, monkeypatch):
        owner, _ports = doomed
        pk = owner.pk

        def sleeps(self: Any, instance: Interface) -> str:
            with connection.cursor() as cursor:
                cursor.execute('SELECT pg_sleep(60)')
            return ''

        monkeypatch.setattr(InterfaceSerializer, 'get_link_peers_type', sleeps)
        # Enough for all other queries, also where the machine stalls.
        monkeypatch.setattr(deletions, 'QUERY_MILLISECONDS', 3_000)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute('SHOW statement_timeout')
            before = cursor.fetchone()
            owner.delete()
            cursor.execute('SHOW statement_timeout')
            assert cursor.fetchone() == before
        assert not Device.objects.filter(pk=pk).exists()
        assert not any(is_rendered(event) for event in recorded(Interface) if event.kind == DELETED)
        assert [is_rendered(event) for event in recorded(Device)] == [True]

    def test_objects_of_a_slice_that_failed_are_tried_alone_only_in_time(self, doomed, monkeypatch):
        owner, _ports = doomed
        clock, tried = [1.0], []

        def fails_late(self: Any, instance: Interface) -> str:
            tried.append(instance.pk)
            clock[0] += 3600.0
            raise RuntimeError('a plugin')

        monkeypatch.setattr(InterfaceSerializer, 'get_link_peers_type', fails_late)
        monkeypatch.setattr(deletions, 'time', SimpleNamespace(monotonic=lambda: clock[0]))
        owner.delete()
        assert len(tried) == 1
        assert not any(is_rendered(event) for event in recorded(Interface) if event.kind == DELETED)

    def test_a_model_that_is_slow_to_render_is_not_rendered_while_the_user_waits(self, monkeypatch):
        subscribe(NOWHERE, Site)
        for slow, expected in ((False, True), (True, True), (True, False)):
            monkeypatch.setattr(deletions, 'SLOW_SLICE_SECONDS', -1.0 if slow else 60.0)
            place = site()
            forget_events()
            place.delete()
            assert [is_rendered(event) for event in recorded()] == [expected]

    def test_a_deletion_of_too_much_at_once_ends_in_time(self, doomed, monkeypatch):
        owner, ports = doomed
        monkeypatch.setattr(deletions, 'RENDER_SECONDS', 0.0)
        monkeypatch.setattr(deletions, 'RENDER_SECONDS_PER_OBJECT', 0.0)
        owner.delete()
        assert not any(is_rendered(event) for event in recorded())
        assert len(recorded(Interface)) == len(ports)
        dispatch_all()
        assert {event.error for event in recorded()} == {''}


class TestNobodyToldTheDeletion:
    """Lost values are empty, of their type, and listed in `partial`."""

    def bodies(self, receiver: Receiver) -> dict[str, dict[str, Any]]:
        return {request.json()['event']: request.json() for request in receiver.requests}

    def test_an_object_that_is_gone_names_its_keys_without_data(self, receiver: Receiver):
        subscribe(receiver.url('/'), Interface, kinds=(CREATED, UPDATED))
        with transaction.atomic():
            port = interface(device())
            MACAddress.objects.create(mac_address='02:00:00:00:00:01', assigned_object=port)
        port.device.delete()
        work()
        body = self.bodies(receiver)[CREATED]
        assert body['data']['mac_addresses'] == []
        assert {'mac_addresses', 'count_ipaddresses', 'device'} <= set(body['partial'])
        assert not {'name', 'type', 'id', 'cable', 'link_peers', 'tags'} & set(body['partial'])
        assert body['partial'] == [name for name in body['data'] if name in body['partial']]

    def test_a_generic_key_is_known_if_it_points_nowhere_or_to_what_is_there(self, receiver: Receiver):
        subscribe(receiver.url('/'), IPAddress, kinds=(CREATED,))
        port = interface(device())
        for index, target in enumerate([None, port]):
            IPAddress.objects.create(address=f'192.0.2.{index}/24', assigned_object=target).delete()
        work()
        bodies = [request.json() for request in receiver.wait_for(2)]
        assert {body['data']['assigned_object_id'] for body in bodies} == {None, port.pk}
        assert not any('assigned_object' in body['partial'] for body in bodies)

    def test_numbers_are_numbers(self, receiver: Receiver):
        subscribe(receiver.url('/'), VLANGroup, kinds=(CREATED,))
        VLANGroup.objects.create(**named('vlans')).delete()
        work()
        body = self.bodies(receiver)[CREATED]
        assert (body['data']['utilization'], body['data']['vlan_count']) == ('0.0', 0)
        assert {'utilization', 'vlan_count'} <= set(body['partial'])

    def test_a_sum_of_nothing_is_null(self, receiver: Receiver):
        subscribe(receiver.url('/'), Cluster, kinds=(CREATED,))
        Cluster.objects.create(name='cluster', type=ClusterType.objects.create(**named('type'))).delete()
        work()
        body = self.bodies(receiver)[CREATED]
        sums = ('allocated_vcpus', 'allocated_memory', 'allocated_disk')
        assert [body['data'][name] for name in sums] == [None] * len(sums)
        assert set(sums) <= set(body['partial'])

    def test_where_all_is_known_there_is_no_such_key(self, receiver: Receiver):
        subscribe(receiver.url('/'), VLANGroup)
        VLANGroup.objects.create(**named('vlans')).delete()
        VLANGroup.objects.create(**named('vlans'))
        work()
        assert {request.json()['event'] for request in receiver.requests} == {CREATED, DELETED}
        assert not any('partial' in request.json() for request in receiver.requests)

    def test_in_a_change_set_it_is_named_beside_the_event(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, kinds=(CREATED,), change_set=True)
        with transaction.atomic():
            gone, there = site(), site()
        pks = [gone.pk, there.pk]
        gone.delete()
        work()
        (request,) = receiver.requests
        known, late = sorted(request.json()['changes'], key=lambda change: change['data']['id'])
        assert [known['data']['id'], late['data']['id']] == pks
        assert 'rack_count' in known['partial']
        assert 'partial' not in late

    def test_a_deletion_that_was_sent_already_is_known(self, receiver: Receiver, api_client):
        """It is rendered again, long after delivery."""
        subscribe(receiver.url('/'), VLANGroup)
        with transaction.atomic():
            group = VLANGroup.objects.create(**named('vlans'))
        expected = get(api_client, group)
        (event,) = recorded()
        snapshot, pk = event.snapshot, event.pk
        group.delete()
        work()
        Event.objects.filter(pk=pk).update(snapshot=snapshot, data='', dispatched_at=None)
        dispatch_all()
        event = Event.objects.get(pk=pk)
        assert (event.payload_data, event.partial) == (expected, None)


FIRST_DELETION = """
import sys
from dcim.models import Site
from django.db import connection, transaction

def watch(execute, sql, *others):
    if 'FOR NO KEY UPDATE' in sql:
        print('the row is locked, URLs are loaded:', 'netbox.urls' in sys.modules)
    return execute(sql, *others)

print('the process begins, URLs are loaded:', 'netbox.urls' in sys.modules)
with connection.execute_wrapper(watch), transaction.atomic():
    Site.objects.get().delete()
# Half of a start's processor time would go into NetBox's GraphQL schema.
print('a GraphQL schema is built:', 'circuits.graphql.schema' in sys.modules)
"""


def test_the_first_deletion_of_a_process_loads_no_urls_while_it_holds_the_row_and_builds_no_graphql_schema(netbox):
    subscribe(NOWHERE, Site)
    site()
    shown = netbox.run('shell', '-c', FIRST_DELETION)
    assert 'the process begins, URLs are loaded: False' in shown.stdout, shown.stderr
    assert 'the row is locked, URLs are loaded: True' in shown.stdout
    assert 'the row is locked, URLs are loaded: False' not in shown.stdout
    assert 'a GraphQL schema is built: False' in shown.stdout
    assert changes(Site)[-1][0] == DELETED
