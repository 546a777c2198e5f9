"""NetBox's pages of webhooks, and NetBox's own tests of all three models' views."""

import re

import pytest
from builders import NOWHERE, site, subscribe
from core.models import ObjectChange, ObjectType
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from extras.models import Tag
from log import delivery, event
from netbox.registry import registry
from netbox.search.backends import search_backend
from plugin import PluginViews
from utilities.testing import ViewTestCases, create_tags

from webhooks.models import Delivery, Event, Webhook
from webhooks.search import WebhookIndex

PAGES = '/plugins/webhooks/'
MASK = '********'
SECRET_WORDS = ('pa55word', 't0ken', 'b3arer', 's3cret')


#
# NetBox's own tests
#


class TestWebhookViews(
    PluginViews,
    ViewTestCases.GetObjectViewTestCase,
    ViewTestCases.CreateObjectViewTestCase,
    ViewTestCases.EditObjectViewTestCase,
    ViewTestCases.DeleteObjectViewTestCase,
    ViewTestCases.ListObjectsViewTestCase,
    ViewTestCases.BulkImportObjectsViewTestCase,
    ViewTestCases.BulkEditObjectsViewTestCase,
    ViewTestCases.BulkRenameObjectsViewTestCase,
    ViewTestCases.BulkDeleteObjectsViewTestCase,
):
    model = Webhook
    # Stored encrypted, so no text equals it.
    validation_excluded_fields = ['secret', 'additional_headers']

    @classmethod
    def setUpTestData(cls):
        webhooks = [subscribe(NOWHERE, Site, name=f'Webhook {number}') for number in range(3)]
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
            'tags': [tag.pk for tag in create_tags('Alpha', 'Beta')],
        }
        cls.csv_data = (
            'name,object_types,type_create,payload_url,secret',
            'CSV 1,"dcim.site,dcim.rack",true,https://a.example/1,s3cret',
            'CSV 2,dcim.site,true,https://a.example/2,',
            'CSV 3,ipam.prefix,true,https://a.example/3,',
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
        }


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
    )


def fields_of(page):
    """What a browser would send back of the form, had nobody touched it."""
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
    assert saved.payload_url == secretive.payload_url
    assert saved.additional_headers.reveal() == 'Authorization: Bearer b3arer'
    assert saved.secret.reveal() == 's3cret'


def test_the_secret_is_removed_when_asked(admin_pages, secretive):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    answer = admin_pages.post(address, fields_of(admin_pages.get(address)) | {'clear_secret': 'on'})
    assert answer.status_code == 302, answer.context['form'].errors
    assert not Webhook.objects.get().secret


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('payload_url', 'ftp://a.example/'),
        ('payload_url', 'https://b.example/?token=********'),
        ('additional_headers', 'no colon'),
        ('additional_headers', 'X-New: ********'),
        ('body_template', '{{ data'),
        ('conditions', '{"and": 5}'),
        ('conditions', '{"attr": "name", "value": NaN}'),
        ('conditions', 'none'),
        ('secret', 'whsec_short'),
        ('secret', MASK),
        ('timeout', '0'),
        ('max_attempts', ''),
        ('ca_file_path', '/etc/passwd'),
        ('object_types_1', []),
    ],
)
def test_a_wrong_field_is_named(admin_pages, secretive, field, value):
    address = f'{PAGES}webhooks/{secretive.pk}/edit/'
    answer = admin_pages.post(address, fields_of(admin_pages.get(address)) | {field: value})
    assert answer.status_code == 200
    assert list(answer.context['form'].errors) == [field.removesuffix('_1')]


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
    data = {'pk': [secretive.pk], '_apply': '1', 'secret': 's3cret2', 'payload_url': 'https://a:pa55word@b.example/'}
    assert admin_pages.post(f'{PAGES}webhooks/edit/', data).status_code == 302
    assert Webhook.objects.get().secret.reveal() == 's3cret2'
    change = ObjectChange.objects.get()
    recorded = f'{change.prechange_data}{change.postchange_data}'
    assert not [word for word in SECRET_WORDS if word in recorded]
    assert 'b.example' in recorded


#
# Import
#


@pytest.mark.parametrize('types', ['dcim.sites', 'extras.tag', 'site', ''])
def test_an_import_names_the_object_type_it_refuses(admin_pages, types):
    lines = f'name,object_types,type_create,payload_url\nNew,{types},true,https://a.example/'
    answer = admin_pages.post(f'{PAGES}webhooks/import/', {'data': lines, 'format': 'csv', 'csv_delimiter': 'auto'})
    assert answer.status_code == 200
    assert 'object_types' in str(answer.context['form'].errors)
    assert not Webhook.objects.exists()


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


#
# What NetBox loads without telling where it fails
#


def test_menu_and_search_are_registered(admin_pages):
    assert [menu.name for menu in registry['plugins']['menus']] == ['webhooks']
    assert registry['search']['webhooks.webhook'] is WebhookIndex
    page = admin_pages.get('/').content.decode()
    for name in ('webhooks', 'deliveries', 'events'):
        assert f'href="{PAGES}{name}/"' in page


def test_search_finds_a_webhook(admin_pages):
    # NetBox puts what is saved into its index once the request is answered.
    search_backend.cache(subscribe(NOWHERE, Site, name='Needle'))
    page = admin_pages.get('/search/?q=needle').content.decode()
    assert re.search(r'href="/plugins/webhooks/webhooks/\d+/"', page)
