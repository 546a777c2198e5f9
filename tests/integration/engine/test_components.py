"""A component's change is also an update of its device, module or virtual machine."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytest
from dcim.models import (
    Cable,
    ConsolePort,
    ConsoleServerPort,
    Device,
    DeviceBay,
    FrontPort,
    Interface,
    InventoryItem,
    MACAddress,
    Module,
    ModuleBay,
    PowerOutlet,
    PowerPort,
    RearPort,
)
from dcim.models.device_components import ComponentModel, ModularComponentModel
from django.apps import apps
from django.db import connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from ipam.models import IPAddress, Service
from jsonschema import Draft202012Validator
from support.builders import CREATED, DELETED, KINDS, UPDATED, device, forget_events, interface, recorded, subscribe
from support.builtin import request_by
from support.engine import deliveries, dispatch_all, dispatch_batch, hold, open_transaction, pass_alive, work
from support.objects.surroundings import make_module
from support.others_code import at_first
from support.rest import get
from virtualization.models import VirtualDisk, VirtualMachine, VMInterface

from devstack.receiver import Receiver
from webhooks.components import COMPONENTS
from webhooks.engine import rescue
from webhooks.engine.dispatch import claim, components
from webhooks.engine.registry import DISPATCH
from webhooks.models import Event, Webhook
from webhooks.models.subscription import COMPONENT
from webhooks.payload import json_schema

pytestmark = pytest.mark.usefixtures('committed')


def watch(receiver: Receiver, *models: type[Model], **fields: Any) -> Webhook:
    defaults = {'include_components': True, 'kinds': (UPDATED,)}
    return subscribe(receiver.url(fields.pop('path', '/')), *(models or (Device,)), **defaults | fields)


def sent(receiver: Receiver, path: str = '/') -> list[dict[str, Any]]:
    work()
    return [request.json() for request in receiver.matching(lambda request: request.path == path)]


def told(receiver: Receiver, path: str = '/') -> list[tuple[int, list[str] | None]]:
    """Return (object id, causes) of each request."""
    return [(body['data']['id'], body.get('caused_by')) for body in sent(receiver, path)]


def a_device() -> Device:
    made = device()
    forget_events()
    return made


def machine() -> VirtualMachine:
    made = VirtualMachine.objects.create(name=f'vm-{uuid.uuid4().hex[:8]}', site=device().site)
    forget_events()
    return made


def rear_port(owner: Device) -> RearPort:
    return RearPort.objects.create(device=owner, name='rear', type='8p8c', positions=1)


OF_DEVICE: dict[str, Callable[[Device], Model]] = {
    'dcim.consoleport': lambda owner: ConsolePort.objects.create(device=owner, name='c'),
    'dcim.consoleserverport': lambda owner: ConsoleServerPort.objects.create(device=owner, name='s'),
    'dcim.powerport': lambda owner: PowerPort.objects.create(device=owner, name='p'),
    'dcim.poweroutlet': lambda owner: PowerOutlet.objects.create(device=owner, name='o'),
    'dcim.interface': interface,
    'dcim.frontport': lambda owner: FrontPort.objects.create(device=owner, name='f', type='8p8c'),
    'dcim.rearport': rear_port,
    'dcim.modulebay': lambda owner: ModuleBay.objects.create(device=owner, name='m'),
    'dcim.inventoryitem': lambda owner: InventoryItem.objects.create(device=owner, name='i'),
    'ipam.service': lambda owner: Service.objects.create(parent=owner, name='ssh', port_mappings=['tcp/22']),
}
OF_MACHINE: dict[str, Callable[[VirtualMachine], Model]] = {
    'virtualization.vminterface': lambda owner: VMInterface.objects.create(virtual_machine=owner, name='eth0'),
    'ipam.service': lambda owner: Service.objects.create(parent=owner, name='ssh', port_mappings=['tcp/22']),
}


class TestWhatIsTold:
    def test_a_component_is_created_changed_and_deleted(self, api_client, receiver: Receiver):
        owners = {label: a_device() for label in OF_DEVICE}
        watch(receiver)
        each = [(owner.pk, [label]) for label, owner in owners.items()]
        made = {}
        for label, make in OF_DEVICE.items():
            with transaction.atomic():
                made[label] = make(owners[label])
        assert sorted(told(receiver)) == sorted(each)
        shown = {request.json()['data']['id']: request.json()['data'] for request in receiver.requests}
        assert shown == {owner.pk: get(api_client, owner) for owner in owners.values()}
        for one in made.values():
            with transaction.atomic():
                type(one).objects.get(pk=one.pk).save()
        assert sorted(told(receiver)) == sorted(each * 2)
        for one in made.values():
            with transaction.atomic():
                type(one).objects.get(pk=one.pk).delete()
        assert sorted(told(receiver)) == sorted(each * 3)
        assert {body['event'] for body in sent(receiver)} == {UPDATED}

    def test_so_it_is_for_a_virtual_machine(self, receiver: Receiver):
        owners = {label: machine() for label in OF_MACHINE}
        watch(receiver, VirtualMachine)
        each = [(owner.pk, [label]) for label, owner in owners.items()]
        made = []
        for label, make in OF_MACHINE.items():
            with transaction.atomic():
                made.append(make(owners[label]))
        assert sorted(told(receiver)) == sorted(each)
        for one in made:
            with transaction.atomic():
                one.delete()
        assert sorted(told(receiver)) == sorted(each * 2)

    def test_a_disk_is_a_component_and_changes_the_machine_itself_as_well(self, receiver: Receiver):
        """NetBox sums up the disks. The machine still has a single update for the transaction."""
        owner = machine()
        watch(receiver, VirtualMachine)
        with transaction.atomic():
            VirtualDisk.objects.create(virtual_machine=owner, name='sda', size=10)
        assert [pk for pk, _cause in told(receiver)] == [owner.pk]
        with transaction.atomic():
            VirtualDisk.objects.get().save()
        assert told(receiver)[1:] == [(owner.pk, ['virtualization.virtualdisk'])]

    def test_a_change_of_an_interfaces_address_is_an_update_of_the_device(self, receiver: Receiver):
        owner = a_device()
        port = interface(owner)
        watch(receiver)
        with transaction.atomic():
            address = IPAddress.objects.create(address='192.0.2.7/24', assigned_object=port)
        with transaction.atomic():
            mac = MACAddress.objects.create(mac_address='02:00:00:00:00:01', assigned_object=port)
        both = [(owner.pk, ['dcim.macaddress']), (owner.pk, ['ipam.ipaddress'])]
        assert sorted(told(receiver)) == both
        for one in (address, mac):
            with transaction.atomic():
                one.delete()
        assert sorted(told(receiver)[2:]) == both
        with transaction.atomic():
            IPAddress.objects.create(address='192.0.2.8/24')
        assert len(told(receiver)) == 4

    def test_the_addresses_that_go_with_an_interface_are_no_changes_of_their_own(self, receiver: Receiver):
        owner = a_device()
        port = interface(owner)
        IPAddress.objects.create(address='192.0.2.7/24', assigned_object=port)
        watch(receiver)
        with transaction.atomic():
            port.delete()
        assert told(receiver) == [(owner.pk, ['dcim.interface'])]

    def test_an_address_that_moves_between_devices_is_a_change_of_both(self, receiver: Receiver):
        first, second = a_device(), a_device()
        ports = [interface(owner) for owner in (first, second)]
        address = IPAddress.objects.create(address='192.0.2.7/24', assigned_object=ports[0])
        watch(receiver)
        address.assigned_object = ports[1]
        with transaction.atomic():
            address.save()
        assert sorted(told(receiver)) == [(first.pk, ['ipam.ipaddress']), (second.pk, ['ipam.ipaddress'])]

    def test_a_module_that_moves_is_a_change_of_both_devices(self, receiver: Receiver):
        first, second = a_device(), a_device()
        module = make_module(first)
        interface(first, module=module)
        bay = ModuleBay.objects.create(device=second, name='bay')
        forget_events()
        watch(receiver)
        module.device, module.module_bay = second, bay
        with transaction.atomic():
            module.save()
        assert sorted(told(receiver)) == [(first.pk, ['dcim.interface']), (second.pk, ['dcim.interface'])]

    def test_cables_at_both_ends(self, receiver: Receiver):
        owners = [a_device(), a_device()]
        ports = [interface(owner) for owner in owners]
        watch(receiver)
        with transaction.atomic():
            cable = Cable(a_terminations=ports[:1], b_terminations=ports[1:])
            cable.save()
        assert {pk for pk, _cause in told(receiver)} == {owner.pk for owner in owners}
        assert all('dcim.cable' in cause for _pk, cause in told(receiver))
        with transaction.atomic():
            cable = Cable.objects.get()
            cable.label = 'blue'
            cable.save()
        assert sorted(told(receiver)[2:]) == sorted((owner.pk, ['dcim.cable']) for owner in owners)
        with transaction.atomic():
            Cable.objects.get().delete()
        gone = told(receiver)[4:]
        assert {pk for pk, _cause in gone} == {owner.pk for owner in owners}
        assert all('dcim.cable' in cause for _pk, cause in gone)

    def test_a_new_bay_updates_its_device(self, receiver: Receiver):
        owner = a_device()
        owner.device_type.subdevice_role = 'parent'
        owner.device_type.save()
        watch(receiver)
        with transaction.atomic():
            DeviceBay.objects.create(device=owner, name='b')
        assert told(receiver) == [(owner.pk, ['dcim.devicebay'])]

    def test_a_component_of_a_module_is_a_change_of_the_module(self, receiver: Receiver, monkeypatch):
        owner = a_device()
        module = make_module(owner)
        port = interface(owner, module=module)
        other = interface(owner)
        forget_events()
        watch(receiver, Module)
        for one in (port, other):
            with transaction.atomic():
                one.save()
        assert told(receiver) == [(module.pk, ['dcim.interface'])]


class TestOnceATransaction:
    def test_many_components_are_one_update(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            port = interface(owner)
            interface(owner)
            ConsolePort.objects.create(device=owner, name='c')
            IPAddress.objects.create(address='192.0.2.7/24', assigned_object=port)
        assert told(receiver) == [(owner.pk, ['dcim.consoleport', 'dcim.interface', 'ipam.ipaddress'])]

    def test_so_it_is_where_they_are_dispatched_in_parts(self, receiver: Receiver, monkeypatch):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            for _ in range(5):
                interface(owner)
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', 2)
        assert told(receiver) == [(owner.pk, ['dcim.interface'])]

    def test_an_owner_that_changes_too_is_sent_once(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            interface(owner)
            Device.objects.get(pk=owner.pk).save()
            interface(owner)
        assert [pk for pk, _cause in told(receiver)] == [owner.pk]

    def test_an_owner_that_is_created_with_its_components_is_sent_once(self, receiver: Receiver):
        watch(receiver, kinds=KINDS)
        with transaction.atomic():
            owner = device()
            interface(owner)
        assert [(body['event'], body['data']['id']) for body in sent(receiver)] == [(CREATED, owner.pk)]

    @pytest.mark.parametrize('wants_interfaces', [False, True])
    def test_an_owner_whose_creation_nobody_asked_for_is_not_sent(
        self, receiver: Receiver, monkeypatch, wants_interfaces
    ):
        watch(receiver)
        if wants_interfaces:
            watch(receiver, Interface, kinds=KINDS, path='/interfaces')
        with transaction.atomic():
            owner = device()
            for _ in range(5):
                interface(owner)
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', 2)
        assert told(receiver) == []
        assert len(sent(receiver, '/interfaces')) == 5 * wants_interfaces
        interface(owner)
        assert told(receiver) == [(owner.pk, ['dcim.interface'])]

    def test_an_owner_that_is_deleted_with_its_components_is_sent_once(self, receiver: Receiver):
        owner = a_device()
        interface(owner)
        watch(receiver, kinds=KINDS)
        pk = owner.pk
        with transaction.atomic():
            owner.delete()
        assert [(body['event'], body['data']['id']) for body in sent(receiver)] == [(DELETED, pk)]
        assert not Event.objects.filter(dispatched_at=None).exists()

    def test_a_component_that_is_rolled_back_or_gone_at_once_is_no_change_of_its_device(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            interface(owner)
            raise ZeroDivisionError
        with transaction.atomic():
            made = interface(owner)
            made.delete()
        assert told(receiver) == []
        with transaction.atomic():
            interface(owner)
        assert told(receiver) == [(owner.pk, ['dcim.interface'])]


class TestWhoGetsIt:
    def test_only_who_asks_and_the_component_goes_to_its_own_webhooks(self, receiver: Receiver):
        owner = a_device()
        watch(receiver, path='/asks')
        watch(receiver, path='/plain', include_components=False)
        watch(receiver, Interface, path='/interfaces', include_components=False)
        with transaction.atomic():
            made = interface(owner)
            made.save()
        assert told(receiver, '/asks') == [(owner.pk, ['dcim.interface'])]
        assert told(receiver, '/plain') == []
        with transaction.atomic():
            made.save()
        assert told(receiver, '/interfaces') == [(made.pk, None)]
        with transaction.atomic():
            owner.save()
        assert told(receiver, '/plain') == [(owner.pk, None)]

    def test_one_webhook_may_want_both(self, receiver: Receiver):
        owner = a_device()
        watch(receiver, Device, Interface)
        with transaction.atomic():
            made = interface(owner)
        made.refresh_from_db()
        with transaction.atomic():
            made.save()
        found = [(body['model'], body['data']['id'], body.get('caused_by')) for body in sent(receiver)]
        assert sorted(found, key=str) == sorted(
            [('Device', owner.pk, ['dcim.interface'])] * 2 + [('Interface', made.pk, None)], key=str
        )

    def test_changes_from_before_the_subscription_are_not_sent(self, receiver: Receiver):
        owner = a_device()
        webhook = watch(receiver, Device, Interface, include_components=False)
        with transaction.atomic():
            made = interface(owner)
            made.save()
        webhook.include_components = True
        webhook.save()
        assert [body['model'] for body in sent(receiver)] == []
        with transaction.atomic():
            made.save()
        assert {body['model'] for body in sent(receiver)} == {'Device', 'Interface'}

    def test_changes_from_before_it_was_switched_off_still_are(self, receiver: Receiver):
        owner = a_device()
        webhook = watch(receiver)
        with transaction.atomic():
            interface(owner)
        webhook.include_components = False
        webhook.save()
        assert told(receiver) == [(owner.pk, ['dcim.interface'])]

    def test_ignored_users_and_conditions_count(self, receiver: Receiver, netbox_user):
        owner = a_device()
        watch(receiver, path='/a', ignore_users=[netbox_user])
        watch(receiver, path='/b', conditions={'attr': 'name', 'value': 'another'})
        watch(receiver, path='/c', conditions={'attr': 'name', 'value': owner.name})
        with request_by(netbox_user), transaction.atomic():
            interface(owner)
        assert [told(receiver, path) for path in ('/a', '/b')] == [[], []]
        (body,) = sent(receiver, '/c')
        assert (body['username'], body['request_id'] is None) == (netbox_user.username, False)

    def test_it_is_off_as_long_as_nobody_asks(self):
        webhook = subscribe('http://127.0.0.1:9/', Device)
        assert not webhook.include_components
        assert not webhook.subscriptions.filter(kind=COMPONENT).exists()
        owner = a_device()
        with transaction.atomic():
            made = ConsolePort.objects.create(device=owner, name='c')

        def written() -> list[str]:
            with CaptureQueriesContext(connection) as captured, transaction.atomic():
                made.save()
            return [one['sql'] for one in captured if 'INTO webhooks' in one['sql']]

        assert not written()
        assert not recorded()
        webhook.include_components = True
        webhook.save()
        assert written()
        assert recorded()

    def test_in_the_transaction_of_the_user_the_owner_is_not_touched(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with CaptureQueriesContext(connection) as captured, transaction.atomic():
            ConsolePort.objects.create(device=owner, name='c')
        asked = [one['sql'] for one in captured]
        assert any('INTO webhooks_event' in sql for sql in asked)
        assert not [sql for sql in asked if '"dcim_device"' in sql and 'FOR NO KEY UPDATE' in sql]
        assert told(receiver) == [(owner.pk, ['dcim.consoleport'])]


class TestBesideAWebhookThatWantsEachSave:
    """That one lets saves be recorded which are no changes to the other."""

    @pytest.fixture
    def owner(self, receiver: Receiver) -> Device:
        made = a_device()
        self.port = ConsolePort.objects.create(device=made, name='c')
        watch(receiver, path='/every')
        watch(receiver, path='/real', only_real_changes=True)
        return made

    def save(self, *objects: Model) -> None:
        with transaction.atomic():
            for one in objects:
                type(one).objects.get(pk=one.pk).save()

    def rename_port(self) -> ConsolePort:
        self.port.name = f'{self.port.name}*'
        return self.port

    @pytest.mark.parametrize('is_last', [False, True], ids=['before its owner', 'after its owner'])
    @pytest.mark.parametrize('most', [1, 200], ids=['one by one', 'together'])
    def test_a_change_of_a_component_is_sent_even_if_its_owner_is_saved_unchanged(
        self, owner, receiver, monkeypatch, is_last, most
    ):
        monkeypatch.setattr(claim, 'EVENTS_PER_BATCH', most)
        monkeypatch.setattr(claim, 'NEWEST_EVENTS_PER_BATCH', 1)
        with transaction.atomic():
            if is_last:
                Device.objects.get(pk=owner.pk).save()
            self.rename_port().save()
            if not is_last:
                Device.objects.get(pk=owner.pk).save()
        assert told(receiver, '/real') == [(owner.pk, None)]
        assert told(receiver, '/every') == [(owner.pk, None)]

    def test_saves_of_both_that_change_nothing_are_not_sent(self, owner, receiver):
        self.save(owner, self.port)
        assert told(receiver, '/real') == []
        assert len(told(receiver, '/every')) == 1

    def test_a_change_of_a_component_is_sent_for_its_own_owner_only(self, owner, receiver):
        other = device()
        work()
        receiver.clear()
        with transaction.atomic():
            Device.objects.get(pk=owner.pk).save()
            ConsolePort.objects.create(device=other, name='c')
        assert told(receiver, '/real') == [(other.pk, ['dcim.consoleport'])]
        assert sorted(pk for pk, _causes in told(receiver, '/every')) == sorted((owner.pk, other.pk))

    def test_among_too_many_changes_to_look_at_any_may_be_of_a_component(self, owner, receiver, monkeypatch):
        monkeypatch.setattr(components, 'MAX_SIBLINGS_READ', 1)
        self.save(owner, self.port)
        assert told(receiver, '/real') == [(owner.pk, None)]

    def test_an_owner_is_sent_if_its_component_is_not_as_expected(self, owner, receiver, monkeypatch, caplog):
        """As where a plugin changes NetBox's models. The transaction goes on."""
        monkeypatch.setattr(components, 'READ_SIBLINGS', 'SELECT id FROM gone')
        self.save(owner)
        assert told(receiver, '/real') == [(owner.pk, None)]
        assert 'the components of 1 changed objects are unknown: all may have changed' in caplog.text


def held(owner: Device) -> AbstractContextManager[None]:
    """Somebody else has an uncommitted change of the owner."""
    return open_transaction(lambda: Device.objects.filter(pk=owner.pk).update(comments='being edited'))


def take_in_hand() -> None:
    hold(*recorded(Device), role=DISPATCH)


class TestALockedOwner:
    def test_it_waits_for_nobody_and_comes_back(self, receiver: Receiver, monkeypatch):
        monkeypatch.setattr(components, 'PUT_OFF', components.PUT_OFF.replace('1 second', '0'))
        owner, other = a_device(), a_device()
        # They are created before the lock, because NetBox counts ports in the device.
        ports = [ConsolePort.objects.create(device=one, name='c') for one in (owner, other)]
        watch(receiver)
        with held(owner):
            for port in ports:
                with transaction.atomic():
                    port.save()
            for _ in range(3):
                dispatch_batch()
            assert [one.object_id for one in deliveries()] == [other.pk]
            (put_off,) = Event.objects.filter(dispatched_at=None)
            assert (put_off.object_id, put_off.lapses) == (owner.pk, 0)
        assert sorted(told(receiver)) == [(one.pk, ['dcim.consoleport']) for one in (owner, other)]
        comments = {body['data']['id']: body['data']['comments'] for body in sent(receiver)}
        assert comments == {owner.pk: 'being edited', other.pk: ''}

    def test_an_event_of_a_locked_device_is_claimed_by_nobody_for_a_moment(self, receiver: Receiver, monkeypatch):
        monkeypatch.setattr(components, 'PUT_OFF', components.PUT_OFF.replace('1 second', '1000 seconds'))
        owner = a_device()
        port = ConsolePort.objects.create(device=owner, name='c')
        watch(receiver)
        with held(owner):
            with transaction.atomic():
                port.save()
            dispatch_all()
            assert Event.objects.filter(dispatched_at=None).count() == 1
        dispatch_all()
        assert Event.objects.filter(dispatched_at=None).count() == 1

    def test_nothing_of_the_owner_waits_for_what_is_put_off(self, receiver: Receiver):
        """It was committed before somebody took the row."""
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            ConsolePort.objects.create(device=owner, name='c')
        assert dispatch_batch()  # the owner's event is made
        with transaction.atomic():
            owner.save()
        with held(owner):
            dispatch_all()
            assert [one.object_id for one in deliveries()] == [owner.pk]
            assert not deliveries()[0].event.caused_by


class TestOrder:
    def test_the_sequence_is_drawn_with_the_snapshot(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            ConsolePort.objects.create(device=owner, name='c')
        dispatch_batch()
        owner.comments = 'later'
        with transaction.atomic():
            owner.save()
        bodies = sent(receiver)
        assert [body.get('caused_by') for body in bodies] == [None, ['dcim.consoleport']]
        assert [body['data']['comments'] for body in bodies] == ['later', 'later']
        assert bodies[0]['sequence'] < bodies[1]['sequence']

    def test_one_whose_earlier_change_is_in_other_hands_goes_after_it(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            ConsolePort.objects.create(device=owner, name='c')
        dispatch_batch()
        with at_first(Webhook, transaction.atomic(owner.save)):
            dispatch_batch()
        assert deliveries() == []
        assert [body.get('caused_by') for body in sent(receiver)] == [None, ['dcim.consoleport']]

    @pytest.mark.parametrize('row', [nullcontext, held], ids=['free', 'held'])
    @pytest.mark.parametrize('go_on', [dispatch_all, take_in_hand], ids=['dispatched', 'in hand'])
    def test_one_that_others_have_by_then_keeps_its_sequence(self, receiver: Receiver, go_on, row):
        """A dispatcher was frozen for so long that it counted as dead."""
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            ConsolePort.objects.create(device=owner, name='c')
        dispatch_batch()
        told = []

        def freeze() -> None:
            pass_alive()
            assert rescue.rescue()
            go_on()
            told.extend(recorded(Device))
            thawed.enter_context(row(owner))

        with ExitStack() as thawed, at_first(Webhook, freeze):
            dispatch_batch()
        assert [one.sequence for one in recorded(Device)] == [one.sequence for one in told]
        assert len(told) == 1

    def test_an_owner_that_is_gone_meanwhile_is_not_sent(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            ConsolePort.objects.create(device=owner, name='c')
        dispatch_batch()
        owner.delete()
        assert told(receiver) == []
        assert not Event.objects.filter(dispatched_at=None).exists()


class TestWhatFails:
    def test_a_component_that_is_not_as_expected_holds_up_nothing(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        watch(receiver, Interface, path='/interfaces', kinds=(CREATED,), include_components=False)
        with transaction.atomic():
            interface(owner)
        no_such_type = "jsonb_set(snapshot, '{row,parent_object_type_id}', '0')"
        with connection.cursor() as cursor:
            cursor.execute(f'UPDATE webhooks_event SET snapshot = {no_such_type}')
        assert len(sent(receiver, '/interfaces')) == 1
        assert not Event.objects.filter(dispatched_at=None).exists()

    def test_a_worker_that_died_in_between_leaves_no_second_update(self, receiver: Receiver):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            interface(owner)
        (event,) = recorded(Interface)
        components.record_owner_updates([event])
        components.record_owner_updates([event])
        assert told(receiver) == [(owner.pk, ['dcim.interface'])]


class TestFormats:
    @pytest.mark.parametrize('payload_format', ['default', 'netbox', 'cloudevents'])
    @pytest.mark.parametrize('snapshots', [False, True], ids=['plain', 'snapshots'])
    def test_every_format_says_it(self, receiver: Receiver, payload_format: str, snapshots: bool):
        owner = a_device()
        watch(receiver, payload_format=payload_format, include_snapshots=snapshots)
        with transaction.atomic():
            interface(owner)
        sent(receiver)
        with transaction.atomic():
            owner.save()
        caused, plain = sent(receiver)
        schema = Draft202012Validator(json_schema.payload(Device, payload_format))
        assert not [*schema.iter_errors(caused), *schema.iter_errors(plain)]
        if payload_format == 'cloudevents':
            assert (caused['causedby'], plain.get('causedby')) == ('dcim.interface', None)
        else:
            assert (caused['caused_by'], plain.get('caused_by')) == (['dcim.interface'], None)
        if snapshots and payload_format == 'default':
            assert caused['differences'] == {'added': {}, 'removed': {}, 'changed': {}}

    def test_the_log_says_it_in_both_apis(self, receiver: Receiver, api_client, clerk_api, grant):
        owner = a_device()
        watch(receiver)
        with transaction.atomic():
            interface(owner)
        sent(receiver)
        event = Event.objects.get(caused_by__isnull=False)
        Event.objects.filter(pk=event.pk).update(partial=['rack'])
        grant(Event, 'view')
        query = {'query': f'{{ webhooks_event(id: {event.pk}) {{ caused_by partial }} }}'}
        expected = {'caused_by': ['dcim.interface'], 'partial': ['rack']}
        for reader, shown in ((api_client, expected), (clerk_api, dict.fromkeys(expected))):
            answer = reader.get(f'/api/plugins/webhooks/events/{event.pk}/').json()
            assert {name: answer[name] for name in expected} == shown
            assert reader.post('/graphql/', query, format='json').json()['data']['webhooks_event'] == shown


def test_it_knows_all_that_netbox_counts_among_the_components_of_devices_and_modules():
    parts = {ModularComponentModel: 'dcim.module', ComponentModel: 'dcim.device'}
    for base, owner in parts.items():
        there = {model._meta.label_lower for model in apps.get_models() if issubclass(model, base)}
        assert there - set(COMPONENTS[owner]) == set()


class TestRefusals:
    def test_including_components_needs_updates(self, api_client):
        sent = {
            'name': 'Hook',
            'payload_url': 'http://127.0.0.1:9/',
            'type_create': True,
            'object_types': ['dcim.device'],
            'include_components': True,
        }
        answer = api_client.post('/api/plugins/webhooks/webhooks/', sent, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['include_components'])
        answer = api_client.post('/api/plugins/webhooks/webhooks/', {**sent, 'type_update': True}, format='json')
        assert (answer.status_code, answer.json()['include_components']) == (201, True)
