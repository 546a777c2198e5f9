import json
import threading
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import pytest
from core.models import Job
from dcim.models import (
    Cable,
    Device,
    Interface,
    InterfaceTemplate,
    InventoryItem,
    Location,
    Module,
    ModuleBay,
    ModuleType,
    Rack,
    Region,
    Site,
    VirtualChassis,
)
from django.db import DEFAULT_DB_ALIAS, connection, transaction
from django.db.models.signals import pre_delete
from django.test import Client
from django.test.utils import CaptureQueriesContext
from extras.jobs import ScriptJob
from extras.models import Tag
from extras.scripts import Script
from ipam.models import ASN, RIR, VRF, IPAddress, Prefix, Service
from netbox.context_managers import event_tracking
from netbox.jobs import JobRunner
from support.builders import (
    CREATED,
    DELETED,
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
    stored,
    subscribe,
)
from support.builtin import request_by
from support.engine import dispatch_all, work
from support.settings import change_settings
from tenancy.models import Tenant, TenantGroup
from utilities.request import NetBoxFakeRequest
from virtualization.models import Cluster, ClusterType, VirtualMachine

from webhooks.constants import DEFAULT_MODELS
from webhooks.outbox import modules, prechange, scope

pytestmark = pytest.mark.usefixtures('committed')

SITES = '/api/dcim/sites/'
ADDRESSES = ('primary_ip4_id', 'oob_ip_id', 'virtual_chassis_id')

ALL_MODELS = "PLUGINS_CONFIG = {'webhooks': {'enabled': True, 'allowed_models': ['*']}}"
MOVED = """
from dcim.models import Location, PowerPanel, Site
from django.contrib.contenttypes.models import ContentType
from webhooks.models import Event, Webhook
old, new = (Site.objects.create(name=name, slug=name) for name in ('old', 'new'))
outer = Location.objects.create(site=old, name='outer', slug='outer')
inner = Location.objects.create(site=old, name='inner', slug='inner', parent=outer)
PowerPanel.objects.create(site=old, location=inner, name='panel')
webhook = Webhook.objects.create(name='Hook', payload_url='http://127.0.0.1:9/', type_update=True)
webhook.object_types.set(ContentType.objects.get_for_models(Location, PowerPanel).values())
outer.site = new
outer.save()
found = Event.objects.filter(kind='updated', snapshot__row__site_id=new.pk)
print(sorted((event.object_type.model, event.snapshot['row']['name']) for event in found))
"""


def counted(kind: str, *models: type) -> list[int]:
    """Return the primary keys, one for each event."""
    found = recorded(*models)
    assert {event.kind for event in found} <= {kind}
    return sorted(event.object_id for event in found)


class TestRest:
    @pytest.fixture(autouse=True)
    def webhook(self, committed: None) -> None:
        subscribe(NOWHERE, Site)

    @pytest.fixture
    def call(self, api_client: Any) -> Callable[..., Any]:
        def call(method: str, path: str, body: Any = None) -> Any:
            answer = getattr(api_client, method)(path, body, format='json')
            assert answer.status_code < 300, answer.content
            return answer

        return call

    def test_the_api_records_create_update_and_delete(self, call):
        answer = call('post', SITES, {'name': 'Bern', 'slug': 'bern'})
        url = f'{SITES}{answer.json()["id"]}/'
        call('patch', url, {'description': 'changed'})
        call('delete', url)
        pk = answer.json()['id']
        assert changes() == [(CREATED, pk), (UPDATED, pk), (DELETED, pk)]

    def test_the_api_records_who_and_in_which_request(self, call):
        answer = call('post', SITES, {'name': 'Bern', 'slug': 'bern'})
        (event,) = recorded()
        assert (event.username, str(event.request_id)) == ('admin', answer.headers['X-Request-ID'])

    def test_with_tags_and_links_it_is_one_creation(self, call):
        tag = Tag.objects.create(name='Tag', slug='tag')
        asn = ASN.objects.create(asn=65001, rir=RIR.objects.create(**named('rir')))
        call('post', SITES, {'name': 'Bern', 'slug': 'bern', 'tags': [{'slug': 'tag'}], 'asns': [asn.pk]})
        (event,) = recorded()
        assert (event.kind, event.snapshot['m2m']) == (CREATED, {'asns': [asn.pk], 'tags': [tag.pk]})

    def test_bulk_requests_record_each_object(self, call):
        made = call('post', SITES, [{'name': f'Site {n}', 'slug': f'site-{n}'} for n in range(3)]).json()
        pks = sorted(one['id'] for one in made)
        assert counted(CREATED) == pks
        forget_events()
        call('patch', SITES, [{'id': pk, 'description': 'changed'} for pk in pks])
        assert counted(UPDATED) == pks
        assert {event.snapshot['row']['description'] for event in recorded()} == {'changed'}
        forget_events()
        call('delete', SITES, [{'id': pk} for pk in pks])
        assert counted(DELETED) == pks

    def test_a_bulk_request_that_fails_records_nothing(self, api_client):
        bodies = [{'name': 'Good', 'slug': 'good'}, {'name': 'Bad', 'slug': 'not a slug'}]
        assert api_client.post(SITES, bodies, format='json').status_code == 400
        pks = [site().pk, site().pk]
        forget_events()
        changed = [{'id': pks[0], 'name': 'New'}, {'id': pks[1], 'slug': 'not a slug'}]
        assert api_client.patch(SITES, changed, format='json').status_code == 400
        assert changes() == []


class TestPages:
    @pytest.fixture
    def browser(self, netbox_user: Any) -> Client:
        subscribe(NOWHERE, Site)
        browser = Client()
        browser.force_login(netbox_user)
        return browser

    def post(self, browser: Client, path: str, data: dict) -> None:
        answer = browser.post(path, data)
        assert answer.status_code == 302, answer.content.decode()

    def test_pages_record_create_update_and_delete(self, browser):
        tag = Tag.objects.create(name='Tag', slug='tag')
        form = {'name': 'Bern', 'slug': 'bern', 'status': 'active', 'tags': [tag.pk]}
        self.post(browser, '/dcim/sites/add/', form)
        pk = Site.objects.get().pk
        self.post(browser, f'/dcim/sites/{pk}/edit/', form | {'description': 'changed', 'tags': []})
        self.post(browser, f'/dcim/sites/{pk}/delete/', {'confirm': True})
        assert changes() == [(CREATED, pk), (UPDATED, pk), (DELETED, pk)]
        assert [event.snapshot['m2m']['tags'] for event in recorded()] == [[tag.pk], [], []]
        assert {event.username for event in recorded()} == {'admin'}

    def test_bulk_pages_record_each_object(self, browser):
        pks = [site().pk for _ in range(3)]
        tag = Tag.objects.create(name='Tag', slug='tag')
        forget_events()
        form = {'pk': pks, 'description': 'changed', 'add_tags': [tag.pk], '_apply': True}
        self.post(browser, '/dcim/sites/edit/', form)
        assert counted(UPDATED) == pks
        assert {event.snapshot['m2m']['tags'][0] for event in recorded()} == {tag.pk}
        forget_events()
        self.post(browser, '/dcim/sites/delete/', {'pk': pks, 'confirm': True, '_confirm': True})
        assert counted(DELETED) == pks

    def test_an_import_records_each_object(self, browser):
        rows = 'name,slug,status\nBern,bern,active\nGenf,genf,active'
        self.post(browser, '/dcim/sites/import/', {'data': rows, 'format': 'csv', 'csv_delimiter': ','})
        assert counted(CREATED) == sorted(Site.objects.values_list('pk', flat=True))
        assert len(recorded()) == 2


class BulkWrite(JobRunner):
    """A plugin's background job has no request and no transaction."""

    def run(self, *args, **kwargs) -> None:
        for _ in range(3):
            site()
        with transaction.atomic():
            for place in Site.objects.all():
                place.save()


class BulkScript(Script):
    def run(self, data: dict, commit: bool) -> str:
        for _ in range(3):
            site()
        return 'done'


class TestBackground:
    @pytest.fixture(autouse=True)
    def webhook(self, committed: None) -> None:
        subscribe(NOWHERE, Site)

    def test_a_shell_is_nobody(self):
        site()
        (event,) = recorded()
        assert (event.username, event.request_id) == (None, None)

    def test_a_thread_is_recorded(self):
        def write() -> None:
            site()
            connection.close()

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert counted(CREATED) == [Site.objects.get().pk]

    def test_a_job_is_recorded(self, drain):
        job = BulkWrite.enqueue()
        drain('default')
        job.refresh_from_db()
        assert job.status == 'completed', job.error
        pks = sorted(Site.objects.values_list('pk', flat=True))
        assert sorted(changes()) == sorted([(CREATED, pk) for pk in pks] + [(UPDATED, pk) for pk in pks])

    @pytest.mark.parametrize('commit', [True, False])
    def test_a_script_runs_for_its_user(self, netbox_user, commit: bool):
        request = NetBoxFakeRequest({'user': netbox_user, 'id': uuid.uuid4(), 'META': {}})
        job = Job.objects.create(name='script', job_id=uuid.uuid4())
        with event_tracking(request):
            ScriptJob(job).run_script(BulkScript(), request, {}, commit=commit)
        assert counted(CREATED) == sorted(Site.objects.values_list('pk', flat=True))
        assert {(event.username, event.request_id) for event in recorded()} == (
            {('admin', request.id)} if commit else set()
        )


class Interrupted(Exception):
    """Raised to roll back."""


class TestCascade:
    @pytest.fixture
    def equipped(self, committed: None) -> Device:
        owner = device()
        lag = interface(owner, type='lag')
        ports = [interface(owner, lag=lag) for _ in range(2)]
        addresses = [IPAddress.objects.create(address=f'192.0.2.{n}/24', assigned_object=ports[0]) for n in (1, 2)]
        owner.primary_ip4 = addresses[0]
        owner.oob_ip = addresses[1]
        owner.virtual_chassis = VirtualChassis.objects.create(name='Chassis')
        owner.vc_position = 1
        owner.save()
        return owner

    @pytest.fixture
    def expected(self, equipped: Device) -> list[tuple]:
        objects = [equipped, *equipped.interfaces.all(), *IPAddress.objects.all()]
        subscribe(NOWHERE, Device, Interface, IPAddress, Site)
        return sorted((type(item).__name__, item.pk, DELETED) for item in objects)

    def found(self) -> list[tuple]:
        return sorted((event.object_type.model_class().__name__, event.object_id, event.kind) for event in recorded())

    def test_a_deletion_through_the_api_records_what_goes_along(self, equipped, expected, api_client):
        """NetBox saves related objects before it deletes some of them."""
        assert api_client.delete(f'/api/dcim/devices/{equipped.pk}/').status_code == 204
        assert self.found() == expected

    def test_a_deletion_on_the_page_records_what_goes_along(self, equipped, expected, netbox_user):
        browser = Client()
        browser.force_login(netbox_user)
        assert browser.post(f'/dcim/devices/{equipped.pk}/delete/', {'confirm': True}).status_code == 302
        assert self.found() == expected

    @pytest.mark.parametrize('way', ['instance', 'queryset', 'request'])
    def test_objects_that_a_deletion_takes_along_are_shown_as_before_it_began(
        self, equipped, expected, way, netbox_user
    ):
        """During the deletion, NetBox saves the device without its addresses."""
        before = stored(Device, equipped.pk)
        equipped.refresh_from_db()
        delete = Device.objects.filter(pk=equipped.pk).delete if way == 'queryset' else equipped.delete
        with request_by(netbox_user) if way == 'request' else nullcontext():
            delete()
        assert self.found() == expected
        (event,) = recorded(Device)
        shown = {name: (event.snapshot['row'][name], before['row'][name]) for name in ADDRESSES}
        assert all(value == expected and value is not None for value, expected in shown.values()), shown
        assert datetime.fromisoformat(event.snapshot['row']['last_updated']) == equipped.last_updated
        dispatch_all()
        (event,) = recorded(Device)
        rendered = {name: event.payload_data[name]['id'] for name in ('primary_ip4', 'oob_ip', 'primary_ip')}
        address = before['row']['primary_ip4_id']
        assert rendered == {'primary_ip4': address, 'oob_ip': before['row']['oob_ip_id'], 'primary_ip': address}

    def test_an_address_taken_away_before_stays_away(self, equipped, expected):
        assert equipped.primary_ip4 and equipped.oob_ip
        with transaction.atomic():
            equipped.primary_ip4 = None
            equipped.save()
            Device.objects.get(pk=equipped.pk).delete()
        (event,) = recorded(Device)
        assert event.snapshot['row']['primary_ip4_id'] is None
        assert event.snapshot['row']['oob_ip_id']

    def test_deleting_the_address_of_a_device_updates_the_device(self, equipped, expected, api_client):
        """NetBox takes a deleted primary address from its device with a save."""
        address = equipped.primary_ip4
        assert api_client.delete(f'/api/ipam/ip-addresses/{address.pk}/').status_code == 204
        assert self.found() == [('Device', equipped.pk, UPDATED), ('IPAddress', address.pk, DELETED)]
        assert recorded(Device)[0].snapshot['row']['primary_ip4_id'] is None

    def test_deleting_a_group_records_the_groups_below(self, api_client):
        parent = TenantGroup.objects.create(**named('group'))
        child = TenantGroup.objects.create(parent=parent, **named('group'))
        tenant = Tenant.objects.create(group=child, **named('tenant'))
        subscribe(NOWHERE, TenantGroup, Tenant)
        assert api_client.delete(f'/api/tenancy/tenant-groups/{parent.pk}/').status_code == 204
        assert sorted(self.found()) == sorted(
            [('TenantGroup', parent.pk, DELETED), ('TenantGroup', child.pk, DELETED), ('Tenant', tenant.pk, UPDATED)]
        )
        assert recorded(Tenant)[0].snapshot['row']['group_id'] is None


class TestLeftBehind:
    @pytest.fixture(params=['api', 'shell'])
    def delete(self, request: pytest.FixtureRequest, api_client: Any) -> Callable[[Any, str], None]:
        def by_api(instance: Any, path: str) -> None:
            assert api_client.delete(f'/api/{path}/{instance.pk}/').status_code == 204

        def by_shell(instance: Any, path: str) -> None:
            instance.delete()

        return by_api if request.param == 'api' else by_shell

    def test_an_object_whose_key_pointed_to_what_is_deleted_is_updated(self, delete):
        region = Region.objects.create(**named('region'))
        place = site(region=region)
        subscribe(NOWHERE, Site)
        delete(region, 'dcim/regions')
        assert changes() == [(UPDATED, place.pk)]
        assert recorded()[0].snapshot['row']['region_id'] is None

    def test_an_object_linked_to_what_is_deleted_is_updated(self, delete):
        asn = ASN.objects.create(asn=65001, rir=RIR.objects.create(**named('rir')))
        place = site()
        place.asns.add(asn)
        subscribe(NOWHERE, Site)
        delete(asn, 'ipam/asns')
        assert changes() == [(UPDATED, place.pk)]
        assert recorded()[0].snapshot['m2m']['asns'] == []

    def test_an_object_whose_tag_is_deleted_is_updated(self, delete):
        tag = Tag.objects.create(**named('tag'))
        place = site()
        place.tags.add(tag)
        subscribe(NOWHERE, Site)
        delete(tag, 'extras/tags')
        assert changes() == [(UPDATED, place.pk)]
        assert recorded()[0].snapshot['m2m']['tags'] == []

    def test_no_link_is_left_where_what_goes_along_points_to_its_own_kind(self, delete):
        """Django finds no order within a model, and deletes the link after its target."""
        owner = device()
        address = IPAddress.objects.create(address='192.0.2.1/24', assigned_object=interface(owner))
        service = Service.objects.create(name='ssh', port_mappings=['tcp/22'], parent=device())
        service.ipaddresses.add(address)
        outer = InventoryItem.objects.create(device=owner, name='outer')
        InventoryItem.objects.create(device=owner, name='inner', parent=outer)
        subscribe(NOWHERE, Service)
        delete(owner, 'dcim/devices')
        assert {kind for kind, _pk in changes()} == {UPDATED}
        assert recorded()[-1].snapshot['m2m']['ipaddresses'] == stored(Service, service.pk)['m2m']['ipaddresses'] == []


class TestCables:
    """NetBox saves both ends after PostgreSQL has cleared them."""

    CHANGED = {'attr': 'cable', 'op': 'changed'}

    @pytest.fixture
    def ports(self, committed: None) -> list[Interface]:
        ports = [interface(device()) for _ in range(2)]
        Cable(a_terminations=ports[:1], b_terminations=ports[1:]).save()
        return ports

    @pytest.fixture(params=['shell', 'request', 'queryset'])
    def delete(self, request: pytest.FixtureRequest, netbox_user: Any) -> Callable[[Cable], None]:
        def delete(cable: Cable) -> None:
            if request.param == 'queryset':
                Cable.objects.filter(pk=cable.pk).delete()
                return
            with request_by(netbox_user) if request.param == 'request' else nullcontext():
                cable.delete()

        return delete

    def of_ports(self, state: str) -> dict[int, tuple[int | None, str | None]]:
        rows = {event.object_id: getattr(event, state)['row'] for event in recorded(Interface)}
        return {pk: (row['cable_id'], row['cable_end']) for pk, row in rows.items()}

    def test_both_ends_had_the_cable_before_it_was_deleted(self, ports, delete, receiver):
        subscribe(receiver.url(), Interface, kinds=(UPDATED,), include_snapshots=True, conditions=self.CHANGED)
        (cable,) = Cable.objects.all()
        pk = cable.pk
        delete(cable)
        assert self.of_ports('prechange') == {ports[0].pk: (pk, 'A'), ports[1].pk: (pk, 'B')}
        assert {end for end, _side in self.of_ports('snapshot').values()} == {None}
        work()
        arrived = {request.json()['data']['id']: request.json()['snapshots'] for request in receiver.requests}
        assert {port: shown['prechange']['cable'] for port, shown in arrived.items()} == {port.pk: pk for port in ports}

    def test_the_state_that_a_rolled_back_deletion_saw_is_forgotten(self, ports):
        """It saw a description that was never committed."""
        subscribe(NOWHERE, Interface, include_snapshots=True)
        port = Interface.objects.get(pk=ports[0].pk)
        with transaction.atomic():
            port.description = 'saved'
            port.save()  # keeps our notes beyond the savepoint
            forget_events()
            with pytest.raises(Interrupted), transaction.atomic():
                Interface.objects.filter(pk=port.pk).update(description='never')
                self.fail_to_delete(Cable.objects.get())
            port.description = 'last'
            port.save()
        (event,) = recorded(Interface)
        assert event.prechange['row']['description'] == 'saved'

    def test_nothing_is_kept_when_the_deletion_is_over(self, ports):
        subscribe(NOWHERE, Interface, include_snapshots=True)
        with transaction.atomic():
            Cable.objects.get().delete()
            assert scope.current().recorded
            assert scope.current().held == {}

    def fail_to_delete(self, cable: Cable) -> None:
        def fails(**kwargs: Any) -> None:
            assert scope.current().held
            raise Interrupted

        pre_delete.connect(fails, sender=Cable)
        try:
            cable.delete()
        finally:
            pre_delete.disconnect(fails, sender=Cable)


class TestModules:
    """NetBox changes parts by bulk_update() and signals it afterwards."""

    def make(self, owner: Device, **fields: Any) -> Module:
        maker = owner.device_type.manufacturer
        kind, _made = ModuleType.objects.get_or_create(manufacturer=maker, model='card')
        return Module(**{'device': owner, 'module_type': kind, 'module_bay': self.bay(owner)} | fields)

    def bay(self, owner: Device, **fields: Any) -> ModuleBay:
        return ModuleBay.objects.create(device=owner, **{'name': named('bay')['name']} | fields)

    def test_components_that_move_with_a_module_were_on_the_former_device(self):
        old, new = device(), device()
        module = self.make(old)
        module.save()
        inner_bay = self.bay(old, module=module)
        inner = self.make(old, module_bay=inner_bay)
        inner.save()
        ports = [interface(old, module=one) for one in (module, inner)]
        subscribe(NOWHERE, Device, Interface, include_snapshots=True, include_components=True)
        module.device, module.module_bay = new, self.bay(new)
        forget_events()
        module.save()
        moved = [event for event in recorded() if event.kind == UPDATED]
        assert {(event.object_type.model, event.object_id) for event in moved} >= {
            ('interface', ports[0].pk),
            ('interface', ports[1].pk),
            ('modulebay', inner_bay.pk),
        }
        devices = {(event.prechange['row']['device_id'], event.snapshot['row']['device_id']) for event in moved}
        assert devices == {(old.pk, new.pk)}

    def test_modules_below_it_are_kept_where_modules_are_allowed(self, monkeypatch):
        change_settings(monkeypatch, allowed_models=(*DEFAULT_MODELS, 'dcim.module'))
        old, new = device(), device()
        module = self.make(old)
        module.save()
        inner = self.make(old, module_bay=self.bay(old, module=module))
        inner.save()
        subscribe(NOWHERE, Module, include_snapshots=True)
        module.device, module.module_bay = new, self.bay(new)
        with transaction.atomic():
            modules.keep([Module], module, DEFAULT_DB_ALIAS)
            assert json.loads(prechange.find(Module, inner.pk) or '') == stored(Module, inner.pk)
            assert prechange.find(Module, module.pk) is None

    def test_a_component_that_a_module_adopts_was_no_part_of_it_before(self, netbox_user):
        owner = device()
        module = self.make(owner)
        InterfaceTemplate.objects.create(module_type=module.module_type, name='uplink', type='other')
        adopted, other = interface(owner, name='uplink'), interface(owner)
        subscribe(NOWHERE, Interface, include_snapshots=True)
        module._adopt_components = True
        with request_by(netbox_user):
            module.save()
        (event,) = recorded(Interface)
        assert event.object_id == adopted.pk != other.pk
        assert [state['row']['module_id'] for state in (event.prechange, event.snapshot)] == [None, module.pk]

    def test_nothing_is_read_of_a_module_that_stays_where_it_is(self):
        module = self.make(device())
        module.save()
        interface(module.device, module=module)
        subscribe(NOWHERE, Interface, include_snapshots=True)
        module.description = 'changed'
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            module.save()
            assert scope.current().held == {}
        assert not [one for one in queries if 'jsonb_build_object' in one['sql']]


class TestTakenAlong:
    """NetBox moves contents by update(), without a signal."""

    def test_a_rack_takes_its_devices_along(self):
        old, new = site(), site()
        rack = Rack.objects.create(site=old, name='Rack')
        moved = device(site=old, rack=rack)
        subscribe(NOWHERE, Device)
        rack.site = new
        rack.save()
        assert changes() == [(UPDATED, moved.pk)]
        assert recorded()[0].snapshot['row']['site_id'] == new.pk

    def test_a_location_takes_its_racks_and_devices_along(self):
        old, new = site(), site()
        parent = Location.objects.create(site=old, **named('location'))
        child = Location.objects.create(site=old, parent=parent, **named('location'))
        rack = Rack.objects.create(site=old, location=child, name='Rack')
        moved = device(site=old, location=child, rack=rack)
        subscribe(NOWHERE, Device, Rack)
        parent.site = new
        parent.save()
        assert sorted(changes(Device)) == [(UPDATED, moved.pk)]
        assert sorted(changes(Rack)) == [(UPDATED, rack.pk)]
        assert {event.snapshot['row']['site_id'] for event in recorded()} == {new.pk}

    def test_a_location_takes_those_below_it_and_their_power_panels_along(self, make_netbox):
        answer = make_netbox(ALL_MODELS).run('shell', '-c', MOVED)
        assert answer.returncode == 0, answer.stderr
        expected = [('location', 'inner'), ('location', 'outer'), ('powerpanel', 'panel')]
        assert answer.stdout.splitlines()[-1] == str(expected)

    def test_a_cluster_takes_its_machines_along(self):
        old, new = site(), site()
        cluster = Cluster.objects.create(name='Cluster', type=ClusterType.objects.create(**named('type')), scope=old)
        machine = VirtualMachine.objects.create(name='Machine', cluster=cluster)
        subscribe(NOWHERE, VirtualMachine)
        cluster.scope = new
        cluster.save()
        assert changes() == [(UPDATED, machine.pk)]
        assert recorded()[0].snapshot['row']['site_id'] == new.pk

    def test_a_rack_that_is_only_renamed_takes_nothing_along(self):
        rack = Rack.objects.create(site=site(), name='Rack')
        mounted = device(site=rack.site, rack=rack)
        subscribe(NOWHERE, Device)
        rack.name = 'Renamed'
        rack.save()
        assert changes() == []
        rack.site = site()
        rack.save()
        assert changes() == [(UPDATED, mounted.pk)]

    def test_nobody_looks_at_the_machines_of_a_cluster_that_does_not_move(self):
        """Snapshots of thousands of machines would make the user wait."""
        old, new = site(), site()
        cluster = Cluster.objects.create(name='Cluster', type=ClusterType.objects.create(**named('type')), scope=old)
        machines = [VirtualMachine.objects.create(name=f'Machine {n}', cluster=cluster) for n in range(3)]
        subscribe(NOWHERE, VirtualMachine, include_components=True)
        cluster.name = 'Renamed'
        assert self.snapshots_taken_by(cluster.save) == 0
        assert changes() == []

        cluster.scope = None
        assert self.snapshots_taken_by(cluster.save) == 0
        assert changes() == []

        cluster.scope = new
        assert self.snapshots_taken_by(cluster.save) == 1
        assert sorted(changes()) == [(UPDATED, machine.pk) for machine in machines]
        assert {event.prechange['row']['site_id'] for event in recorded()} == {old.pk}

    @pytest.mark.parametrize('where', [Location, Rack])
    def test_objects_in_a_location_that_does_not_move_are_not_read(self, where: type[Location | Rack]):
        old, new = site(), site()
        location = Location.objects.create(site=old, **named('location'))
        rack = Rack.objects.create(site=old, location=location, name='Rack')
        moved = device(site=old, location=location, rack=rack)
        subscribe(NOWHERE, Device, include_snapshots=True)
        place = where.objects.get()
        place.name = 'Renamed'
        assert self.snapshots_taken_by(place.save) == 0
        assert changes() == []

        place.site = new
        if where is Rack:
            place.location = None
        assert self.snapshots_taken_by(place.save) == 1
        assert changes() == [(UPDATED, moved.pk)]
        (event,) = recorded()
        places = [(state['row']['site_id'], state['row']['location_id']) for state in (event.prechange, event.snapshot)]
        assert places == [(old.pk, location.pk), (new.pk, location.pk if where is Location else None)]

    def snapshots_taken_by(self, save: Callable[[], None]) -> int:
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            save()
        return sum('jsonb_build_object' in one['sql'] and 'INSERT' not in one['sql'] for one in queries)

    def test_counters_and_hierarchies_are_no_change_of_their_own(self):
        owner = device(device_type=device_type())
        outer = Prefix.objects.create(prefix='192.0.2.0/24')
        vrf = VRF.objects.create(name='VRF')
        subscribe(NOWHERE, Device, Prefix, VRF)
        interface(owner)
        inner = Prefix.objects.create(prefix='192.0.2.0/25')
        assert changes() == [(CREATED, inner.pk)]
        assert outer.pk != inner.pk and vrf.pk
