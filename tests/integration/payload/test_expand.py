import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from dcim.api.serializers import DeviceSerializer
from dcim.models import Device, Interface, Site
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from ipam.models import VLAN, VRF, FHRPGroup, IPAddress
from jsonschema import Draft202012Validator
from support.admin_browser import ADD
from support.builders import DELETED, UPDATED, device, forget_events, interface, recorded, subscribe
from support.engine import deliveries, dispatch_all, pass_retry_waits, work
from support.kinds import some_kinds
from support.log import event
from support.objects import change, make_interface
from support.others_code import at_each
from support.rest import get

from devstack.receiver import Answer, Receiver
from webhooks.engine.dispatch import expansions
from webhooks.engine.dispatch.put_off import PutOff
from webhooks.engine.dispatch.render import Renderer
from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.models import Delivery, Event, Webhook
from webhooks.outbox import deletions, snapshots
from webhooks.payload import json_schema
from webhooks.payload.selection import narrow
from webhooks.rendering import expansion
from webhooks.rendering.keys import may_be_expanded, targets
from webhooks.services import preview, redelivery, trial
from webhooks.services.preview_sources import Draft

API = '/api/plugins/webhooks/'
# Longer than what a page's random tokens contain by chance.
SERIAL = 'serial-of-the-device'


def keys_of(model: type[Model]) -> list[str]:
    return [key for key, target in targets(model).items() if target is Model or may_be_expanded(target)]


def pointed_to(value: Any) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, dict) and {'id', 'url'} <= one.keys()]


def body(receiver: Receiver, *path: str) -> dict[str, Any]:
    (request,) = receiver.matching(lambda request: not path or request.path in path)
    return request.json()


def an_interface(**fields: Any) -> Interface:
    made = interface(device(), **fields)
    forget_events()
    return made


def save(instance: Model) -> None:
    """NetBox saves an interface more than once; a request does so in one transaction."""
    with transaction.atomic():
        instance.save()


@pytest.mark.usefixtures('committed')
class TestWhatIsShown:
    @some_kinds
    def test_an_expanded_object_is_as_its_own_get_shows_it(
        self, api_client, receiver: Receiver, make: Callable[..., Model]
    ):
        instance = make()
        model = type(instance)
        keys = keys_of(model)
        for first in range(0, len(keys), 20):
            subscribe(receiver.url(f'/{first}'), model, kinds=(UPDATED,), expand=keys[first : first + 20])
        change(instance)
        work()
        shown = get(api_client, instance)
        answers: dict[str, Any] = {}
        compared = 0
        for request in receiver.wait_for(-(-len(keys) // 20)):
            data = request.json()['data']
            assert list(data) == list(shown)
            first = int(request.path[1:])
            for key in keys[first : first + 20]:
                for one, brief in zip(pointed_to(data[key]), pointed_to(shown[key]), strict=True):
                    target = expansion.model_at(brief['url'])
                    assert target
                    if may_be_expanded(target):
                        if brief['url'] not in answers:
                            answers[brief['url']] = get(api_client, target._default_manager.get(pk=brief['id']))
                        assert one == answers[brief['url']], key
                        compared += 1
        assert compared

    def test_a_key_with_points_expands_the_objects_behind_and_nothing_else(self, api_client, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url(), Interface, expand=['device.site', 'device.device_type.manufacturer'])
        save(made)
        work()
        shown = body(receiver)['data']
        machine = get(api_client, made.device)
        machine['site'] = get(api_client, made.device.site)
        machine['device_type'] = get(api_client, made.device.device_type)
        machine['device_type']['manufacturer'] = get(api_client, made.device.device_type.manufacturer)
        assert shown == {**get(api_client, made), 'device': machine}

    def test_a_generic_key_leads_to_what_it_points_to(self, api_client, receiver: Receiver):
        made = an_interface()
        address = IPAddress.objects.create(address='192.0.2.7/24', assigned_object=made)
        loose = IPAddress.objects.create(address='192.0.2.8/24')
        subscribe(receiver.url('/a'), IPAddress, expand=['assigned_object.device'])
        address.save()
        loose.save()
        work()
        shown = {request.json()['data']['id']: request.json() for request in receiver.wait_for(2)}
        expected = {**get(api_client, made), 'device': get(api_client, made.device)}
        assert shown[address.pk]['data']['assigned_object'] == expected
        assert (shown[loose.pk]['data']['assigned_object'], 'partial' in shown[loose.pk]) == (None, False)

    def test_it_is_as_of_rendering(self, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url(), Interface, expand=['device'])
        save(made)
        Device.objects.filter(pk=made.device_id).update(serial='late')
        work()
        assert body(receiver)['data']['device']['serial'] == 'late'

    def test_every_format_has_it(self, api_client, receiver: Receiver):
        made = an_interface()
        ways = {
            f'/{payload_format}/{together}': (payload_format, together)
            for payload_format in ('default', 'netbox', 'cloudevents')
            for together in (False, True)
        }
        for path, (payload_format, together) in ways.items():
            subscribe(
                receiver.url(path),
                Interface,
                expand=['device.site'],
                payload_format=payload_format,
                change_set=together,
                include_snapshots=not together,
            )
        save(made)
        work()
        expected = {**get(api_client, made.device), 'site': get(api_client, made.device.site)}
        for path, (payload_format, together) in ways.items():
            shown = body(receiver, path)
            schema = json_schema.payload(Interface, payload_format, change_set=together, expand=['device.site'])
            Draft202012Validator.check_schema(schema)
            assert not list(Draft202012Validator(schema).iter_errors(shown)), path
            if payload_format == 'cloudevents':
                data = shown[0]['data'] if together else shown['data']['object']
            else:
                data = shown['changes'][0]['data'] if together else shown['data']
            assert data['device'] == expected, path

    def test_forms_templates_and_urls_see_it(self, receiver: Receiver):
        made = an_interface()
        subscribe(
            receiver.url('/form'), Interface, expand=['device'], http_content_type='application/x-www-form-urlencoded'
        )
        subscribe(
            receiver.url('/{{ data.device.serial }}'),
            Interface,
            expand=['device'],
            body_template='{{ data.device.serial }}',
        )
        Device.objects.filter(pk=made.device_id).update(serial='S1')
        save(made)
        work()
        by_path = {request.path: request for request in receiver.wait_for(2)}
        assert by_path['/S1'].body == b'S1'
        assert b'%22serial%22%3A+%22S1%22' in by_path['/form'].body

    def test_conditions_see_expanded_objects(self, receiver: Receiver):
        made = an_interface()
        Device.objects.filter(pk=made.device_id).update(serial='S1')
        for path, serial in (('/yes', 'S1'), ('/no', 'S2')):
            subscribe(
                receiver.url(path), Interface, expand=['device'], conditions={'attr': 'device.serial', 'value': serial}
            )
        subscribe(receiver.url('/brief'), Interface, conditions={'attr': 'device.serial', 'value': 'S1'})
        save(made)
        work()
        assert [request.path for request in receiver.requests] == ['/yes']

    def test_each_webhook_is_shown_what_it_asks_for(self, receiver: Receiver):
        made = an_interface()
        for path, expand in (('/none', []), ('/device', ['device']), ('/site', ['device.site'])):
            subscribe(receiver.url(path), Interface, expand=expand)
        save(made)
        work()
        shown = {request.path: request.json()['data']['device'] for request in receiver.wait_for(3)}
        assert 'serial' not in shown['/none']
        assert 'facility' not in shown['/device']['site']
        assert 'facility' in shown['/site']['site']


@pytest.mark.usefixtures('committed')
class TestWhatIsGone:
    def test_a_deleted_object_is_expanded_from_its_own_deletion(self, api_client, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url('/interfaces'), Interface, kinds=(UPDATED,), expand=['device'])
        subscribe(receiver.url('/devices'), Device, kinds=(DELETED,))
        expected = get(api_client, made.device)
        save(made)
        made.device.delete()
        work()
        shown = body(receiver, '/interfaces')
        assert shown['data']['device'] == expected
        assert 'device' not in shown.get('partial', ())

    def test_a_deleted_object_that_nobody_recorded_stays_brief_and_is_named(self, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url('/interfaces'), Interface, kinds=(UPDATED,), expand=['device.site', 'device.rack'])
        save(made)
        made.device.delete()
        work()
        shown = body(receiver, '/interfaces')
        assert shown['data']['device']['id'] == made.device_id
        assert 'device' in shown['partial']

    def test_the_last_deletion_of_an_object_is_the_one_that_is_expanded(self):
        made = device()
        for serial in ('old', 'new'):
            event(made, kind=DELETED, data=json.dumps({'serial': serial}))
        assert expansions.deletions(Device, [made.pk]) == {made.pk: {'serial': 'new'}}

    def test_a_test_of_a_webhook_for_deletions_is_no_deletion(self, receiver: Receiver):
        made = an_interface()
        hook = subscribe(receiver.url('/test'), Device, kinds=(DELETED,))
        trial.send_test(hook)
        Webhook.objects.get(pk=hook.pk).delete()
        subscribe(receiver.url('/'), Interface, expand=['device'], kinds=(UPDATED,))
        save(made)
        made.device.delete()
        work()
        assert body(receiver, '/test')['event'] == DELETED
        shown = body(receiver, '/')
        assert 'serial' not in shown['data']['device']
        assert 'device' in shown['partial']

    @pytest.mark.parametrize('in_time', [True, False])
    def test_no_object_is_expanded_from_a_partial_deletion(self, receiver: Receiver, monkeypatch, in_time: bool):
        if not in_time:
            monkeypatch.setattr(deletions, 'RENDER_SECONDS', 0.0)
            monkeypatch.setattr(deletions, 'RENDER_SECONDS_PER_OBJECT', 0.0)
        made = device()
        pk = made.pk
        subscribe(receiver.url(), Device, kinds=(DELETED,))
        made.delete()
        work()
        assert bool(body(receiver).get('partial')) is not in_time
        assert [*expansions.deletions(Device, [pk])] == [pk] * in_time

    def test_a_deletion_shows_what_it_pointed_to_as_it_was_an_instant_before(self, api_client, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url(), Interface, kinds=(DELETED,), expand=['device'])
        expected = get(api_client, made.device)
        made.delete()
        work()
        assert body(receiver)['data']['device'] == expected
        assert (expected['interface_count'], get(api_client, made.device)['interface_count']) == (1, 0)

    def test_a_deletion_shows_what_goes_along_as_it_was(self, api_client, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url(), Interface, kinds=(DELETED,), expand=['device.site'])
        machine, place = made.device, made.device.site
        expected = {**get(api_client, machine), 'site': get(api_client, place)}
        with transaction.atomic():
            machine.delete()
            place.delete()
        work()
        shown = body(receiver)
        assert shown['data']['device'] == expected
        assert 'partial' not in shown


@pytest.mark.usefixtures('committed')
class TestTheSameBytes:
    def test_a_retry_sends_what_was_sent_first(self, receiver: Receiver):
        receiver.answers('/', Answer(500), Answer(200))
        made = an_interface()
        subscribe(receiver.url('/'), Interface, expand=['device'])
        save(made)
        work()
        Device.objects.filter(pk=made.device_id).update(serial='changed since')
        pass_retry_waits()
        work()
        first, second = (request.body for request in receiver.wait_for(2))
        assert first == second

    def test_a_redelivery_sends_it_again(self, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url('/'), Interface, expand=['device'], kinds=(UPDATED,))
        save(made)
        work()
        Device.objects.filter(pk=made.device_id).delete()
        redelivery.redeliver(Delivery.objects.all())
        work()
        first, second = (request.body for request in receiver.wait_for(2))
        assert first == second

    def test_one_that_could_not_be_rendered_is_expanded_when_it_is_redelivered(self, receiver: Receiver):
        made = an_interface()
        subscribe(receiver.url('/'), Interface, expand=['device'])
        save(made)
        with at_each(Interface, lambda _made: 1 / 0):
            work()
        assert not receiver.requests
        redelivery.redeliver(Delivery.objects.all())
        work()
        assert 'serial' in body(receiver)['data']['device']

    def test_a_test_has_it(self, receiver: Receiver, netbox_user):
        an_interface()
        webhook = subscribe(receiver.url('/'), Interface, expand=['device'])
        trial.send_test(webhook, netbox_user)
        assert 'serial' in body(receiver)['data']['device']

    def test_a_webhook_that_asks_later_gets_it_of_later_changes(self, receiver: Receiver):
        """Otherwise a delivery already shown could gain data hidden from its readers."""
        made = an_interface()
        webhook = subscribe(receiver.url('/'), Interface)
        subscribe(receiver.url('/other'), Interface, expand=['device'])
        save(made)
        dispatch_all()
        webhook.expand = ['device']
        webhook.save()
        work()
        assert 'serial' not in body(receiver, '/')['data']['device']
        assert 'serial' in body(receiver, '/other')['data']['device']


@pytest.fixture
def at_devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Act where a device is rendered, as a plugin's serializer may."""

    def at_devices(act: Callable[[], object]) -> None:
        monkeypatch.setattr(DeviceSerializer, 'get_parent_device', lambda _serializer, _device: act())

    return at_devices


@pytest.mark.usefixtures('committed')
class TestCost:
    def test_it_costs_the_same_however_many_objects_there_are(self):
        machine, other = device(), device()
        keys = ['device.site', 'device.device_type.manufacturer']
        webhook = subscribe('http://127.0.0.1:9/', Interface, expand=keys)

        def queries(count: int) -> int:
            forget_events()
            with transaction.atomic():
                for owner in (machine, other):
                    for _ in range(count):
                        interface(owner)
            with CaptureQueriesContext(connection) as captured:
                list(Renderer().render(recorded(), {event.pk: [webhook] for event in recorded()}, PutOff()))
            return len(captured)

        queries(1)
        few = queries(2)
        assert queries(11) == few

    def test_an_object_that_many_show_is_rendered_once(self, at_devices):
        made = device()
        subscribe('http://127.0.0.1:9/', Interface, expand=['device'])
        with transaction.atomic():
            for _ in range(7):
                interface(made)
        rendered = []
        at_devices(lambda: rendered.append(Device))
        dispatch_all()
        assert rendered == [Device]

    def test_nothing_is_looked_up_where_no_webhook_asks(self, at_devices):
        at_devices(lambda: pytest.fail('looked up'))
        made = device()
        subscribe('http://127.0.0.1:9/', Interface)
        interface(made)
        dispatch_all()
        (one,) = recorded(Interface)
        assert (one.expanded, one.expanded_types, one.data != '') == (None, None, True)
        assert [delivery.expanded for delivery in deliveries()] == [False]

    def test_no_more_than_so_many_objects_are_expanded_for_one_event(self, receiver: Receiver, monkeypatch):
        monkeypatch.setattr(expansion, 'MAX_EXPANDED_OBJECTS', 3)
        made = an_interface(mode='tagged')
        vlans = [VLAN.objects.create(vid=number, name=f'V{number}') for number in range(1, 6)]
        subscribe(receiver.url(), Interface, expand=['tagged_vlans'], kinds=(UPDATED,))
        made.tagged_vlans.set(vlans)
        work()
        shown = body(receiver)
        assert ['prefix_count' in one for one in shown['data']['tagged_vlans']] == [True] * 3 + [False] * 2
        assert shown['partial'] == ['tagged_vlans']

    @pytest.mark.parametrize('asks', [['tagged_vlans', 'vrf'], ['vrf', 'tagged_vlans']])
    def test_a_long_list_takes_no_room_of_others(self, receiver: Receiver, monkeypatch, asks: list[str]):
        monkeypatch.setattr(expansion, 'MAX_EXPANDED_OBJECTS', 3)
        made = an_interface(mode='tagged', vrf=VRF.objects.create(name='red'))
        vlans = [VLAN.objects.create(vid=number, name=f'V{number}') for number in range(1, 6)]
        for key in asks:
            subscribe(receiver.url(f'/{key}'), Interface, expand=[key], kinds=(UPDATED,))
        made.tagged_vlans.set(vlans)
        work()
        assert 'prefix_count' in body(receiver, '/vrf')['data']['vrf']
        assert 'partial' not in body(receiver, '/vrf')
        assert body(receiver, '/tagged_vlans')['partial'] == ['tagged_vlans']


def refuse() -> None:
    raise ValueError('a serializer of a plugin')


@pytest.mark.usefixtures('committed')
class TestWhatFails:
    def test_an_object_that_cannot_be_rendered_stays_brief(self, receiver: Receiver, at_devices):
        made = an_interface()
        subscribe(receiver.url('/a'), Interface, expand=['device'])
        subscribe(receiver.url('/b'), Interface)
        at_devices(refuse)
        save(made)
        work()
        shown = {request.path: request.json() for request in receiver.wait_for(2)}
        assert shown['/a']['partial'] == ['device']
        assert shown['/a']['data'] == shown['/b']['data']

    def test_a_deletion_shows_all_but_what_cannot_be_expanded(self, api_client, receiver: Receiver, at_devices):
        made = make_interface()
        expected = get(api_client, made)
        subscribe(receiver.url('/a'), Interface, expand=['device', 'vrf'], kinds=(DELETED,))
        subscribe(receiver.url('/b'), Interface, kinds=(DELETED,))
        vrf = get(api_client, made.vrf)
        at_devices(refuse)
        made.delete()
        work()
        shown = {request.path: request.json() for request in receiver.wait_for(2)}
        assert shown['/a']['partial'] == ['device']
        assert shown['/a']['data'] == {**expected, 'vrf': vrf}
        assert shown['/b']['data'] == expected
        assert 'partial' not in shown['/b']

    def test_a_deletion_does_not_fail_where_what_it_pointed_to_cannot_be_read(self, receiver: Receiver, monkeypatch):
        """A plugin may keep its table in another database."""
        made = make_interface()
        subscribe(receiver.url(), Interface, expand=['device', 'vrf'], kinds=(DELETED,))
        expression = snapshots.expression
        monkeypatch.setattr(snapshots, 'expression', lambda model: '1 / 0' if model is Device else expression(model))
        made.delete()
        monkeypatch.undo()
        (deletion,) = (event for event in recorded(Interface) if event.kind == DELETED)
        assert [*json.loads(deletion.snapshot['shown']['expanded'])] == [f'/api/ipam/vrfs/{made.vrf.pk}/']

    def test_a_slow_expansion_does_not_hold_up_the_deleted_object(self, receiver, monkeypatch, at_devices):
        clock = [1.0]
        monkeypatch.setattr(deletions, 'time', SimpleNamespace(monotonic=lambda: clock[0]))
        subscribe(receiver.url(), Interface, expand=['device'], kinds=(DELETED,))

        def be_slow() -> None:
            clock[0] += 100

        at_devices(be_slow)
        with transaction.atomic():
            for made in (an_interface(), an_interface()):
                made.delete()
        assert ['shown' in event.snapshot for event in recorded(Interface) if event.kind == DELETED] == [True] * 2
        assert [*deletions._resting] == [Device]

    def test_a_slow_expansion_is_left_out_for_a_while(self, receiver: Receiver, at_devices, caplog):
        made = an_interface()
        subscribe(receiver.url('/'), Interface, expand=['device.site', 'device'])
        at_devices(threading.Event().wait)
        save(made)
        save(made)
        work()
        assert [request.json()['partial'] for request in receiver.wait_for(2)] == [['device']] * 2
        assert caplog.text.count('takes too long to expand') == 1


@pytest.mark.usefixtures('committed')
class TestWhoSeesIt:
    @pytest.fixture
    def delivery(self, receiver: Receiver, grant) -> Delivery:
        for model in (Delivery, Event, Interface):
            grant(model, 'view')
        receiver.answers('/', Answer(200, body=f'thanks for {SERIAL}'.encode()))
        made = an_interface()
        Device.objects.filter(pk=made.device_id).update(serial=SERIAL)
        subscribe(receiver.url('/'), Interface, expand=['device.site'])
        save(made)
        work()
        return Delivery.objects.get()

    def shows(self, delivery: Delivery, clerk_api, clerk_pages) -> list[bool]:
        query = f'{{ webhooks_delivery(id: {delivery.pk}) {{ restricted attempts {{ response_body }} }} }}'
        listed = '{ webhooks_delivery_list { restricted attempts { response_body } } }'
        answers = [
            clerk_api.get(f'{API}deliveries/{delivery.pk}/'),
            clerk_api.get(f'{API}deliveries/'),
            clerk_api.post('/graphql/', {'query': query}, format='json'),
            clerk_api.post('/graphql/', {'query': listed}, format='json'),
            clerk_pages.get(delivery.get_absolute_url()),
        ]
        assert [answer.status_code for answer in answers] == [200] * 5
        return [SERIAL in answer.content.decode() for answer in answers]

    def test_only_who_may_view_every_expanded_model_without_constraint(self, delivery, clerk_api, clerk_pages, grant):
        assert self.shows(delivery, clerk_api, clerk_pages) == [False] * 5
        grant(Device, 'view')
        assert self.shows(delivery, clerk_api, clerk_pages) == [False] * 5
        grant(Site, 'view', name=delivery.event.payload_data['device']['name'])
        assert self.shows(delivery, clerk_api, clerk_pages) == [False] * 5
        grant(Site, 'view')
        assert self.shows(delivery, clerk_api, clerk_pages) == [True] * 5

    def test_a_delivery_is_not_restricted_because_another_webhook_expands_objects(
        self, delivery, receiver: Receiver, clerk_api, clerk_pages
    ):
        receiver.answers('/plain', Answer(200, body=f'thanks for {SERIAL}'.encode()))
        subscribe(receiver.url('/plain'), Interface)
        save(Interface.objects.get())
        work()
        plain = Delivery.objects.filter(expanded=False).get()
        assert plain.event.expanded_types
        assert [clerk_api.get(f'{API}deliveries/{one.pk}/').json()['restricted'] for one in (plain, delivery)] == [
            False,
            True,
        ]

    def test_all_of_a_change_set_count_for_each(self, receiver: Receiver, clerk_api, grant):
        for model in (Delivery, Event, IPAddress):
            grant(model, 'view')
        made = an_interface()
        subscribe(receiver.url('/'), IPAddress, expand=['assigned_object', 'vrf'], change_set=True)
        with transaction.atomic():
            IPAddress.objects.create(address='192.0.2.7/24', assigned_object=made)
            IPAddress.objects.create(address='192.0.2.8/24')
        work()
        first, second = deliveries()
        assert first.lead == second.lead == first.pk

        def restricted() -> list[bool]:
            return [clerk_api.get(f'{API}deliveries/{one.pk}/').json()['restricted'] for one in (first, second)]

        assert restricted() == [True, True]
        grant(Interface, 'view')
        assert restricted() == [False, False]

    def test_it_costs_the_same_for_a_long_list(self, delivery, receiver: Receiver, clerk_api):
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                clerk_api.get(f'{API}deliveries/')
            return len(captured)

        queries()
        few = queries()
        for _ in range(5):
            save(Interface.objects.get())
        work()
        assert Delivery.objects.count() == 6
        assert queries() == few

    def test_a_preview_shows_it_to_the_same_readers(self, delivery, receiver: Receiver, clerk_user, grant):
        webhook = delivery.webhook
        with pytest.raises(preview.DefinitionError, match='may not view'):
            preview.show(Draft.of(webhook), clerk_user)
        grant(Device, 'view')
        grant(Site, 'view')
        fresh = type(clerk_user).objects.get()
        assert SERIAL in preview.show(Draft.of(webhook), fresh).body


@pytest.mark.usefixtures('committed')
class TestWhatIsNeverExpanded:
    @pytest.mark.parametrize(
        'label',
        [
            'users.user', 'users.group', 'users.token', 'users.owner', 'core.datasource', 'extras.webhook',
            'vpn.ikepolicy', 'wireless.wirelesslan', 'wireless.wirelesslink', 'ipam.fhrpgroup',
        ],
    )  # fmt: skip
    def test_people_and_what_holds_secrets(self, label: str):
        assert not may_be_expanded(apps.get_model(label))
        assert may_be_expanded(Device)

    def test_not_even_behind_a_generic_key(self, receiver: Receiver):
        group = FHRPGroup.objects.create(protocol='vrrp2', group_id=7, auth_type='md5', auth_key='hush')
        address = IPAddress.objects.create(address='192.0.2.7/24', assigned_object=group)
        subscribe(receiver.url(), IPAddress, expand=['assigned_object'])
        address.save()
        work()
        shown = body(receiver)
        assert 'hush' not in json.dumps(shown)
        assert shown['data']['assigned_object']['id'] == group.pk
        assert shown['partial'] == ['assigned_object']


class TestRefusals:
    def test_the_api_refuses_by_name(self, api_client, db):
        sent = {
            'name': 'Hook',
            'payload_url': 'http://127.0.0.1:9/',
            'type_update': True,
            'object_types': ['dcim.interface', 'ipam.ipaddress'],
        }
        for keys, reason in (
            (['device', 'nothing'], 'nothing: in the chosen object types, nothing does not point to another object.'),
            (['name'], 'name: in the chosen object types, name does not point'),
            (['device.nothing'], 'device.nothing: in the chosen object types, device.nothing does not point'),
            (['owner'], 'owner: owner cannot be expanded'),
            (['device.owner.group'], 'device.owner.group: device.owner cannot be expanded'),
            (['assigned_object.nothing'], 'assigned_object.nothing: in the chosen object types'),
            (['a.b.c.d'], 'a.b.c.d: no more than 3 levels are allowed'),
            (['device'] * 21, 'No more than 20 keys are allowed'),
            (['.'], 'in the chosen object types'),
        ):
            answer = api_client.post(f'{API}webhooks/', {**sent, 'expand': keys}, format='json')
            assert (answer.status_code, [*answer.json()]) == (400, ['expand']), keys
            assert reason in str(answer.json()['expand'])
        good = ['device.site', 'assigned_object.device', 'link_peers.device', 'tagged_vlans']
        answer = api_client.post(f'{API}webhooks/', {**sent, 'expand': good}, format='json')
        assert (answer.status_code, answer.json().get('expand')) == (201, good)

    def test_other_object_types_are_refused_if_none_has_a_key_that_stays(self, api_client, db):
        webhook = subscribe('http://127.0.0.1:9/', Interface, expand=['device'])
        address = f'{API}webhooks/{webhook.pk}/'
        answer = api_client.patch(address, {'object_types': ['dcim.site']}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['expand'])
        assert api_client.patch(address, {'object_types': ['dcim.rack'], 'expand': ['site']}, format='json').json()[
            'object_types'
        ] == ['dcim.rack']
        assert api_client.patch(address, {'name': 'Other'}, format='json').status_code == 200

    def test_every_form_refuses_by_name(self, admin_pages, db):
        fields = {
            'name': 'Hook', 'payload_url': 'http://127.0.0.1:9/', 'type_update': 'on', 'http_method': 'POST',
            'http_content_type': 'application/json', 'payload_format': 'default', 'max_attempts': 1, 'concurrency': 1,
        }  # fmt: skip
        types = ContentType.objects.get_for_model(Interface).pk
        # The second of NetBox's two boxes holds the chosen types.
        for page, name in (('/plugins/webhooks/webhooks/add/', 'object_types_1'), (ADD, 'object_types')):
            wrong = admin_pages.post(page, {**fields, name: types, 'expand': 'device, nothing'})
            assert 'nothing: in the chosen object types, nothing' in wrong.content.decode()
            right = admin_pages.post(page, {**fields, 'name': page, name: types, 'expand': 'device, device.site'})
            assert right.status_code == 302
        assert [*Webhook.objects.values_list('expand', flat=True)] == [['device', 'device.site']] * 2

    def test_an_import_refuses_by_name_and_takes_a_list(self, db):
        fields = {
            'name': 'Hook',
            'payload_url': 'http://127.0.0.1:9/',
            'type_update': True,
            'object_types': 'dcim.interface',
        }
        wrong = WebhookImportForm({**fields, 'expand': 'nothing'})
        assert not wrong.is_valid()
        assert [*wrong.errors] == ['expand']
        assert WebhookImportForm({**fields, 'expand': 'device,device.site'}).is_valid()
        assert WebhookImportForm({**fields, 'expand': ['device', 'device.site']}).is_valid()
        assert WebhookImportForm(fields).is_valid()


class TestMerging:
    BRIEF = {'id': 1, 'url': '/api/dcim/devices/1/', 'display': 'D'}

    def test_the_same_object_at_two_places_is_as_deep_as_asked_for_at_each(self):
        whole = {**self.BRIEF, 'parent': {'id': 1, 'url': self.BRIEF['url'], 'display': 'D'}, 'n': 1}
        data = {'a': self.BRIEF, 'b': self.BRIEF, 'c': self.BRIEF}
        merged, unknown = expansion.merge(data, expansion.tree_of(['a.parent', 'b']), {self.BRIEF['url']: whole})
        assert merged['a']['parent']['n'] == 1
        assert 'n' not in merged['b']['parent']
        assert (merged['c'], unknown) == (self.BRIEF, [])

    def test_expanding_does_not_change_the_shared_brief_object(self):
        whole = {**self.BRIEF, 'n': 1}
        data = {'a': self.BRIEF}
        expansion.merge(data, expansion.tree_of(['a.x']), {self.BRIEF['url']: whole})
        assert data == {'a': self.BRIEF}

    def test_a_body_without_keys_is_the_text_that_is_stored(self):
        site_type = ContentType.objects.get_for_model(Site)
        event = Event(data='{"b":1, "a":  2}', object_type=site_type)
        assert narrow(Webhook(), [event], ()) == [event]
