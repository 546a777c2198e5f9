from datetime import date
from typing import Any

from dcim.models import Interface
from django.db.backends.postgresql.psycopg_any import NumericRange
from ipam.models import VLAN, VRF, Aggregate, IPAddress, Prefix, Service, VLANGroup
from virtualization.models import VirtualMachine, VMInterface

from .surroundings import (
    dressed,
    make_l2vpn_termination,
    make_region,
    make_rir,
    make_role,
    make_route_targets,
    named,
    number,
    some_device,
    some_ip,
    some_site,
    some_tenant,
    some_vlan,
    some_vrf,
    unique,
)


def make_vrf(**fields: Any) -> VRF:
    vrf = dressed(VRF(**{'name': unique('VRF'), 'rd': f'65000:{number()}', 'tenant': some_tenant()} | fields))
    vrf.import_targets.set(make_route_targets(2))
    vrf.export_targets.set(make_route_targets(1))
    some_ip(vrf=vrf)
    return vrf


def make_ip_address(**fields: Any) -> IPAddress:
    interface = Interface.objects.create(device=some_device(some_site()), name='eth0', type='virtual')
    given = {
        'address': f'10.{number() % 250}.{number() % 250}.1/32',
        'vrf': some_vrf(),
        'tenant': some_tenant(),
        'status': 'reserved',
        'role': 'loopback',
        'assigned_object': interface,
        'nat_inside': some_ip(),
        'dns_name': 'host.example.com',
    }
    address = dressed(IPAddress(**given | fields))
    some_ip(nat_inside=address)
    return address


def make_vm_ip_address(**fields: Any) -> IPAddress:
    machine = VirtualMachine.objects.create(name=unique('vm'), site=some_site())
    interface = VMInterface.objects.create(virtual_machine=machine, name='eth0')
    return dressed(
        IPAddress(**{'address': f'2001:db8::{number():x}/64', 'role': '', 'assigned_object': interface} | fields)
    )


def make_prefix(**fields: Any) -> Prefix:
    """It lies between a larger and a smaller prefix."""
    block, vrf = number() % 250, some_vrf()
    given = {
        'prefix': f'10.{block}.0.0/20',
        'vrf': vrf,
        'scope': some_site(),
        'tenant': some_tenant(),
        'vlan': some_vlan(),
        'status': 'container',
        'role': make_role(),
        'is_pool': True,
        'mark_utilized': True,
    }
    Prefix.objects.create(prefix=f'10.{block}.0.0/16', vrf=vrf)
    prefix = dressed(Prefix(**given | fields))
    Prefix.objects.create(prefix=f'10.{block}.1.0/24', vrf=vrf)
    # The other prefixes changed its depth and children in the database.
    prefix.refresh_from_db()
    return prefix


def make_region_prefix(**fields: Any) -> Prefix:
    return dressed(Prefix(**{'prefix': f'2001:db8:{number():x}::/48', 'scope': make_region()} | fields))


def make_aggregate(**fields: Any) -> Aggregate:
    given = {
        'prefix': f'{100 + number() % 100}.0.0.0/8',
        'rir': make_rir(),
        'tenant': some_tenant(),
        'date_added': date(2024, 2, 29),
    }
    return dressed(Aggregate(**given | fields))


def make_vlan_group(**fields: Any) -> VLANGroup:
    given = {
        **named('vlans'),
        'scope': make_region(),
        'vid_ranges': [NumericRange(1, 101), NumericRange(200, 300)],
        'tenant': some_tenant(),
    }
    group = dressed(VLANGroup(**given | fields))
    for vid in (1, 2, 200):
        VLAN.objects.create(group=group, vid=vid, name=unique('VLAN'))
    return group


def make_vlan(**fields: Any) -> VLAN:
    given = {
        'site': some_site(),
        'group': VLANGroup.objects.create(**named('vlans')),
        'vid': 100 + number() % 3000,
        'name': unique('VLAN'),
        'tenant': some_tenant(),
        'status': 'deprecated',
        'role': make_role(),
        'qinq_role': 'cvlan',
        'qinq_svlan': VLAN.objects.create(vid=100 + number() % 3000, name=unique('SVLAN'), qinq_role='svlan'),
    }
    vlan = dressed(VLAN(**given | fields))
    make_l2vpn_termination(vlan)
    Prefix.objects.create(prefix=f'192.168.{number() % 250}.0/24', vlan=vlan)
    return vlan


def make_service(**fields: Any) -> Service:
    device = some_device(some_site())
    interface = Interface.objects.create(device=device, name='eth0', type='virtual')
    given = {'name': unique('service'), 'parent': device, 'port_mappings': ['tcp/80', 'tcp/443', 'udp/53']}
    service = dressed(Service(**given | fields))
    service.ipaddresses.set([some_ip(assigned_object=interface), some_ip(assigned_object=interface)])
    return service


def make_vm_service(**fields: Any) -> Service:
    """With only one protocol the API fills its own fields."""
    machine = VirtualMachine.objects.create(name=unique('vm'), site=some_site())
    return make_service(**{'parent': machine, 'port_mappings': ['tcp/22', 'tcp/2222']} | fields)
