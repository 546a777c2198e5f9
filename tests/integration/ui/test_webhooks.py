"""NetBox's own tests cover our views and tables too."""

import json
import re

import pytest
import yaml
from core.models import ObjectChange, ObjectType
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django_rq import get_queue
from extras.models import CustomField, CustomFieldChoiceSet, NotificationGroup, Tag
from netbox.registry import registry
from netbox.search.backends import search_backend
from support.builders import NOWHERE, site, subscribe
from support.builtin import rule
from support.log import delivery, event
from support.plugin import PluginViews
from utilities.testing import TableTestCases, ViewTestCases, create_tags

from webhooks import tables
from webhooks.models import Delivery, Event, Webhook
from webhooks.presentation.moments import moment
from webhooks.search import WebhookIndex
from webhooks.views.delivery import DeliveryListView
from webhooks.views.event import EventListView
from webhooks.views.webhook import WebhookListView

PAGES = '/plugins/webhooks/'
MASK = '********'
SECRET_WORDS = ('pa55word', 't0ken', 'b3arer', 's3cret')


#
# NetBox's own tests
#


class TestWebhookViews(
    PluginViews, ViewTestCases.PrimaryObjectViewTestCase, ViewTestCases.BulkRenameObjectsViewTestCase
):
    model = Webhook
    # It is stored encrypted.
    validation_excluded_fields = ['secret', 'additional_headers']

    @classmethod
    def setUpTestData(cls):
        webhooks = [subscribe(NOWHERE, Site, name=f'Webhook {number}') for number in range(3)]
        on_call = NotificationGroup.objects.create(name='On call')
        cls.form_data = {
            'name': 'New',
            'description': 'to the CMDB',
            'enabled': True,
            'object_types_1': list(ObjectType.objects.filter(model__in=('site', 'rack')).values_list('pk', flat=True)),
            'type_create': True,
            'type_delete': True,
            'payload_url': 'https://a.example/hook',
            'http_method': 'PUT',
            'http_content_type': 'application/json',
            'payload_format': 'default',
            'additional_headers': 'X-Env: prod',
            'secret': 's3cret',
            'max_attempts': 3,
            'concurrency': 2,
            'ordered': True,
            'ssl_verification': True,
            'notification_groups': [on_call.pk],
            'tags': [tag.pk for tag in create_tags('Alpha', 'Beta')],
        }
        cls.csv_data = (
            'name,object_types,type_create,payload_url,secret,notification_groups',
            'CSV 1,"dcim.site,dcim.rack",true,https://a.example/1,s3cret,On call',
            'CSV 2,dcim.site,true,https://a.example/2,,',
            'CSV 3,ipam.prefix,true,https://a.example/3,,',
        )
        cls.csv_update_data = (
            'id,name,description',
            *(f'{webhook.pk},Renamed {webhook.pk},changed' for webhook in webhooks),
        )
        cls.bulk_edit_data = {
            'description': 'Changed',
            'paused': True,
            'type_delete': False,
            'http_method': 'PATCH',
            'timeout': 7,
            'max_attempts': 2,
            'notification_groups': [on_call.pk],
        }

    def test_export_objects(self):
        """NetBox expects CSV, as most models export."""
        self.add_permissions('webhooks.view_webhook')
        address = self._get_url('list')
        for export, content_type in (('export', 'text/yaml'), ('export=table', 'text/csv; charset=utf-8')):
            response = self.client.get(f'{address}?{export}')
            self.assertHttpStatus(response, 200)
            self.assertEqual(response.headers['Content-Type'], content_type)

    def test_get_object_changelog(self):
        # NetBox's own models are exempt and need no permission.
        self.add_permissions('webhooks.view_webhook')
        super().test_get_object_changelog()


# Deliveries and events are read only and have no change log.
class TestDeliveryViews(PluginViews, ViewTestCases.GetObjectViewTestCase, ViewTestCases.ListObjectsViewTestCase):
    model = Delivery

    @classmethod
    def setUpTestData(cls):
        for number in range(3):
            delivery(event(site()), subscribe(NOWHERE, Site, name=f'Webhook {number}'))


class TestEventViews(PluginViews, ViewTestCases.GetObjectViewTestCase, ViewTestCases.ListObjectsViewTestCase):
    model = Event

    @classmethod
    def setUpTestData(cls):
        for _number in range(3):
            event(site())


class TestWebhookTable(TableTestCases.StandardTableTestCase):
    table = tables.WebhookTable
    queryset_sources = (('list', WebhookListView.queryset),)


class TestDeliveryTable(TableTestCases.StandardTableTestCase):
    table = tables.DeliveryTable
    queryset_sources = (('list', DeliveryListView.queryset),)


class TestEventTable(TableTestCases.StandardTableTestCase):
    table = tables.EventTable
    queryset_sources = (('list', EventListView.queryset),)


#
# The form
#


@pytest.fixture
def secretive(db):
    return subscribe(
        'https://user:pa55word@a.example/in?token=t0ken',
        Site,
        name='Secretive',
        additional_headers='Authorization: Bearer b3arer',
        secret='s3cret',
        # Receivers of NDJSON need the line break at the end.
        body_template='{{ event }}\n\n',
    )


def fields_of(page):
    """Return an untouched form's data, as a browser sends it."""
    form = page.context['form']
    data = {name: form[name].value() for name in form.fields}
    data['object_types_1'] = data.pop('object_types') or []
    return {name: value for name, value in data.items() if value not in (None, False)}


def test_a_form_that_is_saved_untouched_changes_nothing(admin_pages, secretive):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    page = admin_pages.get(address)
    answer = admin_pages.post(address, fields_of(page))
    assert answer.status_code == 302, answer.context['form'].errors
    saved = Webhook.objects.get()
    assert saved.payload_url.reveal() == secretive.payload_url.reveal()
    assert saved.additional_headers.reveal() == 'Authorization: Bearer b3arer'
    assert saved.secret.reveal() == 's3cret'
    assert saved.body_template == '{{ event }}\n\n'


def test_a_template_of_blanks_alone_is_none(admin_pages, api_client, secretive):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    admin_pages.post(address, fields_of(admin_pages.get(address)) | {'body_template': ' \n'})
    assert Webhook.objects.get().body_template == ''
    answer = api_client.patch(f'/api{PAGES}webhooks/{secretive.pk}/', {'body_template': ' \n'}, format='json')
    assert answer.json()['body_template'] == ''


def test_a_url_that_is_as_long_as_may_be_is_longer_masked(admin_pages, secretive):
    longest = f'https://a.example/?{"a=1&" * 125}'[:500]
    Webhook.objects.update(payload_url=longest)
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    entered = fields_of(admin_pages.get(address)) | {'additional_headers': ''}
    assert len(entered['payload_url']) > 500
    answer = admin_pages.post(address, entered | {'payload_url': f'{longest}b'})
    assert list(answer.context['form'].errors) == ['payload_url']
    answer = admin_pages.post(address, entered)
    assert answer.status_code == 302, answer.context['form'].errors
    assert Webhook.objects.get().payload_url.reveal() == longest


def test_the_secret_is_removed_when_asked(admin_pages, secretive):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    answer = admin_pages.post(address, fields_of(admin_pages.get(address)) | {'clear_secret': 'on'})
    assert answer.status_code == 302, answer.context['form'].errors
    assert not Webhook.objects.get().secret


def test_a_wrong_field_is_named(admin_pages, secretive):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    shown = fields_of(admin_pages.get(address))
    for field, value in (
        ('payload_url', 'https://a.example/a path'),
        ('payload_url', 'https://a.example/?token=********'),
        ('additional_headers', 'no colon'),
        ('additional_headers', 'X-New: ********'),
        ('body_template', '{{ data'),
        ('conditions', '{"and": 5}'),
        ('conditions', '{"attr": "name", "value": NaN}'),
        ('conditions', 'none'),
        ('conditions', f'{{"attr": "id", "value": {"1" * 5000}}}'),
        ('success_conditions', f'{{"attr": "status", "value": {"1" * 5000}}}'),
        ('secret', 'whsec_short'),
        ('timeout', '0'),
        ('quiet', '0'),
        ('quiet_max', '60'),
        ('max_attempts', ''),
    ):
        answer = admin_pages.post(address, shown | {field: value})
        assert answer.status_code == 200, (field, value)
        assert list(answer.context['form'].errors) == [field], value


@pytest.mark.parametrize(('entered', 'asked'), [('', []), ('an-0wn-secret', ['secret'])])
def test_an_entered_secret_is_asked_for_again_where_another_field_is_wrong(admin_pages, secretive, entered, asked):
    """The page does not show it, so it would be lost without a word."""
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    answer = admin_pages.post(address, fields_of(admin_pages.get(address)) | {'name': '', 'secret': entered})
    assert sorted(answer.context['form'].errors) == ['name', *asked]
    assert 'an-0wn-secret' not in answer.content.decode()


def test_a_wrong_file_is_named(admin_pages, secretive):
    """Another CA file would ask for stored headers again."""
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    entered = {'ca_file_path': '/etc/passwd', 'additional_headers': ''}
    answer = admin_pages.post(address, fields_of(admin_pages.get(address)) | entered)
    assert answer.status_code == 200
    assert list(answer.context['form'].errors) == ['ca_file_path']


def test_a_webhook_for_event_rules_alone_has_no_object_types(admin_pages, secretive):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    answer = admin_pages.post(address, fields_of(admin_pages.get(address)) | {'object_types_1': []})
    assert answer.status_code == 302, answer.context['form'].errors
    assert not Webhook.objects.get().object_types.exists()


def test_a_message_warns_of_a_saved_webhook_through_which_nothing_is_sent(admin_pages, secretive):
    address, told = f'{PAGES}webhooks/{secretive.pk}/edit/', 'No object types are chosen.'

    def saved(**fields: object) -> str:
        form = fields_of(admin_pages.get(address))
        return admin_pages.post(address, form | fields, follow=True).content.decode()

    assert told not in saved()
    assert told in saved(object_types_1=[])
    rule(secretive, Site)
    assert told not in saved(object_types_1=[])


def test_only_allowed_models_can_be_chosen(admin_pages):
    page = admin_pages.get(f'{PAGES}webhooks/add/')
    offered = {f'{one.app_label}.{one.model}' for one in page.context['form'].fields['object_types'].queryset}
    assert {'dcim.site', 'ipam.prefix', 'virtualization.virtualmachine'} <= offered
    assert not {'extras.tag', 'webhooks.webhook'} & offered
    data = fields_of(page) | {
        'name': 'New',
        'type_create': 'on',
        'payload_url': NOWHERE,
        'object_types_1': [ContentType.objects.get_for_model(Tag).pk],
    }
    answer = admin_pages.post(f'{PAGES}webhooks/add/', data)
    assert list(answer.context['form'].errors) == ['object_types']


#
# Masks
#


def test_no_page_shows_a_secret(admin_pages, secretive):
    log = delivery(event(site()), secretive)
    base = f'{PAGES}webhooks/'
    pages = [
        base,
        f'{base}?export=table',
        f'{base}?export',
        f'{base}{secretive.pk}/',
        f'{base}{secretive.pk}/edit/',
        f'{base}{secretive.pk}/changelog/',
        f'{base}{secretive.pk}/delete/',
        f'{PAGES}deliveries/{log.pk}/',
        '/search/?q=Secretive',
    ]
    for page in pages:
        answer = admin_pages.get(page)
        assert answer.status_code == 200, page
        content = answer.getvalue().decode()
        assert not [word for word in SECRET_WORDS if word in content], page


def test_the_change_log_shows_no_secret(admin_pages, secretive):
    data = {
        'pk': [secretive.pk],
        '_apply': '1',
        'secret': 's3cret2',
        'payload_url': 'https://a:pa55word@a.example/moved',
    }
    assert admin_pages.post(f'{PAGES}webhooks/edit/', data).status_code == 302
    assert Webhook.objects.get().secret.reveal() == 's3cret2'
    change = ObjectChange.objects.get()
    recorded = f'{change.prechange_data}{change.postchange_data}'
    assert not [word for word in SECRET_WORDS if word in recorded]
    assert '/moved' in recorded


#
# Many at once
#

ALL = [
    ('edit', {'_apply': '1', 'description': 'changed'}),
    ('rename', {'_apply': '1', 'find': 'Old', 'replace': 'New'}),
    ('delete', {'_confirm': '1', 'confirm': 'on'}),
]


@pytest.mark.parametrize(('view', 'sent'), ALL)
@pytest.mark.parametrize('is_refused', [True, False])
def test_all_of_a_filter_that_is_refused_is_none(admin_pages, view, sent, is_refused):
    webhook = subscribe(NOWHERE, Site, name='Old')
    query = 'ignore_user_id=99999' if is_refused else 'name=Old'
    data = sent if view == 'edit' else sent | {'pk': webhook.pk}
    answer = admin_pages.post(f'{PAGES}webhooks/{view}/?{query}', data | {'_all': 'on'})
    assert answer.status_code == 302
    assert Webhook.objects.filter(name='Old', description='').exists() is is_refused


def test_all_in_a_state_can_be_edited(admin_pages):
    webhook = subscribe(NOWHERE, Site, name='Old', paused=True)
    query, data = 'state=paused', {'_all': 'on', 'pk': webhook.pk}
    assert admin_pages.post(f'{PAGES}webhooks/edit/?{query}', data).status_code == 200


@pytest.mark.parametrize(('length', 'is_renamed'), [(150, True), (151, False)])
def test_a_name_that_becomes_too_long_is_refused(admin_pages, length, is_renamed):
    webhook = subscribe(NOWHERE, Site, name='Old')
    data = {'pk': webhook.pk, '_apply': '1', 'find': 'Old', 'replace': 'n' * length}
    assert admin_pages.post(f'{PAGES}webhooks/rename/', data).status_code == 302
    webhook.refresh_from_db()
    assert (webhook.name != 'Old') is is_renamed


#
# Import
#


@pytest.mark.parametrize('header', ['ignore_users.nope', 'ignore_users.groups__name', 'tags.nope', 'nope.name'])
def test_an_import_names_a_header_that_leads_nowhere(admin_pages, header):
    answer = import_csv(admin_pages, f'name,type_create,payload_url,{header}', 'New,true,https://a.example/,x')
    assert header in str(answer.context['form'].errors)
    assert not Webhook.objects.exists()


def test_an_import_finds_users_by_another_field(admin_pages, netbox_user):
    header = 'name,type_create,payload_url,ignore_users.email'
    answer = import_csv(admin_pages, header, f'New,true,https://a.example/,{netbox_user.email}')
    assert answer.status_code == 302, answer.context['form'].errors
    assert list(Webhook.objects.get().ignore_users.all()) == [netbox_user]


@pytest.mark.parametrize('types', ['dcim.sites', 'extras.tag', 'site'])
def test_an_import_names_the_object_type_it_refuses(admin_pages, types):
    lines = f'name,object_types,type_create,payload_url\nNew,{types},true,https://a.example/'
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': lines, 'format': 'csv', 'csv_delimiter': 'auto'})
    assert answer.status_code == 200
    assert 'object_types' in str(answer.context['form'].errors)
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(('column', 'cell'), [('', ''), ('object_types,', ',')])
def test_a_webhook_for_event_rules_alone_is_imported_without_object_types(admin_pages, column, cell):
    answer = import_csv(admin_pages, f'name,{column}type_create,payload_url', f'New,{cell}true,https://a.example/')
    assert answer.status_code == 302, answer.context['form'].errors
    assert not Webhook.objects.get().object_types.exists()


NUMBERS = ('max_attempts', 'concurrency')
SWITCHES = ('enabled', 'paused', 'ordered', 'latest_only', 'change_set', 'ssl_verification', 'include_snapshots')
TEXTS = ('http_method', 'http_content_type', 'payload_format')


def import_csv(client, header, row, **more):
    data = {'data': f'{header}\n{row}', 'format': 'csv', 'csv_delimiter': ','}
    return client.post(f'{PAGES}webhooks/import/', data | more)


@pytest.mark.parametrize('blank', [NUMBERS, SWITCHES, TEXTS])
def test_a_blank_cell_is_the_default_of_a_new_webhook(admin_pages, blank):
    answer = import_csv(
        admin_pages,
        ','.join(('name,object_types,type_create,payload_url', *blank)),
        'New,dcim.site,true,https://a.example/' + ',' * len(blank),
    )
    assert answer.status_code == 302, answer.context['form'].errors
    made, default = Webhook.objects.get(), Webhook()
    assert {name: getattr(made, name) for name in blank} == {name: getattr(default, name) for name in blank}


@pytest.mark.parametrize('form', ['csv', 'yaml'])
def test_an_export_of_1_0_0_is_imported_unless_it_sends_batches(admin_pages, form):
    fields = {'name': 'Old', 'object_types': 'dcim.site', 'type_create': 'true', 'payload_url': 'https://a.example/'}

    def send(batch: str):
        record = {**fields, 'batch': batch}
        if form == 'csv':
            return import_csv(admin_pages, ','.join(record), ','.join(record.values()))
        text = '\n'.join(f'{name}: {value}' for name, value in record.items())
        return admin_pages.post(f'{PAGES}webhooks/import/', {'data': text, 'format': 'yaml'})

    refused = send('true')
    assert 'batch: Batches no longer exist. Switch on “Change set” instead' in refused.content.decode()
    assert not Webhook.objects.exists()
    taken = send('false')
    assert taken.status_code == 302, taken.context['form'].errors
    assert not Webhook.objects.get().change_set


def test_a_blank_cell_leaves_an_old_one_what_it_must_have(admin_pages):
    """A switched off webhook must not begin to send."""
    chosen = {'max_attempts': 3, 'http_method': 'PUT', 'ssl_verification': False, 'enabled': False}
    webhook = subscribe(NOWHERE, Site, kinds=('created',), description='old', **chosen, concurrency=2)
    answer = import_csv(admin_pages, ','.join(('id', *chosen, 'description')), f'{webhook.pk},,,,,')
    assert answer.status_code == 302, answer.context['form'].errors
    webhook.refresh_from_db()
    assert {name: getattr(webhook, name) for name in chosen} == chosen
    assert webhook.description == ''
    assert (webhook.concurrency, webhook.kinds) == (2, ['created']), 'there is no such column'


def test_an_imported_webhook_has_the_defaults_of_what_is_not_given(admin_pages):
    data = (
        '- name: New\n  object_types: [dcim.site, ipam.prefix]\n  type_create: true\n  payload_url: https://a.example/'
    )
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': data, 'format': 'yaml', 'csv_delimiter': 'auto'})
    assert answer.status_code == 302, answer.context['form'].errors
    made, default = Webhook.objects.get(), Webhook()
    for name in ('enabled', 'paused', 'ordered', 'ssl_verification', 'max_attempts', 'concurrency', 'http_method'):
        assert getattr(made, name) == getattr(default, name), name
    assert made.object_types.count() == 2


@pytest.mark.parametrize(('method', 'field'), [('upload', 'upload_file'), ('datafile', 'data_file')])
def test_an_import_without_a_file_asks_for_one(admin_pages, method, field):
    data = {'import_method': method, 'format': 'auto', 'csv_delimiter': 'auto'}
    answer = admin_pages.post(f'{PAGES}webhooks/import/', data)
    assert answer.status_code == 200
    assert list(answer.context['form'].errors) == [field]


@pytest.mark.parametrize('is_new', [True, False])
def test_an_import_does_not_drop_what_it_does_not_know(admin_pages, is_new):
    known = '"name": "New", "type_create": true, "payload_url": "https://a.example/"'
    if not is_new:
        known = f'"id": {subscribe(NOWHERE, Site).pk}, "description": "changed"'
    for record, is_imported in ((f'[{{"nmae": 1, {known}}}]', False), (f'[{{{known}}}]', True)):
        answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': record, 'format': 'yaml'})
        assert (answer.status_code == 302) is is_imported
        if not is_imported:
            assert 'nmae' in str(answer.context['form'].errors)


@pytest.mark.parametrize(
    ('word', 'value'), [('no', False), ('Off', False), ('FALSE', False), ('0', False), ('yes', True), ('1', True)]
)
def test_a_switch_is_imported_as_it_is_said(admin_pages, word, value):
    header = 'name,type_create,type_delete,payload_url'
    assert import_csv(admin_pages, header, f'New,true,{word},https://a.example/').status_code == 302
    assert Webhook.objects.get().type_delete is value


def test_a_switch_is_not_guessed(admin_pages):
    header = 'name,type_create,ssl_verification,payload_url'
    answer = import_csv(admin_pages, header, 'New,true,nein,https://a.example/')
    assert answer.status_code == 200
    assert 'ssl_verification' in str(answer.context['form'].errors)


HALF = '\\ud800'


@pytest.mark.parametrize(('name', 'value'), [('name', HALF), ('expand', HALF), ('secret', HALF), ('conditions', HALF)])
def test_an_import_names_the_field_with_half_a_character(admin_pages, name, value):
    record = {'name': 'New', 'type_create': True, 'payload_url': NOWHERE}
    for given, is_imported in (({}, True), ({name: 'value'}, False)):
        text = json.dumps([record | given]).replace('"value"', f'"{value}"')
        answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': text, 'format': 'json'})
        assert (answer.status_code == 302) is is_imported
        assert Webhook.objects.exists() is is_imported
        Webhook.objects.all().delete()
    assert name in str(answer.context['form'].errors)


def test_an_import_names_all_wrong_records_and_saves_none(admin_pages):
    records = [{'name': f'New {number}', 'type_create': True, 'payload_url': NOWHERE} for number in range(5)]
    records[1]['payload_url'] = 'ftp://a/'
    records[3] |= {'timeout': 0, 'http_method': 'SEND'}
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': json.dumps(records), 'format': 'json'})
    told = [error.partition(':')[0] for error in answer.context['form'].non_field_errors()]
    assert sorted(told) == ['Record 2 payload_url', 'Record 4 http_method', 'Record 4 timeout']
    assert not Webhook.objects.exists()


def test_an_import_names_all_records_that_cannot_be_read(admin_pages):
    text = json.dumps(['nothing', {'name': 'New', 'id': 'x'}, {'name': 'half'}]).replace('half', HALF)
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': text, 'format': 'json'})
    told = answer.context['form'].non_field_errors()
    assert [error[:8] for error in told] == ['Record 1', 'Record 2', 'Record 3']


@pytest.mark.parametrize(('key', 'is_imported'), [('<<', False), ('!!merge any', False), ('description', True)])
def test_an_import_takes_no_merge_keys_which_double_a_record(admin_pages, key, is_imported):
    value = '"<<"' if is_imported else '{description: x}'
    text = f'- name: New\n  type_create: true\n  payload_url: {NOWHERE}\n  {key}: {value}'
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': text, 'format': 'yaml'})
    assert (answer.status_code == 302) is is_imported
    if not is_imported:
        assert 'merge keys' in str(answer.context['form'].errors)


def test_an_import_does_not_unfold_aliases_without_end(admin_pages):
    lines = [f'  x{level}: &x{level} [*x{level - 1}, *x{level - 1}]' for level in range(1, 60)]
    text = '\n'.join(('- name: New', '  x0: &x0 [1, 2]', *lines))
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': text, 'format': 'yaml'})
    assert answer.status_code == 200
    assert 'Record 1' in str(answer.context['form'].errors)


#
# Background jobs: these would keep entered secrets in Redis
#


@pytest.fixture
def default_queue(committed):
    queue = get_queue('default')
    queue.empty()
    return queue


def test_an_import_is_done_at_once(default_queue, admin_pages):
    row = 'New,dcim.site,true,https://a.example/,s3cret'
    answer = import_csv(
        admin_pages, 'name,object_types,type_create,payload_url,secret', row, background_job='on', follow=True
    )
    assert answer.status_code == 302, answer.context['form'].errors
    assert Webhook.objects.get().secret.reveal() == 's3cret'
    assert default_queue.count == 0


def test_a_bulk_edit_is_done_at_once(default_queue, admin_pages):
    webhook = subscribe(NOWHERE, Site)
    chosen = {'pk': [webhook.pk]}
    assert 'type="checkbox" name="background_job"' not in admin_pages.post(f'{PAGES}webhooks/edit/', chosen).text
    changed = {'_apply': '1', 'secret': 's3cret', 'background_job': 'on'}
    assert admin_pages.post(f'{PAGES}webhooks/edit/', chosen | changed).status_code == 302
    assert Webhook.objects.get().secret.reveal() == 's3cret'
    assert default_queue.count == 0


#
# Registrations, which NetBox skips silently on errors
#


def test_menu_and_search_are_registered(admin_pages):
    assert [menu.name for menu in registry['plugins']['menus']] == ['webhooks']
    assert registry['search']['webhooks.webhook'] is WebhookIndex
    page = admin_pages.get('/').content.decode()
    for name in ('webhooks', 'deliveries', 'events'):
        assert f'href="{PAGES}{name}/"' in page


def test_the_menu_shows_what_its_reader_may_open(clerk_pages, grant):
    def entries() -> set[tuple[str, str]]:
        page = clerk_pages.get('/').content.decode()
        return set(re.findall(rf'href="{PAGES}([^"]+)"[^>]*>\s*([^<]*?)\s*<', page))

    assert entries() == set()
    expected = set()
    for model, action, added in (
        (Event, 'view', {('events/', 'Events')}),
        (Delivery, 'view', {('deliveries/', 'Deliveries'), ('status/', 'Status')}),
        (Webhook, 'view', {('webhooks/', 'Webhooks')}),
        (Webhook, 'add', {('webhooks/add/', ''), ('webhooks/import/', '')}),
    ):
        grant(model, action)
        expected |= added
        assert entries() == expected


@pytest.mark.parametrize(
    ('query', 'is_found'), [('needle', True), ('haystack', True), ('endpoint', False), ('header', False)]
)
def test_search_finds_a_webhook_by_what_is_shown_of_it(admin_pages, query, is_found):
    fields = {'name': 'Needle', 'description': 'Of the haystack', 'additional_headers': 'X-Header: header'}
    # NetBox indexes saved objects after the request.
    search_backend.cache(subscribe('https://endpoint.example/', Site, **fields))
    page = admin_pages.get(f'/search/?q={query}').content.decode()
    assert bool(re.search(r'href="/plugins/webhooks/webhooks/\d+/"', page)) is is_found


#
# Buttons
#


def test_a_webhook_is_paused_and_resumed_by_a_button(admin_pages, secretive):
    page, changes = secretive.get_absolute_url(), ObjectChange.objects.filter(action='update')
    for path, other, paused in (('pause/', 'resume/', True), ('resume/', 'pause/', False)):
        shown = admin_pages.get(page).content.decode()
        assert f'action="{page}{path}"' in shown
        assert f'action="{page}{other}"' not in shown
        assert admin_pages.post(f'{page}{path}').status_code == 302
        secretive.refresh_from_db()
        assert secretive.paused is paused
        assert changes.latest('time').postchange_data['paused'] is paused
    assert secretive.secret.reveal() == 's3cret'


@pytest.mark.parametrize(
    ('enabled', 'told'),
    [
        (True, 'Resumed. Waiting deliveries are sent.'),
        (False, 'Resumed, but nothing is sent yet. State of the webhook: Disabled.'),
    ],
)
def test_resuming_promises_only_what_comes(admin_pages, secretive, enabled, told):
    Webhook.objects.update(enabled=enabled, paused=True)
    answer = admin_pages.post(f'{secretive.get_absolute_url()}resume/')
    assert [str(message) for message in get_messages(answer.wsgi_request)] == [told]


def test_pausing_needs_the_permission_to_change_also_what_it_becomes(clerk_pages, grant, secretive):
    address = f'{secretive.get_absolute_url()}pause/'
    grant(Webhook, 'view')
    assert 'pause/"' not in clerk_pages.get(secretive.get_absolute_url()).content.decode()
    assert clerk_pages.post(address).status_code == 403
    grant(Webhook, 'change', paused=False)
    clerk_pages.post(address)
    assert not Webhook.objects.get().paused
    grant(Webhook, 'change', name='Secretive')
    clerk_pages.post(address)
    assert Webhook.objects.get().paused


def test_the_menu_of_a_webhook_has_the_rarer_actions_that_the_user_may_take(clerk_pages, grant, secretive):
    def entries() -> list[str]:
        page = clerk_pages.get(secretive.get_absolute_url()).content.decode()
        return re.findall(r'<a class="dropdown-item" href="/plugins/webhooks/webhooks/\d+/([a-z-]+)/">', page)

    grant(Webhook, 'view')
    assert entries() == []
    grant(Webhook, 'replay')
    assert entries() == ['replay']
    grant(Webhook, 'change', 'backfill')
    assert entries() == ['send-waiting', 'replay', 'backfill', 'rotate-secret']


def test_the_menu_has_only_what_the_user_may_do_with_this_webhook(clerk_pages, grant, secretive):
    grant(Webhook, 'view')
    grant(Webhook, 'replay', name='Another')
    assert 'replay/' not in clerk_pages.get(secretive.get_absolute_url()).content.decode()


def test_a_card_that_is_refreshed_takes_no_new_secret(admin_pages, secretive):
    page = secretive.get_absolute_url()
    admin_pages.post(f'{page}rotate-secret/', {'prefix': 'whsec_', 'keep_previous': '24'})
    admin_pages.get(page, headers={'HX-Request': 'true'})
    admin_pages.head(page)
    secret = Webhook.objects.get().secret.reveal()
    assert secret in admin_pages.get(page).content.decode()
    assert secret not in admin_pages.get(page).content.decode()


def test_after_a_rotation_the_page_says_until_when_both_secrets_sign(admin_pages, secretive):
    sentence = 'requests are signed with the previous secret as well'
    assert sentence not in admin_pages.get(secretive.get_absolute_url()).content.decode()
    admin_pages.post(f'{secretive.get_absolute_url()}rotate-secret/', {'prefix': 'whsec_', 'keep_previous': '24'})
    until = moment(Webhook.objects.get().previous_secret_expires)
    # A rotation adds a message to the page's own sentence.
    assert admin_pages.get(secretive.get_absolute_url()).content.decode().count(f'Until {until}, {sentence}') == 2
    assert admin_pages.get(secretive.get_absolute_url()).content.decode().count(f'Until {until}, {sentence}') == 1


#
# Export
#


def definitions() -> dict[int, dict]:
    return {one.pk: one.serialize_object(exclude=['last_updated']) for one in Webhook.objects.all()}


def test_an_export_is_imported_again_and_changes_nothing(admin_pages, secretive, netbox_user):
    chosen = {'conditions': {'attr': 'name', 'value': 'Zürich'}, 'expand': ['tenant'], 'paused': True, 'timeout': 7}
    Webhook.objects.update(**chosen)
    secretive.ignore_users.add(netbox_user)
    secretive.notification_groups.add(NotificationGroup.objects.create(name='On call'))
    secretive.tags.add(*create_tags('Alpha', 'Beta'))
    week = CustomFieldChoiceSet.objects.create(name='Week', extra_choices=[['mo', 'Monday'], ['tu', 'Tuesday']])
    for field in (
        CustomField(name='site', type='text'),
        CustomField(name='days', type='multiselect', choice_set=week),
        CustomField(name='owner', type='text', ui_editable='no'),
    ):
        field.save()
        field.object_types.add(ObjectType.objects.get_for_model(Webhook))
    secretive.refresh_from_db()
    secretive.custom_field_data = {'days': ['mo', 'tu'], 'owner': 'set by a script', 'site': 'Bern'}
    secretive.save()
    second = subscribe(NOWHERE, Site)
    before = definitions()
    exported = admin_pages.get(f'{PAGES}webhooks/?export').getvalue().decode()
    Webhook.objects.update(conditions=None, expand=[], paused=False, timeout=None)
    Webhook.objects.get(pk=second.pk).object_types.clear()
    for one in (secretive.tags, secretive.ignore_users, secretive.notification_groups):
        one.clear()
    assert definitions() != before
    sent = {'import_method': 'direct', 'data': exported, 'format': 'auto', 'csv_delimiter': 'auto'}
    answer = admin_pages.post(f'{PAGES}webhooks/import/', sent)
    assert answer.status_code == 302, answer.context['form'].errors
    assert definitions() == before
    stored = Webhook.objects.get(pk=secretive.pk)
    assert stored.secret.reveal() == 's3cret'
    assert stored.payload_url.reveal() == 'https://user:pa55word@a.example/in?token=t0ken'
    assert stored.additional_headers.reveal() == 'Authorization: Bearer b3arer'


def test_an_export_without_its_ids_makes_new_webhooks_and_asks_for_what_is_masked(admin_pages, secretive):
    """An unsigned copy of a signed one would send what its receiver refuses."""
    plain = subscribe(NOWHERE, Site, name='Plain')
    signed = subscribe(NOWHERE, Site, name='Signed', secret='s3cret')
    records = [yaml.safe_load(one.to_yaml())[0] for one in (secretive, plain, signed)]
    Webhook.objects.all().delete()
    for record, field in zip(records, ('additional_headers', None, 'secret'), strict=True):
        data = yaml.safe_dump({name: value for name, value in record.items() if name != 'id'})
        answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': data, 'format': 'yaml'})
        if field:
            assert field in str(answer.context['form'].errors)
    assert [one.name for one in Webhook.objects.all()] == ['Plain']


def test_an_import_speaks_of_background_jobs_only_where_one_was_asked_for(admin_pages):
    header, row = 'name,type_create,payload_url', '{},true,https://a.example/'
    for name, asked, count in (('One', '', 0), ('Two', 'on', 1)):
        answer = import_csv(admin_pages, header, row.format(name), background_job=asked)
        said = [str(message) for message in get_messages(answer.wsgi_request)]
        assert len([text for text in said if 'not in the background' in text]) == count
