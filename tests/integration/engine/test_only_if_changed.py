"""`only_if_changed`: an update is sent only if one of these keys is new."""

import pytest
from dcim.models import Device, Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from extras.models import CustomField, Tag
from support.admin_browser import ADD
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    device,
    forget_events,
    interface,
    named,
    site,
    subscribe,
)
from support.engine import deliveries, dispatch_all, work
from tenancy.models import Tenant

from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.models import Event, Webhook
from webhooks.services import backfill

API = '/api/plugins/webhooks/webhooks/'

pytestmark = pytest.mark.usefixtures('committed')


def watch(*keys: str, model: type[Model] = Site, **fields: object) -> Webhook:
    return subscribe(NOWHERE, model, only_if_changed=list(keys), **fields)


def edit(instance: Model, **fields: object) -> None:
    with transaction.atomic():
        for name, value in fields.items():
            setattr(instance, name, value)
        instance.save()


def kinds() -> list[str]:
    dispatch_all()
    return [one.event.kind for one in deliveries()]


class TestKeys:
    def test_only_an_update_of_one_of_its_keys_is_sent(self):
        watch('status', 'facility')
        place = site(status='active')
        edit(place, description='new')
        edit(place, status='planned')
        edit(place, facility='B1')
        edit(place)
        assert kinds() == [CREATED, UPDATED, UPDATED]

    def test_deletions_are_sent_all_the_same(self):
        watch('status')
        site().delete()
        assert kinds() == [CREATED, DELETED]

    def test_a_key_of_a_related_object_is_compared_by_its_value(self):
        watch('tenant.description')
        one, same, other = (Tenant.objects.create(**named('t'), description=text) for text in 'aab')
        place = site(tenant=one)
        forget_events()
        edit(place, tenant=same)
        assert kinds() == []
        edit(place, tenant=other)
        assert kinds() == [UPDATED]

    def test_a_tag_and_a_custom_field_are_keys(self):
        CustomField.objects.create(name='owner', type='text').object_types.set(
            [ContentType.objects.get_for_model(Site)]
        )
        watch('tags.slug', 'custom_fields.owner')
        place = site()
        forget_events()
        place.tags.add(Tag.objects.create(**named('tag')))
        edit(place, description='new')
        edit(place, custom_field_data={'owner': 'ada'})
        assert kinds() == [UPDATED, UPDATED]

    @pytest.mark.parametrize(
        ('key', 'before', 'other', 'after'),
        [
            (
                'sites.hosts.ip',
                {'sites': [{'hosts': [{'ip': 1}]}]},
                {'sites': [{'hosts': [{'ip': 1, 'mac': 'a'}]}]},
                {'sites': [{'hosts': [{'ip': 2, 'mac': 'a'}]}]},
            ),
            ('grid.x', {'grid': [[{'x': 1}]]}, {'grid': [[{'x': 1, 'y': 1}]]}, {'grid': [[{'x': 2, 'y': 1}]]}),
            ('ntp.0', {'ntp': ['a', 'b']}, {'ntp': ['a', 'b'], 'dns': 'a'}, {'ntp': ['c', 'b'], 'dns': 'a'}),
            (
                'ntp.0.ip',
                {'ntp': [{'ip': 1}]},
                {'ntp': [{'ip': 1, 'name': 'a'}]},
                {'ntp': [{'ip': 2, 'name': 'a'}]},
            ),
            ('ntp.ip', {'ntp': 'a'}, {'ntp': 'a', 'dns': 'a'}, {'ntp': 'b', 'dns': 'a'}),
            ('ntp.ip', {'ntp': {}}, {'ntp': {'name': 'a'}}, {'ntp': {'ip': 1, 'name': 'a'}}),
        ],
        ids=['lists in lists', 'nested lists', 'number of an item', 'key of a numbered item', 'text', 'new key'],
    )
    def test_a_key_below_lists_and_texts_finds_its_changes_and_no_others(self, key, before, other, after):
        CustomField.objects.create(name='x', type='json').object_types.set([ContentType.objects.get_for_model(Site)])
        watch(f'custom_fields.x.{key}')
        place = site(custom_field_data={'x': before})
        forget_events()
        edit(place, custom_field_data={'x': other})
        assert kinds() == []
        edit(place, custom_field_data={'x': after})
        assert kinds() == [UPDATED]

    def test_it_counts_what_the_whole_transaction_changed(self):
        watch('status')
        place = site(status='active')
        forget_events()
        with transaction.atomic():
            edit(place, status='planned')
            edit(place, status='active', description='new')
        assert kinds() == []
        with transaction.atomic():
            edit(place, description='newer')
            edit(place, status='planned')
        assert kinds() == [UPDATED]

    def test_where_the_state_before_is_unknown_the_change_is_sent(self):
        watch('status')
        place = site()
        forget_events()
        Event.objects.all().delete()
        place.save()  # outside any transaction
        assert kinds() == [UPDATED]

    def test_an_event_that_others_want_counts_as_skipped_once_each(self):
        watch('status')
        subscribe(NOWHERE, Site)
        place = site()
        forget_events()
        edit(place, description='new')
        assert kinds() == [UPDATED]
        assert Event.objects.get().skipped == 1

    def test_conditions_decide_among_what_is_left(self):
        watch('status', conditions={'attr': 'status.value', 'value': 'planned'})
        place = site(status='active')
        forget_events()
        edit(place, status='planned')
        edit(place, status='retired')
        edit(place, description='new')
        assert kinds() == [UPDATED]

    def test_a_backfill_sends_everything(self, receiver):
        place = site()
        webhook = subscribe(receiver.url('/'), Site, only_if_changed=['status'], only_real_changes=True)
        backfill.start(webhook, backfill.choose(webhook))
        work()
        assert [one.json()['data']['id'] for one in receiver.requests] == [place.pk]

    def test_data_before_that_cannot_be_rendered_loses_nothing(self, monkeypatch, caplog):
        watch('status')
        place = site()
        forget_events()
        edit(place, description='new')
        Event.objects.update(prechange={'row': {'latitude': []}, 'm2m': {}})
        assert kinds() == [UPDATED]
        assert 'model=dcim.site its data before the change cannot be rendered' in caplog.text

    def test_a_component_keeps_its_own_keys(self):
        box = device()
        port = interface(box)
        watch('name', model=Device)
        forget_events()
        edit(port, name='other')
        edit(box, serial='1')
        edit(box, name='other')
        assert kinds() == [UPDATED]

    @pytest.mark.parametrize('fields', [{'latest_only': True}, {'change_set': True}, {'expand': ['tenant']}])
    def test_it_goes_with_other_fields(self, receiver, fields):
        subscribe(receiver.url('/'), Site, only_if_changed=['status'], **fields)
        place = site(status='active')
        work()
        edit(place, description='new')
        work()
        edit(place, status='planned')
        work()
        assert len(receiver.requests) == 2

    def test_a_feed_has_only_these(self):
        subscribe('', Site, only_if_changed=['status'])
        place = site(status='active')
        edit(place, description='new')
        edit(place, status='planned')
        work()
        assert [one.event.kind for one in deliveries('delivered')] == [CREATED, UPDATED]


class TestRefusals:
    SENT = {'name': 'Hook', 'payload_url': NOWHERE, 'type_update': True, 'object_types': ['dcim.site', 'dcim.device']}

    @pytest.mark.parametrize(
        ('keys', 'reason'),
        [
            (['state'], 'state: the chosen object types have no such key. Did you mean status'),
            (['site.slugs'], 'site.slug'),
            (['custom_fields.ownr'], 'custom_fields.owner'),
            (['status.name'], 'status'),
            (['device_count'], 'device_count'),
            (['last_updated'], 'last_updated'),
            (['id'], 'id: the chosen object types have no such key'),
            (['xyzzy'], 'xyzzy: the chosen object types have no such key.'),
            (['name'] * 51, 'No more than 50 keys'),
        ],
    )
    def test_the_api_refuses_a_wrong_key_and_names_the_nearest_right_ones(self, api_client, keys, reason):
        CustomField.objects.create(name='owner', type='text').object_types.set(
            [ContentType.objects.get_for_model(Site)]
        )
        answer = api_client.post(API, {**self.SENT, 'only_if_changed': keys}, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['only_if_changed'])
        assert reason in str(answer.json()['only_if_changed'])
        good = [
            'status',
            'status.value',
            'site.slug',
            'tags',
            'tags.slug',
            'custom_fields.owner',
            'primary_ip4.address',
        ]
        answer = api_client.post(API, {**self.SENT, 'only_if_changed': good}, format='json')
        assert (answer.status_code, answer.json().get('only_if_changed')) == (201, good)

    def test_every_form_and_import_refuses_by_name(self, admin_pages):
        fields = {
            'name': 'Hook', 'payload_url': NOWHERE, 'type_update': 'on', 'http_method': 'POST',
            'http_content_type': 'application/json', 'payload_format': 'default', 'max_attempts': 1, 'concurrency': 1,
        }  # fmt: skip
        types = ContentType.objects.get_for_model(Site).pk
        for page, name in (('/plugins/webhooks/webhooks/add/', 'object_types_1'), (ADD, 'object_types')):
            wrong = admin_pages.post(page, {**fields, name: types, 'only_if_changed': 'status, state'})
            assert 'state: the chosen object types have no such key' in wrong.content.decode()
            right = admin_pages.post(
                page, {**fields, 'name': page, name: types, 'only_if_changed': 'status, tags.slug'}
            )
            assert right.status_code == 302
        assert [*Webhook.objects.values_list('only_if_changed', flat=True)] == [['status', 'tags.slug']] * 2
        imported = {'name': 'Hook', 'payload_url': NOWHERE, 'type_update': True, 'object_types': 'dcim.site'}
        assert [*WebhookImportForm({**imported, 'only_if_changed': 'state'}).errors] == ['only_if_changed']
        form = WebhookImportForm({**imported, 'only_if_changed': 'status,tags.slug'})
        assert form.is_valid()
        assert form.save().only_real_changes
        off = WebhookImportForm({**imported, 'name': 'Off', 'only_real_changes': 'false'})
        assert off.is_valid()
        assert not off.save().only_real_changes

    def test_components_and_keys_are_not_both(self, api_client):
        sent = {**self.SENT, 'only_if_changed': ['status'], 'include_components': True}
        answer = api_client.post(API, sent, format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['only_if_changed'])
