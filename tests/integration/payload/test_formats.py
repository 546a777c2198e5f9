"""A receiver cannot tell `netbox` from NetBox's own webhooks."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from circuits.models import Provider
from dcim.models import Device, Rack, RackGroup, Site
from django.apps import apps
from django.db import transaction
from django.db.models import Model, ProtectedError
from extras.models import Tag
from ipam.models import VLAN, VRF, VLANGroup
from netbox.registry import registry
from rq.timeouts import JobTimeoutException
from support.builders import device, device_type, named, site, subscribe
from support.builtin import builtin_rule, request_by
from support.cases import first
from support.engine import work
from support.kinds import ALWAYS
from support.objects import MAKERS, change
from support.objects.surroundings import number
from tenancy.models import Tenant
from virtualization.models import Cluster, ClusterGroup, ClusterType

from devstack.receiver import Received, Receiver
from webhooks.models import Event, Webhook
from webhooks.payload import formats
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')

# docs/payload.md describes these differences.
# The built-in sends the time of its own queueing.
SET_APART = {'timestamp'}
# The built-in omits most counts, and reads derived values at another moment.
DERIVED = re.compile(
    r'.*_count|count_.*|allocated_.*|utilization|children|_depth|connected_endpoints.*|mac_addresses|l2vpn_termination'
    r'|assignments'
)
# The built-in shows a MAC address as code assigned it, ours as saved.
MAC_ADDRESS = re.compile(r'([0-9a-f]{2}:){5}[0-9a-f]{2}', re.IGNORECASE)
# Ours adds headers, as the built-in's HTTP library does.
HEADERS_OF_EITHER = {'host', 'user-agent', 'webhook-id', 'webhook-timestamp', 'webhook-signature'}


def bare_ones() -> list[Model]:
    """Related objects protect the usual samples from deletion."""
    return [
        site(**named('bare-site')),
        Rack.objects.create(name='bare', site=site(**named('bare-site'))),
        RackGroup.objects.create(**named('bare-racks')),
        VRF.objects.create(name='bare'),
        VLAN.objects.create(name='bare', vid=7),
        VLANGroup.objects.create(**named('bare-vlans')),
        Tenant.objects.create(**named('bare-tenant')),
        Provider.objects.create(**named('bare-provider')),
        Cluster.objects.create(name='bare', type=ClusterType.objects.create(**named('bare-type'))),
        ClusterGroup.objects.create(**named('bare-clusters')),
    ]


def live_through(labels: Sequence[str], user: Any, drain: Callable[[], None]) -> None:
    """Both render names of related objects late, so each step is drained."""
    made = []
    for label in labels:
        with request_by(user, '/add/?tab=main&tag=1&tag=2'):
            made.append(MAKERS[label]())
    with request_by(user):
        made += [one for one in bare_ones() if one._meta.label_lower in labels]
    drain()
    for instance in made:
        with request_by(user):
            fresh = type(instance).objects.get(pk=instance.pk)
            fresh.snapshot()
            change(fresh)
            fresh.tags.set([Tag.objects.get_or_create(name='Zwölf', slug='zwolf')[0]])
    drain()
    for instance in made:
        try:
            with request_by(user, method='DELETE'):
                type(instance).objects.filter(pk=instance.pk).first().delete()
        except ProtectedError:
            pass
    drain()


def by_change(requests: list[Received]) -> dict[tuple, list[Received]]:
    """Return {(kind, model, id): requests in the order of arrival}."""
    found = defaultdict(list)
    for request in requests:
        body = request.json()
        found[body['event'], body['object_type'], body['data']['id']].append(request)
    return found


def emptied(ours: Any, theirs: Any) -> Any:
    """The built-in shows relations of a deleted object as gone, and ours still shows them."""
    if theirs in ([], None):
        return theirs
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ours
    return {key: emptied(value, theirs[key]) if key in theirs else value for key, value in ours.items()}


def without(shown: Any) -> Any:
    if isinstance(shown, list):
        return [without(value) for value in shown]
    if isinstance(shown, str) and MAC_ADDRESS.fullmatch(shown):
        return shown.upper()
    if not isinstance(shown, dict):
        return shown
    return {key: without(value) for key, value in shown.items() if not DERIVED.fullmatch(key)}


class TestBesideTheBuiltin:
    @pytest.mark.parametrize('labels', first(1, [[*ALWAYS], [*MAKERS]]), ids=['some models', 'all models'])
    def test_a_receiver_cannot_tell_them_apart(self, labels: list[str], receiver: Receiver, netbox_user, drain):
        samples = [apps.get_model(label) for label in labels]
        with request_by(netbox_user):
            Tag.objects.create(name='before', slug='before')
        builtin_rule(
            *samples, payload_url=receiver.url('/builtin'), secret='hush', additional_headers='X-A: {{ event }}'
        )
        subscribe(
            receiver.url('/ours'),
            *samples,
            payload_format='netbox',
            secret='hush',
            additional_headers='X-A: {{ event }}',
        )
        live_through(labels, netbox_user, drain)
        theirs = by_change(receiver.matching(lambda request: request.path == '/builtin'))
        ours = by_change(receiver.matching(lambda request: request.path == '/ours'))
        assert ours.keys() == theirs.keys()
        assert {(kind, label) for kind, label, _pk in ours} >= {
            (kind, label) for kind in ('created', 'updated', 'deleted') for label in labels
        }
        for key, sent in theirs.items():
            assert len(ours[key]) == len(sent), key
            for one, other in zip(ours[key], sent, strict=True):
                self.assert_alike(one, other)

    def assert_alike(self, ours: Received, theirs: Received) -> None:
        one, other = ours.json(), theirs.json()
        assert list(one) == list(other)
        shown = emptied(one, other) if one['event'] == 'deleted' else one
        assert {type(one[key]) for key in SET_APART} == {type(other[key]) for key in SET_APART}
        for key in one.keys() - SET_APART:
            assert without(shown[key]) == without(other[key]), key
        assert [key for key in one['data'] if key in other['data']] == list(other['data'])
        # Receivers break where a derived value changes its type.
        assert not [
            key
            for key in other['data']
            if key.endswith('_count') and type(one['data'][key]) is not type(other['data'][key])
        ]
        headers, others = self.headers(ours), self.headers(theirs)
        assert headers == others
        assert headers['x-a'] == one['event']

    @staticmethod
    def headers(request: Received) -> dict[str, str]:
        kept = {name.lower(): value for name, value in request.headers if name.lower() not in HEADERS_OF_EITHER}
        # These depend on the body's derived parts.
        return {name: value for name, value in kept.items() if name not in ('content-length', 'x-hook-signature')}

    def test_equal_bodies_have_equal_signatures(self, receiver: Receiver, netbox_user, drain):
        shared = {'secret': 'hush', 'body_template': '{{ event }} {{ data.name }}', 'http_method': 'PATCH'}
        builtin_rule(Site, payload_url=receiver.url('/builtin'), **shared)
        subscribe(receiver.url('/ours'), Site, **shared)
        with request_by(netbox_user):
            site(name='Genève')
        drain()
        one, other = receiver.wait_for(2)
        assert one.body == other.body == 'created Genève'.encode()
        assert one.method == other.method == 'PATCH'
        assert one.header('X-Hook-Signature') == other.header('X-Hook-Signature') is not None

    def test_a_form_content_type_does_not_change_the_body(self, receiver: Receiver, netbox_user, drain):
        """The built-in sends JSON under any content type."""
        form = 'application/x-www-form-urlencoded'
        builtin_rule(VLAN, payload_url=receiver.url('/builtin'), http_content_type=form)
        subscribe(receiver.url('/ours'), VLAN, payload_format='netbox', http_content_type=form)
        with request_by(netbox_user):
            VLAN.objects.create(name='vlan', vid=7)
        drain()
        one, other = receiver.wait_for(2)
        assert list(one.json()) == list(other.json())
        assert one.header('Content-Type') == other.header('Content-Type') == form

    def test_registered_callbacks_add_the_same_context(self, receiver: Receiver, netbox_user, drain, callbacks, caplog):
        def tell(object_type, event_type, data, request):
            return {
                'type': str(object_type.model),
                'event_type': event_type,
                'name': data['name'],
                'user': request.user.email,
                'request': [str(request.id), request.path, request.method, request.GET.getlist('tab')],
                'cookies': list(request.COOKIES),
                'when': datetime(2026, 1, 2, tzinfo=UTC),
                'how_much': Decimal('1.5'),
                'by_number': {1: [{2.5: 'a'}], None: 'b', False: 'c'},
            }

        def fail(*args):
            raise RuntimeError('not me')

        def say_nothing(*args):
            return None

        callbacks += [fail, tell, say_nothing]
        builtin_rule(Site, payload_url=receiver.url('/builtin'))
        subscribe(receiver.url('/ours'), Site, payload_format='netbox')
        with request_by(netbox_user, '/dcim/sites/add/?tab=main'):
            site()
        drain()
        one, other = receiver.wait_for(2)
        assert one.json()['context'] == other.json()['context']
        assert one.json()['context']['user'] == 'admin@example.com'
        assert one.json()['context']['when'] == '2026-01-02T00:00:00Z'
        assert any('callback=' in record.getMessage() and record.exc_info for record in caplog.records)

    def test_the_end_of_the_job_is_no_failure_of_a_callback(self, receiver: Receiver, callbacks):
        def end(*args):
            raise JobTimeoutException

        callbacks.append(end)
        subscribe(receiver.url('/'), Site, payload_format='netbox')
        site()
        with pytest.raises(JobTimeoutException):
            work()
        assert not receiver.requests

    def test_outside_a_request_there_is_no_request_and_no_user(self, receiver: Receiver, callbacks):
        seen = []
        callbacks.append(lambda *args: seen.append(args[3]))
        subscribe(receiver.url('/'), Site, payload_format='netbox')
        site()
        work()
        (request,) = receiver.wait_for(1)
        assert list(request.json()) == ['event', 'timestamp', 'object_type', 'data', 'snapshots']
        assert seen == [None]


@pytest.fixture
def callbacks() -> Iterator[list]:
    before = list(registry['webhook_callbacks'])
    yield registry['webhook_callbacks']
    registry['webhook_callbacks'][:] = before


#
# Other formats
#


def received(receiver: Receiver, count: int = 1) -> list[Received]:
    work()
    return receiver.wait_for(count)


class TestDefault:
    def test_the_default_format_has_its_keys(self, receiver: Receiver, netbox_user):
        subscribe(receiver.url('/'), Site)
        before = datetime.now(UTC).timestamp()
        with request_by(netbox_user):
            place = site(name='Genève')
        (request,) = received(receiver)
        event = Event.objects.get()
        body = request.json()
        assert list(body) == [
            'event', 'signal_received_timestamp', 'model', 'data', 'object_type', 'id', 'sequence', 'username',
            'request_id',
        ]  # fmt: skip
        assert before <= body['signal_received_timestamp'] <= datetime.now(UTC).timestamp()
        assert body['data']['id'] == place.pk
        assert body['data']['name'] == 'Genève'
        assert 'Genève'.encode() in request.body
        assert (body['event'], body['model'], body['object_type']) == ('created', 'Site', 'dcim.site')
        assert (body['id'], body['sequence']) == (str(event.uuid), event.sequence)
        assert (body['username'], body['request_id']) == ('admin', str(event.request_id))

    def test_outside_a_request_nobody_is_named(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site)
        site()
        (request,) = received(receiver)
        assert (request.json()['username'], request.json()['request_id']) == (None, None)

    def test_any_method_may_be_used(self, receiver: Receiver):
        methods = ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')
        for method in methods:
            subscribe(receiver.url(f'/{method}'), Site, http_method=method)
        site()
        requests = received(receiver, len(methods))
        assert {request.path: request.method for request in requests} == {f'/{method}': method for method in methods}
        assert {request.json()['event'] for request in requests} == {'created'}

    def test_a_content_type_of_its_own_is_sent(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, http_content_type='application/vnd.acme+json; charset=utf-8')
        site()
        assert received(receiver)[0].header('Content-Type') == 'application/vnd.acme+json; charset=utf-8'

    def test_a_form_may_be_sent(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, http_content_type='application/x-www-form-urlencoded')
        place = site(name='Genève & more=1')
        (request,) = received(receiver)
        assert request.header('Content-Type') == 'application/x-www-form-urlencoded'
        form = {name: value for name, (value,) in parse_qs(request.body.decode(), strict_parsing=True).items()}
        assert list(form)[:4] == ['event', 'signal_received_timestamp', 'model', 'data']
        assert (form['event'], form['model'], form['username']) == ('created', 'Site', 'null')
        assert json.loads(form['data'])['name'] == place.name
        assert float(form['signal_received_timestamp']) > 0


class TestSnapshots:
    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url('/'), Site, Device, include_snapshots=True)

    def snapshots(self, receiver: Receiver, count: int) -> list[dict]:
        return [request.json()['snapshots'] for request in received(receiver, count)]

    def test_snapshots_are_sent_outside_a_request(self, receiver: Receiver, webhook):
        place = site(name='Before')
        place.name = 'After'
        place.save()
        place.delete()
        created, updated, deleted = self.snapshots(receiver, 3)
        assert created['prechange'] is None
        assert created['postchange']['name'] == 'Before'
        assert (updated['prechange']['name'], updated['postchange']['name']) == ('Before', 'After')
        assert deleted['prechange']['name'] == 'After'
        assert deleted['postchange'] is None

    def test_snapshots_of_a_transaction_span_its_first_and_last_change(self, receiver: Receiver, webhook):
        place = site(name='1')
        work()
        receiver.clear()
        with transaction.atomic():
            for name in '234':
                place.name = name
                place.save()
            place.tags.add(Tag.objects.create(name='Tagged', slug='tagged'))
        (shown,) = self.snapshots(receiver, 1)
        assert (shown['prechange']['name'], shown['postchange']['name']) == ('1', '4')
        assert (shown['prechange']['tags'], shown['postchange']['tags']) == ([], ['Tagged'])

    def test_a_change_of_tags_alone_has_snapshots(self, receiver: Receiver, webhook):
        place = site()
        place.tags.add(Tag.objects.create(name='One', slug='one'))
        place.tags.clear()
        _created, added, cleared = self.snapshots(receiver, 3)
        assert (added['prechange']['tags'], added['postchange']['tags']) == ([], ['One'])
        assert (cleared['prechange']['tags'], cleared['postchange']['tags']) == (['One'], [])

    def test_objects_that_a_deletion_takes_along_have_snapshots(self, receiver: Receiver, webhook):
        machine = device(name='gone', device_type=device_type())
        machine.delete()
        shown = self.snapshots(receiver, 3)
        assert (shown[-1]['prechange']['name'], shown[-1]['postchange']) == ('gone', None)

    def test_differences_beside_the_snapshots_say_what_the_change_did(self, receiver: Receiver, webhook):
        place = site(name='Before')
        place.name = 'After'
        place.save()
        place.delete()
        created, updated, deleted = [request.json() for request in received(receiver, 3)]
        assert created['differences'] == {'added': created['snapshots']['postchange'], 'removed': {}, 'changed': {}}
        updated['differences']['changed'].pop('last_updated', None)
        assert updated['differences'] == {'added': {}, 'removed': {}, 'changed': {'name': ['Before', 'After']}}
        assert deleted['differences'] == {'added': {}, 'removed': deleted['snapshots']['prechange'], 'changed': {}}

    def test_where_it_is_not_known_what_was_before_there_are_no_differences(self, receiver: Receiver, webhook):
        place = site()
        bulk_operation.send(sender=Site, instances=[place], event='updated')
        created, updated = [request.json() for request in received(receiver, 2)]
        assert created['differences'] is not None
        assert (updated['snapshots']['prechange'], updated['differences']) == (None, None)

    @pytest.mark.parametrize(
        ('kind', 'before', 'after'),
        [('updated', None, {'a': 1}), ('updated', {'a': 1}, None), ('created', None, None), ('deleted', None, None)],
    )
    def test_an_unknown_snapshot_makes_no_differences(self, kind: str, before: dict | None, after: dict | None):
        event = Event(kind=kind, snapshots={'prechange': before, 'postchange': after})
        assert formats.differences(event) is None
        event.snapshots = {'prechange': {'a': 1, 'b': 2, 'c': 3}, 'postchange': {'b': 2, 'c': 4, 'd': 5}}
        assert formats.differences(event) == {'added': {'d': 5}, 'removed': {'a': 1}, 'changed': {'c': [3, 4]}}

    def test_differences_are_there_in_each_format(self, receiver: Receiver):
        place = site(name='Before')
        for payload_format in ('default', 'netbox', 'cloudevents'):
            subscribe(receiver.url(f'/{payload_format}'), Site, payload_format=payload_format, include_snapshots=True)
        place.name = 'After'
        place.save()
        for request in received(receiver, 3):
            body = request.json()['data'] if request.path == '/cloudevents' else request.json()
            assert body['differences']['changed']['name'] == ['Before', 'After'], request.path

    def test_a_template_sees_none_that_another_webhook_asks_for(self, receiver: Receiver, webhook):
        subscribe(receiver.url('/template'), Site, body_template='{{ snapshots|tojson }}')
        site()
        by_path = {request.path: request.json() for request in received(receiver, 2)}
        assert by_path['/template'] is None
        assert by_path['/']['snapshots']

    def test_without_the_option_there_are_none(self, receiver: Receiver):
        webhook = subscribe(receiver.url('/'), Site)
        site()
        assert 'snapshots' not in received(receiver)[0].json()
        webhook.include_snapshots = True
        webhook.save()
        site()
        assert 'snapshots' in received(receiver, 2)[1].json()


def test_any_text_arrives_unchanged(receiver: Receiver):
    for payload_format in ('default', 'netbox', 'cloudevents'):
        subscribe(receiver.url(f'/{payload_format}'), Site, payload_format=payload_format)
    texts = ('\x7f', '"\\/', '\U0001f600 \u2028', '</script>', "'; DROP TABLE")
    names = [site(name=f'{text} {number()}').name for text in texts]
    arrived = [request.json()['data']['name'] for request in received(receiver, 3 * len(names))]
    assert sorted(arrived) == sorted(names * 3)
