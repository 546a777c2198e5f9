"""Objects around the 19 models: tags, custom fields, owners and others."""

import itertools
from typing import Any

from core.models import ObjectType
from dcim.models import (
    Device,
    DeviceRole,
    DeviceType,
    Location,
    Manufacturer,
    Module,
    ModuleBay,
    ModuleType,
    Platform,
    Region,
    Site,
    SiteGroup,
)
from django.db.models import Model
from extras.models import ConfigContext, ConfigTemplate, CustomField, CustomFieldChoiceSet, Tag
from ipam.models import ASN, RIR, VLAN, VRF, IPAddress, Role, RouteTarget, VLANGroup
from tenancy.models import Tenant, TenantGroup
from users.models import Owner, OwnerGroup
from vpn.models import L2VPN, L2VPNTermination

from webhooks.constants import DEFAULT_MODELS

CUSTOM_FIELD_TYPES = (
    'text', 'longtext', 'integer', 'decimal', 'boolean', 'date', 'datetime', 'url', 'json', 'select', 'multiselect',
    'object', 'multiobject',
)  # fmt: skip

_numbers = itertools.count(1)


def number() -> int:
    return next(_numbers)


def unique(prefix: str) -> str:
    return f'{prefix}-{number()}'


def named(prefix: str) -> dict[str, str]:
    slug = unique(prefix)
    return {'name': slug.capitalize(), 'slug': slug}


def dressed(instance: Model) -> Model:
    """Add tags, an owner and every kind of custom field."""
    instance.custom_field_data = custom_field_values()
    instance.owner = make_owner()
    for name, text in (('description', 'As described'), ('comments', '# Comments')):
        if hasattr(instance, name):
            setattr(instance, name, text)
    instance.save()
    instance.tags.set(make_tags())
    return instance


def make_tags() -> list[Tag]:
    """Their orders by weight, by name and by id differ."""
    return [
        Tag.objects.get_or_create(slug=slug, defaults={'name': slug.capitalize(), 'weight': weight})[0]
        for slug, weight in (('gamma', 100), ('alpha', 300), ('beta', 200))
    ]


def make_owner() -> Owner:
    group, _ = OwnerGroup.objects.get_or_create(name='Owners')
    return Owner.objects.create(name=unique('Owner'), group=group)


def custom_field_values() -> dict[str, Any]:
    _ensure_custom_fields()
    referred = [Site.objects.get_or_create(name=name, slug=name.lower())[0] for name in ('Zug', 'Aarau', 'Bern')]
    return {
        'cf_text': unique('text'),
        'cf_longtext': 'Two\nlines, *one* with ünïcode \u2028',
        'cf_integer': number(),
        'cf_decimal': 12.75,
        'cf_boolean': True,
        'cf_date': '2025-02-28',
        'cf_datetime': '2025-02-28T13:14:15.000123+01:00',
        'cf_url': 'https://example.com/?a=1&b=2',
        'cf_json': {'nested': {'list': [1, 2.5, None, 'x']}},
        'cf_select': 'b',
        'cf_multiselect': ['c', 'a'],
        'cf_object': referred[0].pk,
        'cf_multiobject': [referred[2].pk, referred[1].pk],
    }


def _ensure_custom_fields() -> None:
    """Route targets too: a VRF shows them in full."""
    if CustomField.objects.filter(name='cf_text').exists():
        return
    choices = CustomFieldChoiceSet.objects.create(name='Choices', extra_choices=[[c, f'Choice {c}'] for c in 'abc'])
    sites = ObjectType.objects.get_for_model(Site)
    models = [ObjectType.objects.get_by_natural_key(*label.split('.')) for label in DEFAULT_MODELS]
    models.append(ObjectType.objects.get_for_model(RouteTarget))
    for kind in CUSTOM_FIELD_TYPES:
        field = CustomField.objects.create(
            name=f'cf_{kind}',
            type=kind,
            choice_set=choices if 'select' in kind else None,
            related_object_type=sites if 'object' in kind else None,
        )
        field.object_types.set(models)


#
# Plain objects of the 19 models, for others to point to
#


def some_tenant() -> Tenant:
    parent = TenantGroup.objects.create(**named('company'))
    return Tenant.objects.create(group=TenantGroup.objects.create(parent=parent, **named('tenants')), **named('tenant'))


def some_site() -> Site:
    return Site.objects.create(region=make_region(), group=make_site_group(), **named('site'))


def some_vrf() -> VRF:
    return VRF.objects.create(name=unique('VRF'), rd=f'65000:{number()}')


def some_vlan() -> VLAN:
    group = VLANGroup.objects.create(**named('vlans'))
    return VLAN.objects.create(group=group, vid=100 + number() % 3000, name=unique('VLAN'))


def some_ip(mask: int = 24, **fields: Any) -> IPAddress:
    return IPAddress.objects.create(address=f'10.{number() % 250}.{number() % 250}.7/{mask}', **fields)


def some_device(site: Site, **fields: Any) -> Device:
    return Device.objects.create(
        **{'name': unique('device'), 'device_type': make_device_type(), 'role': make_device_role(), 'site': site}
        | fields
    )


#
# Places
#


def make_region() -> Region:
    continent = Region.objects.create(**named('continent'))
    return Region.objects.create(parent=Region.objects.create(parent=continent, **named('country')), **named('region'))


def make_site_group() -> SiteGroup:
    return SiteGroup.objects.create(parent=SiteGroup.objects.create(**named('sites')), **named('site-group'))


def make_location(site: Site) -> Location:
    building = Location.objects.create(site=site, **named('building'))
    return Location.objects.create(site=site, parent=building, **named('floor'))


def make_asns(count: int) -> list[ASN]:
    rir = make_rir()
    return [ASN.objects.create(asn=4_200_000_000 + number(), rir=rir) for _ in range(count)]


def make_rir() -> RIR:
    return RIR.objects.create(**named('rir'))


def make_role() -> Role:
    return Role.objects.create(**named('role'))


def make_route_targets(count: int) -> list[RouteTarget]:
    return [dressed(RouteTarget(name=f'65000:{number()}', tenant=some_tenant())) for _ in range(count)]


#
# Hardware
#


def make_device_type() -> DeviceType:
    model = named('model')
    return DeviceType.objects.create(
        manufacturer=Manufacturer.objects.create(**named('maker')), model=model['name'], slug=model['slug'], u_height=2
    )


def make_device_role() -> DeviceRole:
    return DeviceRole.objects.create(parent=DeviceRole.objects.create(**named('gear')), **named('router'))


def make_platform() -> Platform:
    return Platform.objects.create(parent=Platform.objects.create(**named('unix')), **named('linux'))


def make_module(device: Model) -> Module:
    module_type = ModuleType.objects.create(manufacturer=device.device_type.manufacturer, model=unique('line-card'))
    bay = ModuleBay.objects.create(device=device, name=unique('bay'))
    return Module.objects.create(device=device, module_bay=bay, module_type=module_type)


def make_config_template() -> ConfigTemplate:
    return ConfigTemplate.objects.create(name=unique('template'), template_code='{{ device.name }}')


def make_config_contexts(machine: Model) -> None:
    """Two contexts apply, and one does not."""
    by_site, by_tag, elsewhere = (
        ConfigContext.objects.create(
            name=unique(name), weight=weight, data={name: True, 'winner': name, 'merged': {name: weight}}
        )
        for weight, name in enumerate(('site', 'tag', 'elsewhere'), 100)
    )
    by_site.sites.add(machine.site)
    by_tag.tags.add(make_tags()[1])
    elsewhere.sites.add(Site.objects.create(**named('elsewhere')))


def make_l2vpn_termination(assigned: Model) -> L2VPNTermination:
    l2vpn = L2VPN.objects.create(type='vxlan', identifier=number(), **named('l2vpn'))
    return L2VPNTermination.objects.create(l2vpn=l2vpn, assigned_object=assigned)


def give_addresses(machine: Model, interface: Model) -> None:
    """The addresses have NAT both ways. The caller saves `machine`."""
    inside = some_ip(assigned_object=interface, dns_name='host.example.com', nat_inside=some_ip())
    some_ip(nat_inside=inside)
    machine.primary_ip4 = inside
    machine.primary_ip6 = IPAddress.objects.create(address=f'2001:db8::{number():x}/64', assigned_object=interface)
