"""Each change in the table of docs/troubleshooting.md is silent.

NetBox's built-in webhooks are silent too.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from circuits.models import (
    Circuit,
    CircuitGroup,
    CircuitGroupAssignment,
    CircuitTermination,
    CircuitType,
    Provider,
    ProviderAccount,
)
from core.models import ObjectType
from dcim.models import Cable, Device, DeviceBay, FrontPort, Interface, MACAddress, PortMapping, RearPort, Region, Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Model
from extras.models import ConfigContext, CustomField, Tag
from ipam.models import VLAN, IPAddress, Prefix, VLANGroup
from support.builders import (
    CREATED,
    NOWHERE,
    UPDATED,
    changes,
    device,
    device_type,
    forget_events,
    interface,
    named,
    recorded,
    site,
    subscribe,
)
from support.builtin import builtin_rule, request_by
from support.objects.surroundings import make_l2vpn_termination
from virtualization.models import Cluster, ClusterType, VirtualMachine

from devstack.receiver import Receiver
from webhooks.services import send_now

pytestmark = pytest.mark.usefixtures('committed')

WATCHED = (Site, Device, Interface, Prefix, Circuit, Provider, IPAddress, Cluster, VLANGroup)
# Since NetBox 4.7.3 the circuit is saved.
SAVES_CIRCUITS = hasattr(CircuitTermination, 'clear_cached_references')


@dataclass
class Change:
    """`happens` changes `silent`, in its row or in related rows."""

    silent: Model
    happens: Callable[[], Any]


#
# Code that uses no signals
#


def update_of_a_query_set() -> Change:
    return Change(site(), lambda: Site.objects.update(description='changed'))


def bulk_update() -> Change:
    place = site()
    place.description = 'changed'
    return Change(place, lambda: Site.objects.bulk_update([place], ['description']))


def bulk_create() -> Change:
    place = Site(**named('site'))
    return Change(place, lambda: Site.objects.bulk_create([place]))


def raw_sql() -> Change:
    def execute() -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE dcim_site SET description = 'changed'")

    return Change(site(), execute)


def raw_delete() -> Change:
    place = site()
    return Change(site(), lambda: Site.objects.filter(pk=place.pk)._raw_delete('default'))


#
# Changes that NetBox makes along with others
#


def channelized_interface_is_connected() -> Change:
    owner = device()
    port = interface(owner, type='100gbase-x-qsfp28', channels=4)
    channel = interface(owner, type='virtual', parent=port, channel_id=1)
    peer = interface(device(), type='100gbase-x-qsfp28')

    def plug() -> None:
        Cable(a_terminations=[port], b_terminations=[peer], profile='single-1c4p').save()
        channel.refresh_from_db()
        assert channel.cable_id

    return Change(channel, plug)


def circuit_is_terminated() -> Change:
    provider = Provider.objects.create(**named('provider'))
    kind = CircuitType.objects.create(**named('type'))
    circuit = Circuit.objects.create(cid='1', provider=provider, type=kind)
    place = site()

    def terminate() -> None:
        CircuitTermination.objects.create(circuit=circuit, term_side='A', termination=place)
        circuit.refresh_from_db()
        assert circuit.termination_a_id

    return Change(circuit, terminate)


def custom_field(**fields: Any) -> CustomField:
    field = CustomField.objects.create(**{'name': 'field', 'type': 'text'} | fields)
    field.object_types.set([ObjectType.objects.get_for_model(Site)])
    return field


def custom_field_is_deleted() -> Change:
    field = custom_field()
    place = site(custom_field_data={'field': 'value'})

    def delete() -> None:
        field.delete()
        place.refresh_from_db()
        assert place.custom_field_data == {}

    return Change(place, delete)


def custom_field_is_renamed() -> Change:
    field = custom_field()
    place = site(custom_field_data={'field': 'value'})

    def rename() -> None:
        renamed = CustomField.objects.get(pk=field.pk)
        renamed.name = 'renamed'
        renamed.save()
        place.refresh_from_db()
        assert place.custom_field_data == {'renamed': 'value'}

    return Change(place, rename)


def custom_field_is_taken_off_a_type() -> Change:
    field = custom_field()
    place = site(custom_field_data={'field': 'value'})

    def take_off() -> None:
        field.object_types.clear()
        place.refresh_from_db()
        assert place.custom_field_data == {}

    return Change(place, take_off)


def custom_field_with_a_default_is_added() -> Change:
    place = site()

    def add() -> None:
        custom_field(default='value')
        place.refresh_from_db()
        assert place.custom_field_data == {'field': 'value'}

    return Change(place, add)


#
# Derived values
#


def interface_count_of_a_device() -> Change:
    owner = device()
    return Change(owner, lambda: interface(owner))


def children_of_a_prefix() -> Change:
    outer = Prefix.objects.create(prefix='192.0.2.0/24')
    return Change(outer, lambda: Prefix.objects.create(prefix='192.0.2.0/25'))


def depth_of_a_prefix() -> Change:
    inner = Prefix.objects.create(prefix='192.0.2.0/25')
    return Change(inner, lambda: Prefix.objects.create(prefix='192.0.2.0/24'))


def mac_addresses_of_an_interface() -> Change:
    port = interface(device())
    return Change(port, lambda: MACAddress.objects.create(mac_address='02:00:00:00:00:01', assigned_object=port))


def nat_outside_of_an_address() -> Change:
    inside = IPAddress.objects.create(address='192.0.2.1/32')
    return Change(inside, lambda: IPAddress.objects.create(address='192.0.2.2/32', nat_inside=inside))


def l2vpn_termination_of_an_interface() -> Change:
    port = interface(device())
    return Change(port, lambda: make_l2vpn_termination(port))


def parent_device_of_a_device() -> Change:
    place = site()
    chassis = device(site=place, device_type=device_type(subdevice_role='parent'))
    blade = device(site=place, device_type=device_type(subdevice_role='child', u_height=0))
    bay = DeviceBay.objects.create(device=chassis, name='bay')

    def install() -> None:
        bay.installed_device = blade
        bay.save()

    return Change(blade, install)


def accounts_of_a_provider() -> Change:
    provider = Provider.objects.create(**named('provider'))
    return Change(provider, lambda: ProviderAccount.objects.create(provider=provider, account='1'))


def assignments_of_a_circuit() -> Change:
    provider = Provider.objects.create(**named('provider'))
    circuit = Circuit.objects.create(cid='1', provider=provider, type=CircuitType.objects.create(**named('type')))
    group = CircuitGroup.objects.create(**named('group'))
    return Change(circuit, lambda: CircuitGroupAssignment.objects.create(group=group, member=circuit))


def allocated_memory_of_a_cluster() -> Change:
    cluster = Cluster.objects.create(name='cluster', type=ClusterType.objects.create(**named('type')))
    return Change(cluster, lambda: VirtualMachine.objects.create(name='vm', cluster=cluster, memory=1024))


def utilization_of_a_group_of_vlans() -> Change:
    group = VLANGroup.objects.create(**named('group'))
    return Change(group, lambda: VLAN.objects.create(name='vlan', vid=1, group=group))


def far_end_behind_panels() -> Change:
    ports, rears = [interface(device()) for _ in range(2)], []
    for port in ports:
        panel = device()
        rears.append(RearPort.objects.create(device=panel, name='rear', type='lc', positions=1))
        front = FrontPort.objects.create(device=panel, name='front', type='lc', positions=1)
        PortMapping.objects.create(
            device=panel, front_port=front, front_port_position=1, rear_port=rears[-1], rear_port_position=1
        )
        Cable(a_terminations=[port], b_terminations=[front]).save()

    def plug() -> None:
        Cable(a_terminations=rears[:1], b_terminations=rears[1:]).save()
        assert Interface.objects.get(pk=ports[0].pk).connected_endpoints == [ports[1]]

    return Change(ports[0], plug)


def config_context_of_a_device() -> Change:
    context = ConfigContext.objects.create(name='context', data={'old': True})
    owner = device()

    def edit() -> None:
        context.data = {'new': True}
        context.save()

    return Change(owner, edit)


def name_of_a_region() -> Change:
    region = Region.objects.create(**named('region'))

    def rename() -> None:
        region.name = 'Renamed'
        region.save()

    return Change(site(region=region), rename)


def name_of_a_tag() -> Change:
    tag, place = Tag.objects.create(**named('tag')), site()
    place.tags.add(tag)

    def rename() -> None:
        tag.name = 'Renamed'
        tag.save()

    return Change(place, rename)


SILENT = (
    update_of_a_query_set, bulk_update, bulk_create, raw_sql, raw_delete, channelized_interface_is_connected,
    custom_field_is_deleted, custom_field_is_renamed, custom_field_is_taken_off_a_type,
    custom_field_with_a_default_is_added,
    interface_count_of_a_device, children_of_a_prefix, depth_of_a_prefix, mac_addresses_of_an_interface,
    nat_outside_of_an_address, l2vpn_termination_of_an_interface, parent_device_of_a_device, accounts_of_a_provider,
    assignments_of_a_circuit, allocated_memory_of_a_cluster, utilization_of_a_group_of_vlans, far_end_behind_panels,
    config_context_of_a_device, name_of_a_region, name_of_a_tag,
    *(() if SAVES_CIRCUITS else (circuit_is_terminated,)),
)  # fmt: skip


@pytest.mark.parametrize('prepare', SILENT, ids=lambda function: function.__name__)
def test_a_change_that_the_docs_except_is_sent_neither_by_us_nor_by_the_builtin(
    receiver: Receiver, drain: Callable, netbox_user: Any, prepare: Callable[[], Change]
):
    change = prepare()
    subscribe(NOWHERE, *WATCHED)
    builtin_rule(*WATCHED, payload_url=receiver.url('/builtin'))
    with request_by(netbox_user):
        change.happens()
    kind, pk = type(change.silent), change.silent.pk

    def sent() -> list[dict]:
        drain('high', 'default')
        bodies = [request.json() for request in receiver.requests]
        return [body for body in bodies if body['object_type'] == kind._meta.label_lower and body['data']['id'] == pk]

    assert pk not in [object_id for _kind, object_id in changes(kind)]
    assert sent() == []
    # Both are subscribed.
    with request_by(netbox_user):
        kind.objects.get(pk=pk).save()
    assert changes(kind)[-1] == (UPDATED, pk)
    assert len(sent()) == 1


@pytest.mark.parametrize('prepare', [update_of_a_query_set, channelized_interface_is_connected])
def test_a_silent_change_that_is_saved_once_more_is_no_real_change_but_can_be_sent(prepare: Callable[[], Change]):
    change = prepare()
    kind, pk = type(change.silent), change.silent.pk
    webhook = subscribe(NOWHERE, kind, only_real_changes=True)
    change.happens()
    with transaction.atomic():
        kind.objects.get(pk=pk).save()
    assert (UPDATED, pk) not in changes(kind)
    send_now.send(send_now.choose(webhook, ContentType.objects.get_for_model(kind), [pk]))
    assert changes(kind)[-1] == (UPDATED, pk)


def test_a_transaction_does_not_hear_of_a_first_webhook_that_is_subscribed_meanwhile():
    def subscribe_elsewhere() -> None:
        subscribe(NOWHERE, Site)
        connection.close()

    with transaction.atomic():
        site()
        thread = threading.Thread(target=subscribe_elsewhere)
        thread.start()
        thread.join()
        site()
    assert changes() == []
    after = site()
    assert changes() == [(CREATED, after.pk)]
    forget_events()
    assert recorded() == []
