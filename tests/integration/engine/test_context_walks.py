"""A change of a config context, or of what assigns it, is also an update of each object that gets other data by it."""

import os
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest
from dcim.models import Device, DeviceRole, Location, Platform, Region, Site, SiteGroup
from django.db import connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from extras.models import ConfigContext, Tag
from jsonschema import Draft202012Validator
from support.builders import CREATED, UPDATED, device, forget_events, named, site, subscribe
from support.builtin import request_by
from support.engine import deliveries, dispatch_all, dispatching, hold, work
from support.rest import get
from support.writers import Writer
from tenancy.models import Tenant, TenantGroup
from users.models import User
from virtualization.models import Cluster, ClusterGroup, ClusterType, VirtualMachine

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.choices import BackfillStateChoices, StatusChoices
from webhooks.engine.registry import DISPATCH
from webhooks.engine.walks import config_contexts as engine
from webhooks.engine.walks import loop as walks
from webhooks.models import ContextDigest, ContextWalk, Event, Subscription, Webhook
from webhooks.payload import json_schema
from webhooks.services import backfill

pytestmark = pytest.mark.usefixtures('committed')

CONTEXT = 'extras.configcontext'


def watch(receiver: Receiver, *models: type[Model], path: str = '/', **fields: Any) -> Webhook:
    """Subscribe a webhook, and let a worker learn what the objects have."""
    defaults = {'include_config_contexts': True, 'kinds': (UPDATED,)}
    webhook = subscribe(receiver.url(path), *(models or (Device, VirtualMachine)), **defaults | fields)
    work()
    return webhook


def context(data: dict[str, Any] | None = None, **fields: Any) -> ConfigContext:
    """Save a context with its limits in one transaction, as forms and the REST API do."""
    limits = {name: value for name, value in fields.items() if isinstance(value, list)}
    with transaction.atomic():
        made = ConfigContext.objects.create(
            data={'ntp': 'old'} if data is None else data,
            name=fields.get('name') or named('context')['name'],
            **{name: value for name, value in fields.items() if name not in limits and name != 'name'},
        )
        for name, value in limits.items():
            getattr(made, name).set(value)
    return made


def change(instance: Model, **values: Any) -> None:
    instance.snapshot()
    for name, value in values.items():
        setattr(instance, name, value)
    with transaction.atomic():
        instance.save()


def bodies(receiver: Receiver, path: str = '/') -> list[dict[str, Any]]:
    work()
    return [request.json() for request in receiver.matching(lambda request: request.path == path)]


def told(receiver: Receiver, path: str = '/') -> list[tuple[int, Any, list[str] | None]]:
    """Return (object id, its config context, causes) of each request, by object id."""
    found = [
        (body['data']['id'], body['data']['config_context'], body.get('caused_by')) for body in bodies(receiver, path)
    ]
    return sorted(found, key=lambda one: one[0])


def machine(**fields: Any) -> VirtualMachine:
    return VirtualMachine.objects.create(**{'name': named('vm')['name'], 'site': site()} | fields)


class TestWhatIsTold:
    def test_a_context_is_created_changed_switched_off_and_deleted(self, api_client, receiver: Receiver):
        owner, elsewhere = device(), device()
        watch(receiver)
        made = context(sites=[owner.site])
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [CONTEXT])]
        assert bodies(receiver)[0]['data'] == get(api_client, owner)
        assert {'event': UPDATED, 'object_type': 'dcim.device'}.items() <= bodies(receiver)[0].items()
        for values, data in [({'data': {'ntp': 'new'}}, {'ntp': 'new'}), ({'is_active': False}, {})]:
            receiver.clear()
            change(made, **values)
            assert told(receiver) == [(owner.pk, data, [CONTEXT])]
        change(made, is_active=True)
        work()
        receiver.clear()
        with transaction.atomic():
            made.delete()
        assert told(receiver) == [(owner.pk, {}, [CONTEXT])]
        assert not [one for one in deliveries() if one.object_id == elsewhere.pk]

    def test_a_weight_decides_between_two_contexts(self, receiver: Receiver):
        owner = device()
        low, _high = context({'ntp': 'low'}, weight=1), context({'ntp': 'high'}, weight=2)
        watch(receiver)
        change(low, weight=3)
        assert told(receiver) == [(owner.pk, {'ntp': 'low'}, [CONTEXT])]

    def test_an_assignment_sends_the_objects_that_come_in_and_go_out(self, receiver: Receiver):
        before, after = device(), device()
        made = context(sites=[before.site])
        watch(receiver)
        with transaction.atomic():
            made.sites.set([after.site])
        assert told(receiver) == [(before.pk, {}, [CONTEXT]), (after.pk, {'ntp': 'old'}, [CONTEXT])]

    @pytest.mark.parametrize('field', ['roles', 'tags', 'platforms', 'tenants', 'device_types', 'locations'])
    def test_each_kind_of_assignment_counts(self, receiver: Receiver, field: str):
        place = site()
        tag = Tag.objects.create(**named('tag'))
        owner = device(
            site=place,
            platform=Platform.objects.create(**named('platform')),
            tenant=Tenant.objects.create(**named('tenant')),
            location=Location.objects.create(**named('hall'), site=place),
        )
        owner.tags.add(tag)
        device()
        made = context(sites=[site()])
        watch(receiver)
        assigned = {
            'roles': owner.role,
            'tags': tag,
            'platforms': owner.platform,
            'tenants': owner.tenant,
            'device_types': owner.device_type,
            'locations': owner.location,
        }
        with transaction.atomic():
            made.sites.clear()
            getattr(made, field).set([assigned[field]])
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [CONTEXT])]

    def test_a_virtual_machine_is_sent_too(self, api_client, receiver: Receiver):
        kind = ClusterType.objects.create(**named('kind'))
        cluster = Cluster.objects.create(name='cluster', type=kind)
        owner = machine(cluster=cluster, site=None)
        machine()
        watch(receiver, VirtualMachine)
        context(cluster_types=[kind])
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [CONTEXT])]
        assert bodies(receiver)[0]['data'] == get(api_client, owner)


class TestWhatAssigns:
    def test_a_site_moves_to_another_region(self, receiver: Receiver):
        region = Region.objects.create(**named('region'))
        owner = device()
        context(regions=[region])
        watch(receiver)
        change(owner.site, region=region)
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, ['dcim.site'])]

    @pytest.mark.parametrize(
        'model, limit, label',
        [
            (Region, 'regions', 'dcim.region'),
            (SiteGroup, 'site_groups', 'dcim.sitegroup'),
            (DeviceRole, 'roles', 'dcim.devicerole'),
            (Platform, 'platforms', 'dcim.platform'),
            (Location, 'locations', 'dcim.location'),
        ],
    )
    def test_a_parent_that_changes_is_a_cause(self, receiver: Receiver, model: type[Model], limit: str, label: str):
        place = site()
        more = {'site': place} if model is Location else {}
        above, below = (model.objects.create(**named('node'), **more) for _ in range(2))
        of_site = {Region: 'region', SiteGroup: 'group'}.get(model)
        if of_site:
            Site.objects.filter(pk=place.pk).update(**{of_site: below})
        of_device = {DeviceRole: 'role', Platform: 'platform', Location: 'location'}.get(model)
        owner = device(site=place, **({of_device: below} if of_device else {}))
        context(**{limit: [above]})
        watch(receiver)
        change(model.objects.get(pk=below.pk), parent=above)
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [label])]

    def test_a_tenant_gets_another_group(self, receiver: Receiver):
        group = TenantGroup.objects.create(**named('group'))
        owner = device(tenant=Tenant.objects.create(**named('tenant')))
        context(tenant_groups=[group])
        watch(receiver)
        change(owner.tenant, group=group)
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, ['tenancy.tenant'])]

    def test_a_cluster_gets_another_group(self, receiver: Receiver):
        group = ClusterGroup.objects.create(**named('group'))
        cluster = Cluster.objects.create(name='cluster', type=ClusterType.objects.create(**named('kind')))
        owner = machine(cluster=cluster, site=None)
        context(cluster_groups=[group])
        watch(receiver)
        change(cluster, group=group)
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, ['virtualization.cluster'])]

    def test_a_region_is_deleted(self, receiver: Receiver):
        region = Region.objects.create(**named('region'))
        owner = device(site=site(region=region))
        context({'ntp': 'old'}, regions=[region, Region.objects.create(**named('region'))])
        watch(receiver)
        with transaction.atomic():
            region.delete()
        ((pk, data, causes),) = told(receiver)
        assert (pk, data) == (owner.pk, {})
        assert causes is not None and 'dcim.site' in causes

    def test_a_site_that_changes_otherwise_starts_no_walk(self, receiver: Receiver):
        owner = device()
        watch(receiver)
        change(owner.site, description='other')
        dispatch_all()
        assert not ContextWalk.objects.exists()
        change(owner.site, group=SiteGroup.objects.create(**named('group')))
        dispatch_all()
        assert ContextWalk.objects.exists()


class TestOnlyIfItDiffers:
    def test_data_that_another_context_overrides_are_not_sent(self, receiver: Receiver):
        device()
        covered, _above = context({'ntp': 'low'}, weight=1), context({'ntp': 'high'}, weight=2)
        watch(receiver)
        change(covered, data={'ntp': 'other'})
        assert not told(receiver)
        change(covered, data={'dns': 'other'})
        assert len(told(receiver)) == 1

    def test_a_description_is_no_change_of_data(self, receiver: Receiver):
        device()
        made = context()
        watch(receiver)
        change(made, description='other')
        assert not told(receiver)

    def test_two_changes_that_cancel_each_other_are_not_sent(self, receiver: Receiver):
        device()
        made = context()
        watch(receiver)
        change(made, data={'ntp': 'new'})
        change(made, data={'ntp': 'old'})
        assert not told(receiver)

    def test_several_causes_at_once_are_one_update(self, receiver: Receiver):
        owner = device()
        region = Region.objects.create(**named('region'))
        watch(receiver)
        context({'a': 1})
        context({'b': 2}, regions=[region])
        change(owner.site, region=region)
        assert told(receiver) == [(owner.pk, {'a': 1, 'b': 2}, ['dcim.site', CONTEXT])]

    def test_a_save_that_is_rolled_back_leaves_nothing(self, receiver: Receiver):
        device()
        made = context()
        watch(receiver)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            change(made, data={'ntp': 'never'})
            raise ZeroDivisionError
        assert not Event.objects.filter(dispatched_at=None).exists()
        assert not told(receiver)


class TestOwnChanges:
    """They are events of the object itself, which tell its data. So nothing follows from them later."""

    @pytest.mark.parametrize('what', ['local data', 'tag', 'role', 'site'])
    def test_a_change_of_the_object_itself_is_sent_once(self, receiver: Receiver, what: str):
        tag = Tag.objects.create(**named('tag'))
        role = DeviceRole.objects.create(**named('role'))
        place = site()
        for of, limit in [('tag', {'tags': [tag]}), ('role', {'roles': [role]}), ('site', {'sites': [place]})]:
            context({'of': of}, **limit)
        owner = device()
        watch(receiver)
        changes: dict[str, Callable[[], object]] = {
            'local data': lambda: change(owner, local_context_data={'of': 'local data'}),
            'tag': lambda: owner.tags.add(tag),
            'role': lambda: change(owner, role=role),
            'site': lambda: change(owner, site=place),
        }
        with transaction.atomic():
            changes[what]()
        expected = [(owner.pk, {'of': what}, None)]
        assert told(receiver) == expected
        context({'another': 1}, sites=[site()])
        assert told(receiver) == expected

    def test_local_data_hide_a_change(self, receiver: Receiver):
        hidden, shown = device(local_context_data={'ntp': 'mine'}), device()
        made = context()
        watch(receiver)
        change(made, data={'ntp': 'new'})
        assert [pk for pk, *_ in told(receiver)] == [shown.pk]
        assert hidden.pk

    def test_a_new_device_is_known_whether_its_creation_is_sent_or_not(self, receiver: Receiver):
        made = context()
        watch(receiver)
        watch(receiver, path='/creations', kinds=(CREATED, UPDATED))
        owner = device()
        assert [one['event'] for one in bodies(receiver, '/creations')] == [CREATED]
        context({'another': 1}, sites=[site()])
        assert (told(receiver), len(told(receiver, '/creations'))) == ([], 1)
        change(made, data={'ntp': 'new'})
        assert told(receiver) == [(owner.pk, {'ntp': 'new'}, [CONTEXT])]
        assert len(told(receiver, '/creations')) == 2

    def test_a_save_without_a_change_hides_nothing_from_a_webhook_that_does_not_hear_of_it(self, receiver: Receiver):
        owner = device()
        made = context()
        watch(receiver, only_real_changes=True)
        watch(receiver, path='/saves')
        with transaction.atomic():
            change(made, data={'ntp': 'new'})
            change(owner)
        assert told(receiver) == [(owner.pk, {'ntp': 'new'}, [CONTEXT])]
        assert len(told(receiver, '/saves')) == 2

    def test_a_save_of_an_ignored_user_hides_nothing(self, receiver: Receiver):
        user = User.objects.create(username='robot')
        owner = device()
        made = context()
        watch(receiver, ignore_users=[user])
        change(made, data={'ntp': 'new'})
        with request_by(user), transaction.atomic():
            change(owner, description='by the robot')
        assert told(receiver) == [(owner.pk, {'ntp': 'new'}, [CONTEXT])]


class TestWho:
    def test_the_event_names_the_author_if_there_is_only_one(self, receiver: Receiver):
        device()
        made, user, other = context(), User.objects.create(username='mila'), User.objects.create(username='jan')
        watch(receiver)
        with request_by(user):
            change(made, data={'ntp': 'new'})
            change(made, weight=7)
        assert [(one['username'], bool(one['request_id'])) for one in bodies(receiver)] == [('mila', True)]
        with request_by(user):
            change(made, data={'ntp': 'newer'})
        with request_by(other):
            change(made, data={'ntp': 'newest'})
        assert [one['username'] for one in bodies(receiver)] == ['mila', None]

    def test_a_context_that_an_ignored_user_changes_is_not_sent(self, receiver: Receiver):
        device()
        made, user = context(), User.objects.create(username='robot')
        watch(receiver, ignore_users=[user])
        watch(receiver, path='/all')
        with request_by(user):
            change(made, data={'ntp': 'new'})
        assert (told(receiver), len(told(receiver, '/all'))) == ([], 1)

    def test_an_ignored_user_hides_no_change_of_another(self, receiver: Receiver):
        owner = device()
        made, robot, jan = context(), User.objects.create(username='robot'), User.objects.create(username='jan')
        watch(receiver, ignore_users=[robot])
        with request_by(robot):
            change(made, data={'ntp': "the robot's"})
        dispatch_all()
        with request_by(jan):
            change(made, data={'ntp': "Jan's"})
        # It compares after both changes, on behalf of the first.
        assert walker().next_slice()
        assert told(receiver) == [(owner.pk, {'ntp': "Jan's"}, [CONTEXT])]

    def test_it_is_off_by_default_and_then_nothing_is_recorded(self, receiver: Receiver):
        device()
        made = context()
        subscribe(receiver.url('/'), Device)
        with CaptureQueriesContext(connection) as queries:
            change(made, data={'ntp': 'new'})
        assert not [one for one in queries if 'webhooks_event' in one['sql'] or 'webhooks_contextwalk' in one['sql']]
        assert not Event.objects.exists()
        assert not told(receiver)

    def test_the_save_pays_for_one_row(self, receiver: Receiver):
        for _ in range(5):
            device()
        made = context()
        watch(receiver)
        forget_events()
        change(made, data={'ntp': 'new'})
        (event,) = Event.objects.all()
        assert (event.object_id, event.object_type.model) == (made.pk, 'configcontext')
        assert len(told(receiver)) == 5

    def test_only_webhooks_that_ask_get_config_contexts(self, receiver: Receiver):
        owner = device()
        made = context()
        watch(receiver)
        subscribe(receiver.url('/other'), Device)
        change(made, data={'ntp': 'new'})
        assert [pk for pk, *_ in told(receiver)] == [owner.pk]
        assert not told(receiver, '/other')

    def test_a_webhook_that_was_disabled_after_the_change_gets_it_all_the_same(self, receiver: Receiver):
        owner = device()
        made = context()
        webhook = watch(receiver)
        change(made, data={'ntp': 'new'})
        webhook.enabled = False
        webhook.save()
        work()
        assert [one.object_id for one in deliveries()] == [owner.pk]


class TestOtherSettings:
    def test_conditions_decide_over_the_payload(self, receiver: Receiver):
        device()
        made = context()
        watch(receiver, conditions={'attr': 'config_context.ntp', 'value': 'good'})
        change(made, data={'ntp': 'bad'})
        assert not told(receiver)
        change(made, data={'ntp': 'good'})
        assert len(told(receiver)) == 1

    def test_a_change_that_conditions_keep_back_is_sent_when_they_are_met(self, receiver: Receiver):
        owner = device()
        made = context({'ntp': 'bad'})
        watch(receiver, conditions={'attr': 'config_context.ntp', 'value': 'good'})
        change(owner, local_context_data={'own': 1})
        work()
        change(made, data={'ntp': 'good'})
        assert told(receiver) == [(owner.pk, {'ntp': 'good', 'own': 1}, [CONTEXT])]

    def test_with_change_sets_each_comes_singly(self, receiver: Receiver):
        owners = [device().pk for _ in range(2)]
        watch(receiver, change_set=True)
        context()
        assert sorted([one['data']['id'] for one in body['changes']] for body in bodies(receiver)) == [
            [pk] for pk in owners
        ]

    def test_a_feed_has_them(self, receiver: Receiver):
        owner = device()
        webhook = watch(receiver)
        webhook.payload_url = ''
        webhook.save()
        context()
        work()
        assert [(one.object_id, bool(one.position)) for one in deliveries(webhook_id=webhook.pk)] == [(owner.pk, True)]

    def test_a_later_change_of_the_object_replaces_what_waits(self, receiver: Receiver):
        owner = device()
        for fields in ({}, {'latest_only': True}):
            webhook = watch(receiver, path=f'/{bool(fields)}', **fields)
            context({f'key{webhook.pk}': 1})
            with dispatching() as dispatcher:
                while dispatcher.step() is not None:
                    pass
            change(owner, description=f'after {webhook.pk}')
            work()
            statuses = [(one.backfill, one.status) for one in deliveries(webhook_id=webhook.pk)]
            assert statuses == [(True, StatusChoices.SUPERSEDED), (False, StatusChoices.DELIVERED)]

    def test_the_payload_fits_its_schema_and_cloudevents_name_the_cause(self, receiver: Receiver):
        device()
        watch(receiver)
        watch(receiver, path='/cloud', payload_format='cloudevents')
        context()
        (body,) = bodies(receiver)
        Draft202012Validator(json_schema.payload(Device, 'default')).validate(body)
        assert bodies(receiver, '/cloud')[0]['causedby'] == CONTEXT

    def test_a_backfill_that_is_paused_or_canceled_takes_none_along(self, receiver: Receiver):
        owner = device()
        webhook = watch(receiver)
        backfill.start(webhook, backfill.choose(webhook))
        backfill.pause(webhook)
        context()
        with dispatching() as dispatcher:
            while dispatcher.step() is not None:
                pass
        backfill.cancel(webhook)
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [CONTEXT])]

    def test_one_that_waits_does_not_count_as_the_backfills_own(self, receiver: Receiver):
        device()
        webhook = watch(receiver, Device)
        context()
        with dispatching() as dispatcher:
            while dispatcher.step() is not None:
                pass
            assert [one.backfill for one in deliveries(StatusChoices.PENDING)] == [True]
            started = backfill.start(webhook, backfill.choose(webhook, query='name=nobody'))
            while dispatcher.step() is not None:
                pass
        started.refresh_from_db()
        assert (started.state, started.count_open()) == (BackfillStateChoices.COMPLETED, 0)

    def test_an_unexpected_error_is_logged_and_the_walk_tried_again(self, receiver: Receiver, monkeypatch, caplog):
        def fail(*_arguments: object) -> None:
            raise ValueError('out of order')

        owner = device()
        watch(receiver)
        context()
        monkeypatch.setattr(walks, 'ERROR_REST_SECONDS', 0.0)
        with monkeypatch.context() as broken, dispatching() as dispatcher:
            broken.setattr(engine, '_pending_causes', fail)
            while dispatcher.step() is not None:
                pass
        assert 'walk=webhooks_contextwalk' in caplog.text
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [CONTEXT])]

    def test_it_starts_no_wait_for_quiet(self, receiver: Receiver):
        owner = device()
        watch(receiver, quiet=1000)
        context()
        assert told(receiver) == [(owner.pk, {'ntp': 'old'}, [CONTEXT])]

    def test_bad_definitions_are_refused_by_name(self, receiver: Receiver, api_client):
        sent = {
            'name': 'contexts', 'payload_url': receiver.url('/'), 'include_config_contexts': True, 'type_update': True,
            'object_types': ['dcim.device'],
        }  # fmt: skip
        for wrong, field in [
            ({'type_update': False, 'type_create': True}, 'include_config_contexts'),
            ({'object_types': ['dcim.site']}, 'include_config_contexts'),
            ({'only_if_changed': ['status']}, 'only_if_changed'),
        ]:
            answer = api_client.post('/api/plugins/webhooks/webhooks/', sent | wrong, format='json')
            assert (answer.status_code, [*answer.json()]) == (400, [field])
        answer = api_client.post('/api/plugins/webhooks/webhooks/', sent, format='json')
        assert (answer.status_code, answer.json()['include_config_contexts']) == (201, True)
        answer = api_client.patch(answer.json()['url'], {'object_types': ['dcim.site']}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['include_config_contexts'])


class TestLearning:
    def test_an_object_without_a_digest_is_sent_at_the_first_change(self, receiver: Receiver):
        """A change before all is known must not get lost. So it tells of more."""
        owners = [device().pk for _ in range(2)]
        subscribe(receiver.url('/'), Device, kinds=(UPDATED,), include_config_contexts=True)
        context(sites=[site()])
        assert [pk for pk, *_ in told(receiver)] == owners
        context(sites=[site()])
        assert len(told(receiver)) == 2

    def test_a_change_during_a_walk_that_learns_is_sent(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 1)
        owners = [device().pk for _ in range(2)]
        made = context()
        subscribe(receiver.url('/'), Device, kinds=(UPDATED,), include_config_contexts=True)
        with dispatching() as dispatcher:
            dispatcher.step()
            assert ContextDigest.objects.count() == 1
            change(made, data={'ntp': 'new'})
        assert [pk for pk, *_ in told(receiver)] == owners

    def test_it_does_not_learn_while_a_change_is_still_to_be_dispatched(self, receiver: Receiver):
        owner = device()
        made = context()
        subscribe(receiver.url('/'), Device, kinds=(UPDATED,), include_config_contexts=True)
        change(made, data={'ntp': 'new'})
        registration = hold(Event.objects.get(object_id=made.pk, object_type__model='configcontext'), role=DISPATCH)
        work()
        assert not ContextDigest.objects.exists()
        registration.end()
        assert told(receiver) == [(owner.pk, {'ntp': 'new'}, [CONTEXT])]

    def test_a_change_while_nobody_asked_is_not_sent_later(self, receiver: Receiver):
        device()
        made = context()
        webhook = watch(receiver)
        for is_on in (False, True):
            webhook.include_config_contexts = is_on
            webhook.save()
            assert Subscription.objects.filter(kind__in=('source', 'derived'), until=None).exists() == is_on
            change(made, data={'ntp': f'while {is_on}'})
            if not is_on:
                assert not told(receiver)
        assert [data for _pk, data, _causes in told(receiver)] == [{'ntp': 'while True'}]

    def test_another_webhook_leaves_what_is_known(self, receiver: Receiver):
        device()
        watch(receiver)
        known = ContextDigest.objects.get()
        subscribe(receiver.url('/'), Device, kinds=(UPDATED,), include_config_contexts=True)
        assert ContextDigest.objects.get() == known

    def test_digests_of_deleted_objects_are_deleted_too(self, receiver: Receiver):
        first, _second = device(), device()
        watch(receiver)
        with transaction.atomic():
            first.delete()
        work()
        assert ContextDigest.objects.count() == 2
        context()
        work()
        assert ContextDigest.objects.count() == 1


class TestCrashes:
    def test_a_walker_that_is_killed_goes_on_where_it_was(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 1)
        owners = [device().pk for _ in range(4)]
        made = context()
        watch(receiver)
        change(made, data={'ntp': 'new'})
        dispatch_all()
        child = _forked_walker()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert ContextWalk.objects.get().looked == 1
        # PostgreSQL may take a moment to end its transaction.
        assert wait_until(lambda: work() and not ContextWalk.objects.exists(), timeout=60)
        assert told(receiver) == [(pk, {'ntp': 'new'}, [CONTEXT]) for pk in owners]

    def test_a_change_that_is_taken_back_during_a_walk_is_sent_to_receivers_that_may_have_it(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 1)
        first, second = device(), device()
        made = context()
        watch(receiver)
        change(made, data={'ntp': 'new'})
        dispatch_all()
        assert walker().next_slice()
        change(made, data={'ntp': 'old'})
        # The second one was not compared meanwhile, so it has what it had.
        assert told(receiver) == [(first.pk, {'ntp': 'old'}, [CONTEXT])]
        assert not [one for one in deliveries() if one.object_id == second.pk]
        assert not ContextWalk.objects.exists()

    def test_a_cause_that_is_noted_twice_is_sent_once(self, receiver: Receiver):
        owner = device()
        watch(receiver)
        context()
        engine.note(Event.objects.filter(dispatched_at=None))
        work()
        assert [pk for pk, *_ in told(receiver)] == [owner.pk]

    def test_an_object_that_is_deleted_meanwhile_is_not_sent(self, receiver: Receiver):
        owner, other = device(), device()
        watch(receiver)
        context()
        dispatch_all()
        while walker().next_slice():
            pass
        with transaction.atomic():
            Device.objects.get(pk=owner.pk).delete()
        assert [pk for pk, *_ in told(receiver)] == [other.pk]

    def test_a_user_who_edits_an_object_does_not_wait_for_a_walk(self, receiver: Receiver):
        owner, other = device(), device()
        made = context(sites=[other.site])
        watch(receiver)
        writer = Writer(lambda: Device.objects.filter(pk=owner.pk).update(description='late')).has_written()
        change(made, data={'ntp': 'new'})
        assert [pk for pk, *_ in told(receiver)] == [other.pk]
        writer.finish()

    def test_a_context_that_cannot_be_merged_stops_nothing(self, receiver: Receiver):
        bad, good = device(), device()
        watch(receiver)
        made = context({'ntp': 'new'})
        broken = context(sites=[bad.site])
        ConfigContext.objects.filter(pk=broken.pk).update(data=[1])
        work()
        assert {one.object_id for one in deliveries()} == {bad.pk, good.pk}
        assert not ContextWalk.objects.exists()
        assert made.pk


def walker() -> walks.Walks:
    return walks.Walks([engine.ConfigContextWalk])


def _forked_walker() -> int:
    """Return the id of a process that has walked one slice, and stands in the middle of the second."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        assert select.select([reading], [], [], 60)[0]
        assert os.read(reading, 1) == b'.'
        os.close(reading)
        return child
    try:
        connection.inc_thread_sharing()
        connection.connection = None
        walk, execute = walker(), engine.sql.execute
        walk.next_slice()

        def stand(statement: str, parameters: Any = None) -> int:
            if statement == engine.RECORD_EVENTS:
                os.write(writing, b'.')
                signal.pause()
            return execute(statement, parameters)

        engine.sql.execute = stand
        walk.next_slice()
    finally:
        os._exit(1)
