from decimal import Decimal
from typing import Any

from dcim.models import (
    Cable,
    Device,
    DeviceBay,
    Interface,
    MACAddress,
    Rack,
    RackGroup,
    RackRole,
    Site,
    VirtualChassis,
    VirtualDeviceContext,
)
from ipam.models import VLAN, FHRPGroup, FHRPGroupAssignment, VLANTranslationPolicy
from virtualization.models import Cluster, ClusterType
from wireless.models import WirelessLAN, WirelessLink

from .surroundings import (
    dressed,
    give_addresses,
    make_asns,
    make_config_contexts,
    make_config_template,
    make_device_role,
    make_device_type,
    make_l2vpn_termination,
    make_location,
    make_module,
    make_platform,
    make_region,
    make_site_group,
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


def make_site(**fields: Any) -> Site:
    given = {
        **named('site'),
        'status': 'planned',
        'region': make_region(),
        'group': make_site_group(),
        'tenant': some_tenant(),
        'facility': 'DC 7',
        'time_zone': 'Europe/Zurich',
        'physical_address': 'Street 1\nTown',
        'shipping_address': 'Street 2',
        'latitude': Decimal('46.948100'),
        'longitude': Decimal('-7.447400'),
    }
    site = dressed(Site(**given | fields))
    site.asns.set(make_asns(2))
    Rack.objects.create(name=unique('rack'), site=site)
    VLAN.objects.create(name=unique('VLAN'), vid=7, site=site)
    return site


def make_rack_group(**fields: Any) -> RackGroup:
    group = dressed(RackGroup(**named('racks') | fields))
    Rack.objects.create(name=unique('rack'), site=some_site(), group=group)
    return group


def make_rack(**fields: Any) -> Rack:
    site = fields.get('site') or some_site()
    given = {
        'name': unique('rack'),
        'facility_id': unique('F'),
        'site': site,
        'location': make_location(site),
        'group': RackGroup.objects.create(**named('racks')),
        'tenant': some_tenant(),
        'status': 'reserved',
        'role': RackRole.objects.create(color='ff0000', **named('role')),
        'serial': unique('S'),
        'asset_tag': unique('asset'),
        'form_factor': '4-post-cabinet',
        'width': 21,
        'outer_width': 600,
        'outer_depth': 1000,
        'outer_unit': 'mm',
        'weight': Decimal('80.50'),
        'max_weight': 900,
        'weight_unit': 'kg',
        'airflow': 'front-to-rear',
    }
    rack = dressed(Rack(**given | fields))
    some_device(site, rack=rack)
    return rack


def make_device(**fields: Any) -> Device:
    site = fields.get('site') or some_site()
    location = make_location(site)
    chassis = VirtualChassis.objects.create(name=unique('chassis'))
    given = {
        'name': unique('device'),
        'device_type': make_device_type(),
        'role': make_device_role(),
        'tenant': some_tenant(),
        'platform': make_platform(),
        'serial': unique('S'),
        'asset_tag': unique('asset'),
        'site': site,
        'location': location,
        'rack': Rack.objects.create(name=unique('rack'), site=site, location=location),
        'position': Decimal('10.5'),
        'face': 'front',
        'status': 'staged',
        'airflow': 'side-to-rear',
        'latitude': Decimal('46.500000'),
        'longitude': Decimal('7.000001'),
        'cluster': Cluster.objects.create(name=unique('cluster'), type=ClusterType.objects.create(**named('type'))),
        'virtual_chassis': chassis,
        'vc_position': 1,
        'vc_priority': 200,
        'config_template': make_config_template(),
        'local_context_data': {'local': True, 'merged': {'local': 1}},
    }
    device = dressed(Device(**given | fields))
    make_config_contexts(device)
    give_addresses(device, Interface.objects.create(device=device, name='mgmt', type='1000base-t'))
    # The database changed its count of interfaces.
    device.refresh_from_db(fields=['interface_count'])
    device.oob_ip = some_ip(assigned_object=device.interfaces.first())
    device.save()
    return device


def make_child_device(**fields: Any) -> Device:
    """Its display name comes from its type."""
    site = some_site()
    device = dressed(Device(**{'device_type': make_device_type(), 'role': make_device_role(), 'site': site} | fields))
    DeviceBay.objects.create(device=some_device(site), name=unique('bay'), installed_device=device)
    return device


def make_interface(**fields: Any) -> Interface:
    device = fields.get('device') or some_device(some_site())
    given = {
        'device': device,
        'name': unique('Ethernet'),
        'label': 'front',
        'type': '10gbase-t',
        'module': make_module(device),
        'lag': Interface.objects.create(device=device, name=unique('LAG'), type='lag'),
        'bridge': Interface.objects.create(device=device, name=unique('bridge'), type='bridge'),
        'mtu': 9000,
        'speed': 10_000_000,
        'duplex': 'full',
        'wwn': f'50:00:00:00:00:{number() % 256:02x}:00:01',
        'mode': 'tagged',
        'poe_mode': 'pse',
        'poe_type': 'type2-ieee802.3at',
        'untagged_vlan': some_vlan(),
        'vlan_translation_policy': VLANTranslationPolicy.objects.create(name=unique('policy')),
        'vrf': some_vrf(),
    }
    interface = dressed(Interface(**given | fields))
    interface.tagged_vlans.set([some_vlan(), some_vlan()])
    interface.vdcs.add(VirtualDeviceContext.objects.create(device=device, name=unique('VDC'), status='active'))
    Interface.objects.create(device=device, name=unique('bridged'), type='virtual', bridge=interface)
    some_ip(assigned_object=interface)
    fhrp = FHRPGroup.objects.create(group_id=number(), protocol='vrrp2')
    FHRPGroupAssignment.objects.create(interface=interface, group=fhrp, priority=10)
    make_l2vpn_termination(interface)
    connect(interface)
    # The cable changed the row.
    interface.refresh_from_db()
    macs = [MACAddress.objects.create(mac_address=_mac(), assigned_object=interface) for _ in range(2)]
    interface.primary_mac_address = macs[1]
    interface.save()
    return interface


def _mac() -> str:
    return f'02:00:00:00:{number() % 256:02x}:{number() % 256:02x}'


def connect(interface: Interface) -> Cable:
    peer = Interface.objects.create(device=some_device(interface.device.site), name='peer', type='10gbase-t')
    cable = Cable(a_terminations=[interface], b_terminations=[peer], label=unique('cable'))
    cable.save()
    return cable


def make_wireless_interface(**fields: Any) -> Interface:
    device = fields.get('device') or some_device(some_site())
    given = {
        'device': device,
        'name': unique('wlan'),
        'type': 'ieee802.11ac',
        'rf_role': 'ap',
        'rf_channel': '5g-36-5180-20',
        'tx_power': 12,
    }
    interface = dressed(Interface(**given | fields))
    interface.wireless_lans.set([WirelessLAN.objects.create(ssid=unique('ssid')) for _ in range(2)])
    far = Interface.objects.create(device=some_device(device.site), name='wlan0', type='ieee802.11ac')
    WirelessLink.objects.create(interface_a=interface, interface_b=far, ssid='link')
    interface.refresh_from_db()
    return interface
