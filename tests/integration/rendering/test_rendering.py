"""Past versions are shown as the API showed them."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from circuits.models import Circuit
from core.models import ObjectChange, ObjectType
from dcim.models import CablePath, Device, DeviceType, Interface, Manufacturer, Rack, Site
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from extras.models import ConfigContext, CustomField, Tag
from ipam.models import VRF, IPAddress, Prefix, RouteTarget
from support import cases
from support.kinds import KINDS, every_kind, some_kinds
from support.objects import (
    MAKERS,
    change,
    empty_relations,
    make_circuit,
    make_device,
    make_interface,
    make_ip_address,
    make_prefix,
    make_site,
    make_virtual_machine,
    make_vrf,
    strip,
)
from support.objects.dcim import connect
from support.objects.surroundings import (
    make_device_type,
    make_location,
    make_region,
    make_tags,
    named,
    number,
    some_device,
    some_ip,
    some_site,
    unique,
)
from support.rest import delete, get
from tenancy.models import Tenant, TenantGroup
from virtualization.models import ClusterGroup
from wireless.models import WirelessLAN, WirelessLink

from webhooks import rendering
from webhooks.constants import DEFAULT_MODELS
from webhooks.outbox import snapshots

# NetBox derives these from related rows, which may change or go.
DERIVED = re.compile(
    r'.*_count|count_.*|allocated_.*|utilization|connected_endpoints.*|_occupied|accounts|assignments|bridge_interfaces'
    r'|l2vpn_termination|link_peers|mac_addresses|nat_outside|parent_device'
)

Make = Callable[..., Model]


def take(instance: Model) -> dict[str, Any]:
    return json.loads(snapshots.take(type(instance), [instance.pk])[instance.pk])


def render(*taken: dict[str, Any], model: type[Model]) -> list[dict[str, Any]]:
    return [rendered.data for rendered in rendering.render(model, taken)]


def render_now(instance: Model) -> dict[str, Any]:
    return render(take(instance), model=type(instance))[0]


class TestRenderedAtOnce:
    @every_kind
    def test_an_object_is_as_the_api_shows_it(self, api_client, make: Make):
        instance = make()
        shown = get(api_client, instance)
        assert render_now(instance) == shown
        assert list(render_now(instance)) == list(shown)

        change(instance)
        assert render_now(instance) == get(api_client, instance)

        instance.tags.remove(make_tags()[0])
        instance.tags.add(Tag.objects.create(name='Late', slug='late'))
        shown = get(api_client, instance)
        assert render_now(instance) == shown
        assert [tag['name'] for tag in shown['tags']] == ['Beta', 'Alpha', 'Late']

        strip(instance)
        assert render_now(instance) == get(api_client, instance)

    def test_the_name_of_an_object_is_cut_at_200_characters(self, db):
        named_, unnamed = some_device(some_site()), some_device(some_site(), name=None)
        DeviceType.objects.filter(pk=unnamed.device_type_id).update(model='m' * 100)
        Manufacturer.objects.filter(device_types=unnamed.device_type_id).update(name='n' * 100)
        unnamed.refresh_from_db()
        rendered = rendering.render(Device, [take(named_), take(unnamed)])
        assert [item.display for item in rendered] == [str(named_), str(unnamed)[:200]]

    def test_all_of_the_19_models_are_here(self):
        assert MAKERS.keys() == set(DEFAULT_MODELS)

    def test_no_objects_render_to_nothing(self, db):
        assert rendering.render(Site, []) == []

    def test_an_object_of_another_model_is_as_the_api_shows_it(self, api_client):
        lan = WirelessLAN.objects.create(ssid='guests', scope=make_region())
        assert render_now(lan) == get(api_client, lan)

    def test_an_object_without_a_page_in_the_api_is_rendered(self, db):
        make_interface()
        path = CablePath.objects.first()
        shown = render_now(path)
        assert shown['id'] == path.pk
        assert [node['name'] for node in shown['path'][-1]] == ['peer']

    @pytest.mark.parametrize('make', [make_device, make_virtual_machine])
    def test_config_contexts_of_every_kind_are_as_the_api_shows_them(self, api_client, make: Make):
        machine = make()
        for limit, target in config_context_limits(machine):
            context = ConfigContext.objects.create(name=unique(limit), weight=number(), data={unique(limit): True})
            getattr(context, limit).add(target)
        ConfigContext.objects.create(name='off', is_active=False, data={'off': True})
        shown = get(api_client, machine)
        assert len(shown['config_context']) > len(ConfigContext._meta.many_to_many)
        assert render_now(machine) == shown

    def test_custom_fields_are_those_of_now(self, api_client):
        vrf = make_vrf()
        render_now(vrf)
        for model in (VRF, RouteTarget):
            field = CustomField.objects.create(name=f'late_{model.__name__}', type='text')
            field.object_types.add(ObjectType.objects.get_for_model(model))
        assert render_now(vrf) == get(api_client, vrf)

    def test_language_and_time_zone_of_who_renders_it_do_not_matter(self, api_client):
        site = make_site()
        shown = get(api_client, site)
        with translation.override('de'), timezone.override('America/New_York'):
            assert render_now(site) == shown


class TestRenderedLater:
    @some_kinds
    def test_two_versions_of_an_object_are_each_shown_as_they_were(self, api_client, make: Make):
        instance = make()
        older, shown = take(instance), get(api_client, instance)
        change(instance)
        empty_relations(instance)
        instance.tags.set(make_tags()[:1])
        newer, shown_now = take(instance), get(api_client, instance)
        later, now = render(older, newer, model=type(instance))
        assert underived(later) == underived(shown)
        assert now == shown_now
        assert (len(later['tags']), len(now['tags'])) == (3, 1)

    # tests/integration/outbox/test_deletions.py deletes more of them.
    @pytest.mark.parametrize('make', cases.named(('dcim.device', 'ipam.prefix'), KINDS))
    def test_a_deleted_object_is_shown_as_it_was(self, api_client, make: Make):
        instance = make()
        before, shown = take(instance), get(api_client, instance)
        delete(api_client, instance)
        (later,) = render(before, model=type(instance))
        assert list(later) == list(shown)
        assert underived(later) == underived(shown)

    def test_counts_are_those_of_now(self, db):
        site = make_site()
        before = take(site)
        Rack.objects.create(name='another', site=site)
        (later,) = render(before, model=Site)
        assert later['rack_count'] == render_now(site)['rack_count'] == 2

    def test_counts_that_netbox_takes_from_other_rows_are_those_of_now(self, db):
        prefix, device = make_prefix(), some_device(some_site())
        before = [take(prefix), take(device)]
        Prefix.objects.create(prefix=f'{prefix.prefix.network}/30', vrf=prefix.vrf)
        Interface.objects.create(device=device, name='eth0', type='virtual')
        assert render(before[0], model=Prefix)[0]['children'] == 2
        assert render(before[1], model=Device)[0]['interface_count'] == 1

    def test_a_circuit_shows_the_terminations_that_it_had(self, db):
        circuit = make_circuit()
        both, gone = take(circuit), circuit.termination_z_id
        circuit.terminations.get(term_side='Z').delete()
        one = circuit.terminations.get()
        one.term_side = 'Z'
        one.save()
        circuit.refresh_from_db()
        then, now = render(both, take(circuit), model=Circuit)
        assert (then['termination_a']['id'], then['termination_z']['id']) == (one.pk, gone)
        assert (now['termination_a'], now['termination_z']['id']) == (None, one.pk)

    def test_names_of_related_objects_are_those_of_now(self, db):
        site = make_site()
        before = take(site)
        Tenant.objects.filter(pk=site.tenant_id).update(name='Renamed')
        (later,) = render(before, model=Site)
        assert later['tenant']['name'] == 'Renamed'

    def test_the_depth_in_a_tree_is_that_of_its_own_parent(self, db):
        root, group = (TenantGroup.objects.create(**named('group')) for _ in range(2))
        before = take(group)
        group.parent = root
        group.save()
        assert [data['_depth'] for data in render(before, take(group), model=TenantGroup)] == [0, 1]

    def test_a_parent_that_moved_takes_the_depth_along(self, api_client):
        root, parent = (TenantGroup.objects.create(**named('group')) for _ in range(2))
        group = TenantGroup.objects.create(parent=parent, **named('group'))
        before = take(group)
        parent.parent = root
        parent.save()
        assert render(before, model=TenantGroup) == [get(api_client, group)]

    def test_the_config_context_is_that_of_its_own_tags(self, db):
        device = make_device()
        before = take(device)
        device.tags.clear()
        with_tags, without = render(before, take(device), model=Device)
        assert with_tags['config_context']['tag'] is True
        assert 'tag' not in without['config_context']

    def test_a_cable_path_is_not_shown_of_another_link(self, api_client):
        interface = make_interface()
        before, shown = take(interface), get(api_client, interface)
        interface.cable.delete()
        interface.refresh_from_db()
        connect(interface)
        (later,) = render(before, model=Interface)
        assert later['cable']['id'] == shown['cable']['id']
        assert later['connected_endpoints'] is None


class TestGoneRelatedObjects:
    """Only deletions by the API reach NetBox's change log."""

    def test_a_related_object_in_the_change_log_is_shown_as_it_was(self, api_client):
        site = make_site()
        before, shown = take(site), get(api_client, site)
        Site.objects.filter(pk=site.pk).update(tenant=None)
        for instance in (site.tenant, site.asns.first(), make_tags()[0], Site.objects.get(name='Zug')):
            delete(api_client, instance)
        (later,) = render(before, model=Site)
        for name in ('asns', 'tags'):
            assert by_id(later.pop(name)) == by_id(shown.pop(name))
        assert later == shown

    def test_an_unknown_related_object_is_shown_by_its_id(self, db):
        site = make_site()
        before, shown = take(site), render_now(site)
        Site.objects.filter(pk=site.pk).update(tenant=None)
        for instance in (site.tenant, site.asns.first(), make_tags()[0], Site.objects.get(name='Zug')):
            instance.delete()
        (later,) = render(before, model=Site)
        assert later['tenant'] == {
            'id': shown['tenant']['id'],
            'url': shown['tenant']['url'],
            'display': f'tenant {shown["tenant"]["id"]}',
            'name': None,
            'slug': None,
            'description': None,
        }
        for name in ('asns', 'tags'):
            assert ids(later[name]) == ids(shown[name])
        assert later['custom_fields']['cf_object']['id'] == shown['custom_fields']['cf_object']['id']

    def test_an_interface_is_shown_with_its_device_that_went_along(self, api_client):
        interface = make_interface()
        before, shown = take(interface), get(api_client, interface)
        delete(api_client, interface.device)
        (later,) = render(before, model=Interface)
        assert underived(later) == underived(shown)

    def test_an_address_is_shown_with_its_interface_that_went_along(self, api_client):
        interface = Interface.objects.create(device=some_device(some_site()), name='eth0', type='virtual')
        address = some_ip(assigned_object=interface)
        before, shown = take(address), get(api_client, address)
        delete(api_client, interface.device)
        assert render(before, model=IPAddress) == [shown]

    def test_an_interface_is_shown_although_nothing_is_known_of_its_device(self, db):
        interface = Interface.objects.create(device=some_device(some_site(), name=None), name='eth0', type='virtual')
        before, device = take(interface), interface.device_id
        interface.device.delete()
        (later,) = render(before, model=Interface)
        assert later['name'] == 'eth0'
        assert later['device']['id'] == device

    def test_an_unnamed_device_is_shown_although_nothing_is_known_of_its_type(self, db):
        device = some_device(some_site(), name=None)
        before, pk = take(device), device.pk
        device.delete()
        device.device_type.delete()
        (rendered,) = rendering.render(Device, [before])
        assert rendered.display == rendered.data['display'] == f'device {pk}'

    def test_an_interface_is_shown_although_nothing_is_known_of_its_wireless_link(self, db):
        ports = [Interface.objects.create(device=some_device(some_site()), name='w', type='ieee802.11ac') for _ in 'ab']
        link = WirelessLink.objects.create(interface_a=ports[0], interface_b=ports[1], ssid='ssid')
        pk = link.pk
        before = [take(port) for port in ports]
        link.delete()
        for shown in rendering.render(Interface, before):
            assert shown.data['wireless_link']['id'] == pk
            assert (shown.data['link_peers'], shown.data['link_peers_type']) == ([], None)
            assert {'wireless_link', 'link_peers', 'link_peers_type'} <= set(shown.partial)
            assert not {'cable', 'name', 'device', 'mac_address'} & set(shown.partial)

    def test_a_scope_that_went_along_is_shown(self, api_client):
        region = make_region()
        prefixes = [Prefix.objects.create(prefix=f'10.0.{i}.0/24', scope=region) for i in range(2)]
        before, shown = [take(prefix) for prefix in prefixes], get(api_client, prefixes[0])
        delete(api_client, region)
        assert render(before[0], model=Prefix)[0]['scope'] == shown['scope']
        ObjectChange.objects.all().delete()
        (later,) = render(before[1], model=Prefix)
        assert (later['scope'], later['scope_id']) == (None, region.pk)

    def test_a_related_object_that_was_gone_before_is_not_shown(self, api_client):
        site = make_site()
        delete(api_client, Site.objects.get(name='Zug'))
        delete(api_client, Site.objects.get(name='Bern'))
        site.save()
        assert render_now(site) == get(api_client, site)


class TestQueries:
    """A batch costs as many queries as two objects."""

    @some_kinds
    def test_queries_for_new_objects_and_old_versions_do_not_grow(self, db, make: Make):
        made = [make() for _ in range(3)]
        taken = [take(instance) for instance in made]
        assert count_queries(type(made[0]), taken) == count_queries(type(made[0]), taken[:2])
        for instance in made:
            change(instance)
            instance.tags.clear()
        assert count_queries(type(made[0]), taken) == count_queries(type(made[0]), taken[:2])

    @pytest.mark.parametrize('make', [make_device, make_interface, make_ip_address, make_site])
    def test_queries_for_deleted_objects_do_not_grow(self, api_client, make: Make):
        made = [make() for _ in range(3)]
        taken = [take(instance) for instance in made]
        for instance in made:
            delete(api_client, instance)
        assert count_queries(type(made[0]), taken) == count_queries(type(made[0]), taken[:2])


#
# Helpers
#


def config_context_limits(machine: Model) -> Iterator[tuple[str, Model]]:
    """Yield each limit with the machine's own value, its parent, and a foreign one."""
    location = getattr(machine, 'location', None) or make_location(machine.site)
    own = {
        'regions': machine.site.region,
        'site_groups': machine.site.group,
        'sites': machine.site,
        'locations': location,
        'device_types': getattr(machine, 'device_type', None) or make_device_type(),
        'roles': machine.role,
        'platforms': machine.platform,
        'cluster_types': machine.cluster.type,
        'cluster_groups': machine.cluster.group or ClusterGroup.objects.create(**named('group')),
        'clusters': machine.cluster,
        'tenant_groups': machine.tenant.group,
        'tenants': machine.tenant,
        'tags': machine.tags.first(),
    }
    assert own.keys() == {field.name for field in ConfigContext._meta.many_to_many}
    for limit, target in own.items():
        yield limit, target
        if getattr(target, 'parent', None):
            yield limit, target.parent
        if other := type(target).objects.exclude(pk=target.pk).last():
            yield limit, other


def count_queries(model: type[Model], taken: list[dict[str, Any]]) -> int:
    # Fills caches, such as content types.
    render(*taken, model=model)
    with CaptureQueriesContext(connection) as queries:
        render(*taken, model=model)
    return len(queries)


def underived(shown: Any) -> Any:
    if isinstance(shown, dict):
        return {key: underived(value) for key, value in shown.items() if not DERIVED.fullmatch(key)}
    return [underived(value) for value in shown] if isinstance(shown, list) else shown


def ids(shown: list[dict[str, Any]]) -> set[int]:
    return {item['id'] for item in shown}


def by_id(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(shown, key=lambda item: item['id'])
