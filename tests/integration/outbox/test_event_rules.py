import json
import uuid
from typing import Any

import pytest
from core.events import OBJECT_DELETED
from core.models import Job, ObjectType
from dcim.models import Location, Region, Site
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext_lazy, override
from extras.events import enqueue_event
from extras.models import EventRule
from netbox.context import current_request, events_queue
from netbox.event_rules import get_event_rule_action
from netbox.events import EventType
from netbox.registry import registry
from support.builders import DELETED, device, named, site, subscribe
from support.builtin import builtin_rule, request_by, rule
from support.engine import deliveries, in_thread, pass_retry_waits, work
from support.settings import change_settings
from virtualization.models import Cluster, ClusterType

from devstack.receiver import Received, Receiver
from webhooks import conf
from webhooks.engine.deliver import order
from webhooks.event_types import TranslatedEventType
from webhooks.models import Event, Webhook

pytestmark = pytest.mark.usefixtures('committed')

SEND = 'webhooks.send'
JOBS = ('job_started', 'job_completed')


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    """Without subscriptions it sends for event rules only."""
    return subscribe(receiver.url('/'), secret='hush')


def received(receiver: Receiver, count: int = 1) -> list[Received]:
    work()
    return receiver.wait_for(count)


def sending_rule(webhook: Webhook, *models: type, **fields: Any) -> EventRule:
    return rule(webhook, *models, action_type=SEND, **fields)


def run_job(user: Any, data: Any = None, model: type = Site, **fields: Any) -> Job:
    object_type = ObjectType.objects.get_for_model(model)
    job = Job.objects.create(
        object_type=object_type, name='nightly', user=user, job_id=uuid.uuid4(), data=data, **fields
    )
    job.start()
    job.terminate()
    return job


class TestObjects:
    def test_a_user_who_changes_an_object_waits_for_no_worker(self, receiver: Receiver, webhook, netbox_user):
        """A frozen worker may hold the webhook's lane."""
        sending_rule(webhook, Site)

        def change() -> None:
            with request_by(netbox_user):
                site()

        with transaction.atomic():
            order.lock_lanes([webhook.pk])
            in_thread(change).join(30)
            assert Event.objects.count() == 1
        received(receiver)

    def test_a_change_is_sent_with_all_that_a_subscription_sends(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        with request_by(netbox_user):
            place = site(name='Bern')
        (request,) = received(receiver)
        body, event = request.json(), Event.objects.get()
        assert (body['event'], body['model'], body['object_type']) == ('created', 'Site', 'dcim.site')
        assert (body['data']['id'], body['data']['name']) == (place.pk, 'Bern')
        assert (body['username'], body['request_id']) == ('admin', str(event.request_id))
        assert (body['id'], body['sequence']) == (str(event.uuid), event.sequence)
        assert request.header('webhook-signature').startswith('v1,')
        assert event.object_repr == 'Bern'

    def test_nothing_is_recorded_while_webhooks_are_off(self, receiver: Receiver, webhook, netbox_user, monkeypatch):
        sending_rule(webhook, Site)
        with monkeypatch.context() as off:
            change_settings(off, enabled=False)
            with request_by(netbox_user):
                site()
            assert not Event.objects.exists()
        with request_by(netbox_user):
            site(name='Bern')
        (request,) = received(receiver)
        assert request.json()['data']['name'] == 'Bern'

    def test_a_model_is_sent_only_if_it_is_allowed(self, receiver: Receiver, webhook, netbox_user, monkeypatch):
        sending_rule(webhook, Location)
        with request_by(netbox_user):
            Location.objects.create(name='Attic', slug='attic', site=site())
        work()
        assert not receiver.requests
        change_settings(monkeypatch, allowed_models=(*conf.get().allowed_models, 'dcim.location'))
        with request_by(netbox_user):
            Location.objects.create(name='Cellar', slug='cellar', site=site())
        (request,) = received(receiver)
        assert (request.json()['model'], request.json()['data']['name']) == ('Location', 'Cellar')

    def test_all_kinds_of_changes_are_sent(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        with request_by(netbox_user):
            place = site()
        with request_by(netbox_user):
            place.snapshot()
            place.save()
        with request_by(netbox_user):
            place.delete()
        assert [request.json()['event'] for request in received(receiver, 3)] == ['created', 'updated', 'deleted']

    def test_in_netbox_format_it_is_what_the_builtin_sends(self, receiver: Receiver, netbox_user, drain):
        sending_rule(subscribe(receiver.url('/ours'), payload_format='netbox'), Site, action_data={'team': 'core'})
        builtin_rule(Site, payload_url=receiver.url('/builtin'), rule_action_data={'team': 'core'})
        with request_by(netbox_user):
            site()
        drain()
        one, other = (request.json() for request in receiver.wait_for(2))
        assert one.pop('timestamp') and other.pop('timestamp')
        assert one == other
        assert one['data']['team'] == 'core'

    def test_action_data_is_merged_into_the_object(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site, action_data={'team': 'core', 'name': 'not this'})
        with request_by(netbox_user):
            site(name='Bern')
        (request,) = received(receiver)
        assert (request.json()['data']['team'], request.json()['data']['name']) == ('core', 'Bern')

    @pytest.mark.parametrize(
        'choice',
        [
            {'conditions': {'attr': 'status.value', 'value': 'planned'}},
            {'filters': {'dcim.site': 'status=planned'}},
            {'kinds': (DELETED,)},
            {'quiet': 1000},
        ],
        ids=lambda choice: next(iter(choice)),
    )
    def test_the_rule_alone_chooses_what_is_sent(self, receiver: Receiver, netbox_user, choice: dict[str, Any]):
        webhook = subscribe(receiver.url('/'), ignore_users=[netbox_user], **choice)
        sending_rule(webhook, Site)
        with request_by(netbox_user):
            site(status='active')
        received(receiver)

    def test_conditions_of_the_rule_are_kept(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site, conditions={'attr': 'status.value', 'value': 'active'})
        with request_by(netbox_user):
            site(status='planned')
        with request_by(netbox_user):
            place = site(status='active')
        (request,) = received(receiver)
        assert request.json()['data']['id'] == place.pk

    def test_outside_a_request_netbox_calls_no_rule(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        site()
        work()
        assert not Event.objects.exists()
        with request_by(netbox_user):
            site()
        assert Event.objects.count() == 1

    def test_beside_a_subscription_each_sends(self, receiver: Receiver, netbox_user):
        sending_rule(subscribe(receiver.url('/'), Site), Site)
        with request_by(netbox_user):
            site()
        first, second = received(receiver, 2)
        assert first.header('webhook-id') != second.header('webhook-id')

    def test_an_earlier_change_shows_the_counts_of_the_deletion_even_if_a_rule_sends_that_too(
        self, receiver: Receiver, netbox_user
    ):
        """NetBox gives rules a deleted object without its counts."""
        subscribe(receiver.url('/'), Cluster)
        sending_rule(subscribe(receiver.url('/rule')), Cluster, kinds=(OBJECT_DELETED,))
        with request_by(netbox_user):
            cluster = Cluster.objects.create(name='c', type=ClusterType.objects.create(**named('type')))
            device(cluster=cluster)
        with request_by(netbox_user):
            cluster.delete()
        created, *_deleted = (request.json() for request in received(receiver, 3) if request.path == '/')
        assert (created['event'], created['data']['device_count']) == ('created', 1)

    def test_related_objects_stay_brief_and_count_as_known(self, receiver: Receiver, netbox_user):
        sending_rule(subscribe(receiver.url('/'), expand=['region']), Site)
        region = Region.objects.create(**named('region'))
        with request_by(netbox_user):
            site(region=region)
        (request,) = received(receiver)
        assert request.json()['data']['region']['id'] == region.pk
        assert 'created' not in request.json()['data']['region']
        assert 'partial' not in request.json()

    def test_snapshots_are_sent_where_asked_for(self, receiver: Receiver, netbox_user):
        sending_rule(subscribe(receiver.url('/'), include_snapshots=True), Site)
        with request_by(netbox_user):
            site(name='Bern')
        (request,) = received(receiver)
        assert request.json()['snapshots']['prechange'] is None
        assert request.json()['snapshots']['postchange']['name'] == 'Bern'


class TestJobs:
    def test_start_and_end_of_a_job_are_sent(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site, kinds=JOBS)
        run_job(netbox_user, {'output': 'Zürich', 'log': [1, 2]})
        started, ended = received(receiver, 2)
        assert [request.json()['event'] for request in (started, ended)] == ['job_started', 'job_ended']
        assert ended.json()['data'] == {'output': 'Zürich', 'log': [1, 2]}
        assert ended.json()['object_type'] == 'dcim.site'
        assert (ended.json()['username'], ended.json()['request_id']) == ('admin', None)

    @pytest.mark.parametrize('data', [None, [1, 2], 'text', 5])
    def test_the_job_is_the_data_where_there_is_no_object(self, receiver: Receiver, webhook, netbox_user, data: Any):
        sending_rule(webhook, Site, kinds=JOBS)
        run_job(netbox_user, data)
        assert [request.json()['data'] for request in received(receiver, 2)] == [{}, {}]

    @pytest.mark.parametrize('payload_format', ['default', 'netbox', 'cloudevents'])
    def test_jobs_are_sent_in_all_formats(self, receiver: Receiver, netbox_user, payload_format: str):
        sending_rule(subscribe(receiver.url('/'), payload_format=payload_format), Site, kinds=JOBS)
        run_job(netbox_user, {'output': 'x'})
        assert all(request.json()['data'] == {'output': 'x'} for request in received(receiver, 2))

    def test_a_template_sees_the_job(self, receiver: Receiver, netbox_user):
        template = '{{ event }}: {{ data.output }}'
        sending_rule(subscribe(receiver.url('/'), body_template=template), Site, kinds=JOBS)
        run_job(netbox_user, {'output': 'x'})
        assert [request.body for request in received(receiver, 2)] == [b'job_started: x', b'job_ended: x']

    def test_jobs_of_one_object_wait_for_each_other_alone(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site, kinds=JOBS)
        receiver.answers('/', 500, 200)
        one, other = site(), site()
        run_job(netbox_user, object_id=one.pk)
        work()
        # An `id` in the data belongs to some other object.
        run_job(netbox_user, {'id': one.pk}, object_id=other.pk)
        work()
        assert [(sent.object_id, sent.status) for sent in deliveries()] == [
            (one.pk, 'pending'), (one.pk, 'pending'), (other.pk, 'delivered'), (other.pk, 'delivered'),
        ]  # fmt: skip

    def test_jobs_without_an_object_do_not_wait(self, receiver: Receiver, netbox_user):
        sending_rule(subscribe(receiver.url('/'), payload_format='cloudevents'), Site, kinds=JOBS)
        jobs = [run_job(netbox_user, {}) for _ in range(2)]
        assert [sent.object_id for sent in deliveries()] == [-job.pk for job in jobs for _kind in JOBS]
        assert all('subject' not in request.json() for request in received(receiver, 4))

    def test_a_long_name_of_a_job_is_cut_in_the_log_only(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site, kinds=JOBS)
        run_job(netbox_user, {'display': 'x' * 300})
        assert [request.json()['data']['display'] for request in received(receiver, 2)] == ['x' * 300] * 2
        assert {event.object_repr for event in Event.objects.all()} == {'x' * 200}

    @pytest.mark.parametrize(('model', 'data'), [(Site, {'output': 'x'}), (Location, None)])
    def test_deliveries_without_an_object_or_a_known_job_do_not_wait_for_each_other(self, webhook, model, data):
        """The latest job has other data, or another object type."""
        kind = ObjectType.objects.get_for_model(model)
        saved = Job.objects.create(object_type=kind, object_id=5, name='x', job_id=uuid.uuid4(), data=data)
        context = {'object_type': ObjectType.objects.get_for_model(Site), 'event_type': 'job_completed', 'data': None}
        for _ in range(2):
            get_event_rule_action(SEND).enqueue(
                event_rule=None, event_context=context, action_object=webhook, action_data={}
            )
        first, second = [sent.object_id for sent in deliveries()]
        assert second < first < 0
        assert -saved.pk not in (first, second)


class TestOthersTypes:
    """Plugins register event types of their own."""

    NAME = 'inventory_' * 6

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch):
        monkeypatch.setitem(registry['event_types'], self.NAME, EventType(self.NAME, 'Inventory compared'))

    def happen(self, user: Any) -> Site:
        place = site(name='Bern')
        with request_by(user):
            enqueue_event(events_queue.get(), place, current_request.get(), self.NAME)
        return place

    @pytest.mark.parametrize(
        ('payload_format', 'key', 'told'),
        [('default', 'event', NAME), ('netbox', 'event', NAME), ('cloudevents', 'type', f'netbox.dcim.site.{NAME}')],
    )
    def test_a_long_name_is_sent_in_full(self, receiver: Receiver, netbox_user, payload_format, key, told):
        webhook = subscribe(receiver.url('/'), payload_format=payload_format)
        sending_rule(webhook, Site, kinds=(self.NAME,))
        self.happen(netbox_user)
        (request,) = received(receiver)
        assert request.json()[key] == told

    def test_the_log_shows_the_name(self, receiver: Receiver, webhook, netbox_user, api_client, admin_pages):
        sending_rule(webhook, Site, kinds=(self.NAME,))
        receiver.answers('/', 400)
        place = self.happen(netbox_user)
        work()
        (delivery,) = deliveries()
        for kind, pk in (('events', delivery.event_id), ('deliveries', delivery.pk)):
            assert self.NAME in api_client.get(f'/api/plugins/webhooks/{kind}/{pk}/').content.decode()
            for page in (f'{kind}/', f'{kind}/{pk}/'):
                assert self.NAME in admin_pages.get(f'/plugins/webhooks/{page}').content.decode()
        assert self.NAME in admin_pages.get(f'/dcim/sites/{place.pk}/webhooks/').content.decode()
        asked = {'query': '{ webhooks_event_list { kind } }'}
        answer = api_client.post('/graphql/', asked, format='json').json()
        assert answer['data']['webhooks_event_list'] == [{'kind': self.NAME}]


class TestGained:
    """NetBox's own action lacks these."""

    def test_rules_gain_retries(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site, kinds=JOBS)
        receiver.answers('/', 500, 200)
        run_job(netbox_user)
        work()
        pass_retry_waits()
        work()
        told = [request.header('webhook-id') for request in receiver.wait_for(3)]
        assert len(set(told)) == 2
        assert [one.status for one in deliveries()] == ['delivered', 'delivered']

    def test_rules_gain_a_log(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        receiver.answers('/', 500)
        with request_by(netbox_user):
            place = site()
        work()
        (delivery,) = deliveries()
        assert (delivery.webhook, delivery.object_id, delivery.status) == (webhook, place.pk, 'pending')
        assert delivery.attempts.get().response_status == 500
        assert delivery.event.payload_data['id'] == place.pk

    def test_rules_gain_order(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        receiver.answers('/', 500, 200)
        with request_by(netbox_user):
            place = site()
        work()
        with request_by(netbox_user):
            place.snapshot()
            place.save()
        work()
        assert len(receiver.requests) == 1
        pass_retry_waits(attempt_count__gt=0)
        assert [request.json()['event'] for request in received(receiver, 3)] == ['created', 'created', 'updated']


class TestNotSent:
    def test_a_disabled_webhook_sends_nothing(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        Webhook.objects.update(enabled=False)
        with request_by(netbox_user):
            site()
        assert not Event.objects.exists()
        Webhook.objects.update(enabled=True)
        with request_by(netbox_user):
            site()
        assert Event.objects.count() == 1

    def test_a_disabled_rule_sends_nothing(self, receiver: Receiver, webhook, netbox_user):
        disabled = sending_rule(webhook, Site, enabled=False)
        with request_by(netbox_user):
            site()
        assert not Event.objects.exists()
        disabled.enabled = True
        disabled.save()
        with request_by(netbox_user):
            site()
        assert Event.objects.count() == 1

    def test_a_deleted_webhook_sends_nothing(self, receiver: Receiver, webhook, netbox_user):
        """Its rules go with it, as with NetBox's own webhooks."""
        sending_rule(webhook, Site)
        webhook.delete()
        with request_by(netbox_user):
            place = site()
        assert Site.objects.filter(pk=place.pk).exists()
        assert not Event.objects.exists()
        assert not EventRule.objects.exists()

    def test_a_paused_webhook_waits(self, receiver: Receiver, webhook, netbox_user):
        sending_rule(webhook, Site)
        Webhook.objects.update(paused=True)
        with request_by(netbox_user):
            site()
        work()
        assert receiver.requests == []
        Webhook.objects.update(paused=False)
        assert received(receiver)


class TestRule:
    def test_the_api_makes_a_rule(self, receiver: Receiver, webhook, api_client):
        fields = {
            'name': 'Tell the CMDB',
            'object_types': ['dcim.site'],
            'event_types': ['object_created'],
            'action_type': SEND,
            'action_object_type': 'webhooks.webhook',
            'action_object_id': webhook.pk,
        }
        answer = api_client.post('/api/extras/event-rules/', fields, format='json')
        assert answer.status_code == 201, answer.content
        assert answer.json()['action_type'] == {'value': SEND, 'label': 'Send with Webhooks'}
        assert api_client.post('/api/dcim/sites/', {'name': 'Bern', 'slug': 'bern'}).status_code == 201
        (request,) = received(receiver)
        assert request.json()['data']['name'] == 'Bern'
        assert 'hush' not in json.dumps(answer.json())

    def test_it_needs_one_of_our_webhooks(self, webhook):
        without = EventRule(name='a', event_types=['object_created'], action_type=SEND)
        with pytest.raises(ValidationError) as caught:
            without.clean()
        assert 'action_object_id' in caught.value.message_dict
        another = EventRule(name='b', event_types=['object_created'], action_type=SEND, action_object=site())
        with pytest.raises(ValidationError) as caught:
            another.clean()
        assert 'action_object_id' in caught.value.message_dict

    def test_an_import_names_the_webhook(self, webhook):
        action = get_event_rule_action(SEND)
        assert action.resolve_import_object(webhook.name) == webhook
        with pytest.raises(Webhook.DoesNotExist):
            action.resolve_import_object('another')


class TestPages:
    ADDRESS = '/extras/event-rules/'

    @pytest.mark.parametrize('page', ['', 'add/', 'import/', '{}/', '{}/edit/', '{}/delete/', '{}/changelog/'])
    def test_each_page_answers(self, webhook, admin_pages, page: str):
        made = sending_rule(webhook, Site)
        assert admin_pages.get(f'{self.ADDRESS}{page.format(made.pk)}').status_code == 200

    def test_our_types_are_shown_beside_those_of_netbox(self, webhook, admin_pages):
        made = sending_rule(webhook, Site, kinds=('object_created', 'webhook_suspended'))
        shown = admin_pages.get(f'{self.ADDRESS}{made.pk}/').content.decode()
        for text in ('Object created', 'Webhook suspended', 'Webhook disabled', 'Delivery failed'):
            assert text in shown

    def test_a_text_is_translated_when_it_is_shown(self):
        named_as_netbox_does = TranslatedEventType('device', gettext_lazy('Device'))
        with override('de'):
            assert str(named_as_netbox_does) == 'Gerät'
        with override('en'):
            assert str(named_as_netbox_does) == 'Device'
