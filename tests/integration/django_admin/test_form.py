import re
from datetime import timedelta
from typing import Any

import pytest
from core.choices import ObjectChangeActionChoices
from core.models import ObjectType
from dcim.models import Rack, Site
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django.db.models.signals import m2m_changed
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from extras.models import CustomField, Tag
from support.admin_browser import (
    ADD,
    DELIVERIES,
    INIT_TIME,
    MASK,
    WEBHOOKS,
    changes_of,
    filled,
    messages_of,
    page_of,
    shown,
    type_id,
)
from support.builders import CREATED, UPDATED, named, site, subscribe
from support.log import delivery, event
from users.models import User
from utilities.exceptions import AbortRequest

from webhooks.models import Credential, Webhook
from webhooks.security import signing

SECRET = 'a secret of the tests'
TOKEN = 'a token of the tests'
PARAMETER = 'a-parameter-of-the-tests'
REPLACEMENT = 'another secret of the tests'
SENSITIVE = (SECRET, TOKEN, PARAMETER, REPLACEMENT)

# Without `committed`, the transaction is rolled back.
pytestmark = pytest.mark.usefixtures('saves')


@pytest.fixture
def client(netbox_user: User) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


@pytest.fixture
def webhook(saves: None) -> Webhook:
    return subscribe(
        f'https://a.example/hook?key={PARAMETER}',
        Site,
        name='Receiver',
        secret=SECRET,
        additional_headers=f'Authorization: Bearer {TOKEN}',
    )


class TestAdding:
    def test_a_new_webhook_is_stored_as_entered(self, client):
        tag = Tag.objects.create(**named('tag'))
        entered = filled(object_types=[type_id(Site), type_id(Rack)], tags=[tag.pk], secret=SECRET, type_update='on')
        assert client.post(ADD, entered).url == WEBHOOKS
        made = Webhook.objects.get(name='Receiver')
        assert set(made.object_types.all()) == set(ContentType.objects.get_for_models(Site, Rack).values())
        assert made.kinds == [CREATED, UPDATED]
        assert made.secret.reveal() == SECRET
        assert list(made.tags.all()) == [tag]

    def test_the_change_log_has_it(self, client, netbox_user):
        client.post(ADD, filled(secret=SECRET))
        [change] = changes_of(Webhook.objects.get())
        assert (change.action, change.user) == (ObjectChangeActionChoices.ACTION_CREATE, netbox_user)
        assert change.postchange_data['object_types'] == [type_id(Site)]
        assert change.postchange_data['secret'] == MASK

    def test_a_new_webhook_is_subscribed(self, client):
        client.post(ADD, filled(type_delete='on'))
        assert Webhook.objects.get().subscriptions.filter(until=None).count() == 2

    def test_allowed_models_are_grouped_by_app(self, client):
        choices = dict(client.get(ADD).context['adminform'].form['object_types'].field.choices)
        assert [label for _, label in choices['DCIM']] == ['Device', 'Interface', 'Rack', 'Rack Group', 'Site']
        assert 'Users' not in choices

    @pytest.mark.parametrize(
        ('field', 'entered'),
        [
            ('name', {'name': ''}),
            ('object_types', {'object_types': [2**31]}),
            ('object_types', {'object_types': ['dcim.site']}),
            ('type_create', {'type_create': None}),
            ('payload_url', {'payload_url': 'ftp://a.example/'}),
            ('payload_url', {'payload_url': 'http:///path'}),
            ('payload_url', {'payload_url': 'http://a.example/' + 'a' * 500}),
            ('payload_url', {'payload_url': f'http://a.example/?key={MASK}'}),
            ('additional_headers', {'additional_headers': 'no colon'}),
            ('additional_headers', {'additional_headers': 'Name: a\rb'}),
            ('additional_headers', {'additional_headers': 'Host: b.example'}),
            ('additional_headers', {'additional_headers': f'Authorization: {MASK}'}),
            ('body_template', {'body_template': '{{ data.name'}),
            ('conditions', {'conditions': '{not json'}),
            ('conditions', {'conditions': '{"attr": "name"}'}),
            ('timeout', {'timeout': 0}),
            ('timeout', {'timeout': 3600}),
            ('quiet', {'quiet': 3601}),
            ('quiet', {'quiet': 60, 'change_set': 'on'}),
            ('quiet_max', {'quiet': 60, 'quiet_max': 59}),
            ('max_attempts', {'max_attempts': 0}),
            ('ca_file_path', {'ca_file_path': '/etc/ssl/ca.pem', 'ssl_verification': None}),
            ('client_key_path', {'client_key_path': '/etc/ssl/key.pem'}),
            ('secret', {'secret': 'whsec_short'}),
            ('secret', {'secret': MASK}),
        ],
    )
    def test_bad_input_is_an_error_of_its_field(self, client, field, entered):
        response = client.post(ADD, filled(**entered))
        assert response.status_code == 200
        assert list(response.context['adminform'].form.errors) == [field]
        assert not Webhook.objects.exists()

    def test_an_object_type_that_is_not_allowed_is_refused(self, client):
        response = client.post(ADD, filled(object_types=[type_id(User)]))
        assert 'object_types' in response.context['adminform'].form.errors

    def test_a_second_webhook_of_the_same_name_is_refused(self, client, webhook):
        response = client.post(ADD, filled(name=webhook.name))
        assert list(response.context['adminform'].form.errors) == ['name']


class TestChanging:
    def test_sending_back_what_was_shown_changes_nothing(self, client, webhook):
        client.post(page_of(webhook), shown(client, webhook))
        webhook.refresh_from_db()
        assert webhook.payload_url.reveal().endswith(PARAMETER)
        assert webhook.additional_headers.reveal() == f'Authorization: Bearer {TOKEN}'
        assert webhook.secret.reveal() == SECRET
        assert LogEntry.objects.get().get_change_message() == 'No fields changed.'

    def test_the_change_log_has_the_state_before_and_after(self, client, webhook, netbox_user):
        client.post(page_of(webhook), shown(client, webhook) | {'description': 'new', 'object_types': [type_id(Rack)]})
        [change] = changes_of(webhook)
        assert (change.action, change.user) == (ObjectChangeActionChoices.ACTION_UPDATE, netbox_user)
        before, after = change.prechange_data, change.postchange_data
        assert (before['description'], after['description']) == ('', 'new')
        assert (before['object_types'], after['object_types']) == ([type_id(Site)], [type_id(Rack)])

    def test_a_save_of_an_outdated_page_is_refused(self, client, webhook):
        page = shown(client, webhook)
        [page['_init_time']] = re.findall(INIT_TIME, client.get(page_of(webhook)).content.decode())
        Webhook.objects.get().save()
        response = client.post(page_of(webhook), page | {'description': 'entered', 'timeout': 7})
        form = response.context['adminform'].form
        assert 'has been modified since the form was rendered' in form.non_field_errors()[0]
        assert (form['description'].value(), form['timeout'].value()) == ('entered', '7')
        webhook.refresh_from_db()
        assert (webhook.description, webhook.timeout) == ('', None)
        assert client.post(page_of(webhook), shown(client, webhook) | {'timeout': 7}).status_code == 302

    def test_a_line_of_headers_is_added_to_those_that_are_kept(self, client, webhook):
        lines = f'Authorization: {MASK}\nX-Team: network'
        client.post(page_of(webhook), shown(client, webhook) | {'additional_headers': lines})
        webhook.refresh_from_db()
        assert webhook.additional_headers.reveal() == f'Authorization: Bearer {TOKEN}\nX-Team: network'

    def test_nothing_secret_is_on_the_pages(self, client, webhook):
        of = delivery(event(site()), webhook)
        pages = (page_of(webhook), WEBHOOKS, page_of(of), DELIVERIES, page_of(webhook, 'history'))
        client.post(page_of(webhook), shown(client, webhook) | {'secret': REPLACEMENT, 'keep_previous': '24'})
        texts = [client.get(page).content.decode() for page in pages]
        texts += LogEntry.objects.values_list('change_message', flat=True)
        assert all('Receiver' in text for text in texts[:4])
        for text in texts:
            assert not [secret for secret in SENSITIVE if secret in text]


class TestSecret:
    def change(self, client: Client, webhook: Webhook, **entered: Any) -> HttpResponse:
        response = client.post(page_of(webhook), shown(client, webhook) | entered, follow=True)
        webhook.refresh_from_db()
        return response

    def test_a_blank_field_keeps_the_secret(self, client, webhook):
        self.change(client, webhook, secret='')
        assert webhook.secrets() == [SECRET]

    def test_another_secret_replaces_the_stored_one(self, client, webhook):
        self.change(client, webhook, secret='another', keep_previous='0')
        assert webhook.secrets() == ['another']

    def test_the_secret_is_removed_at_once_when_asked(self, client, webhook):
        assert webhook.secrets() == [SECRET]
        self.change(client, webhook, clear_secret='on', keep_previous='24')
        assert webhook.secrets() == []

    def test_a_generated_secret_is_shown_once(self, client, webhook):
        response = self.change(client, webhook, generate_secret='on', keep_previous='0')
        [generated] = webhook.secrets()
        assert re.fullmatch(r'whsec_[A-Za-z0-9+/]{43}=', generated)
        assert generated in response.content.decode()
        assert generated not in client.get(page_of(webhook)).content.decode()

    @pytest.mark.parametrize('button', ['_save', '_continue', '_addanother'])
    def test_a_generated_secret_is_in_no_message(self, client, webhook, button):
        """NetBox keeps messages in a cookie by default."""
        entered = shown(client, webhook) | {'generate_secret': 'on', button: ''}
        response = client.post(page_of(webhook), entered)
        webhook.refresh_from_db()
        assert webhook.secret.reveal() not in str(client.cookies)
        messages = [str(message) for message in get_messages(response.wsgi_request)]
        assert webhook.secret.reveal() not in ' '.join(messages)
        assert webhook.secret.reveal() not in str(dict(client.session))
        assert webhook.secret.reveal() in client.get(page_of(webhook)).content.decode()

    def test_a_refused_change_shows_no_new_secret(self, client, webhook, netbox_user):
        def refuse(**_kwargs: Any) -> None:
            raise AbortRequest('not these users')

        m2m_changed.connect(refuse, sender=Webhook.ignore_users.through)
        try:
            response = self.change(client, webhook, generate_secret='on', ignore_users=[netbox_user.pk])
        finally:
            m2m_changed.disconnect(refuse, sender=Webhook.ignore_users.through)
        assert messages_of(response) == ['not these users']
        assert webhook.secrets() == [SECRET]
        assert not response.context['new_secret']

    def test_a_new_webhook_gets_a_generated_secret_unless_one_is_entered(self, client):
        assert client.get(ADD).context['adminform'].form['generate_secret'].value() is True
        assert client.get(f'{ADD}?preset=slack').context['adminform'].form['generate_secret'].value() is False
        client.post(ADD, filled(generate_secret='on', secret=SECRET))
        assert Webhook.objects.get().secret.reveal() == SECRET

    def test_a_secret_generated_with_a_new_webhook_is_shown(self, client):
        response = client.post(ADD, filled(generate_secret='on'), follow=True)
        assert Webhook.objects.get().secret.reveal() in response.content.decode()

    def test_the_old_secret_is_kept_for_a_while(self, client, webhook):
        """A day by default."""
        self.change(client, webhook, secret='another')
        assert webhook.secrets() == ['another', SECRET]
        remaining = webhook.previous_secret_expires - timezone.now()
        assert timedelta(hours=23) < remaining <= timedelta(hours=24)
        assert 'with the previous secret as well' in client.get(page_of(webhook)).content.decode()

    def test_a_public_key_is_shown(self, client, webhook):
        secret = signing.generate(signing.PRIVATE)
        self.change(client, webhook, secret=secret)
        text = client.get(page_of(webhook)).content.decode()
        assert signing.public_key(secret) in text
        assert secret not in text

    def test_entering_and_generating_a_secret_at_once_is_an_error(self, client, webhook):
        response = self.change(client, webhook, clear_secret='on', generate_secret='on')
        assert list(response.context['adminform'].form.errors) == ['secret']
        assert webhook.secrets() == [SECRET]


class TestCustomFields:
    """NetBox's form edits them."""

    @pytest.fixture
    def owner(self, db: None) -> CustomField:
        owner = CustomField.objects.create(name='owner', type='text', required=True, default='net')
        owner.object_types.set(ObjectType.objects.get_for_models(Webhook, Credential).values())
        return owner

    def test_a_new_webhook_has_their_defaults(self, client, owner):
        client.post(ADD, filled())
        assert Webhook.objects.get().custom_field_data == {'owner': 'net'}

    def test_a_new_credential_has_their_defaults(self, client, owner):
        page = reverse('admin:webhooks_credential_add')
        client.post(page, {'name': 'Key', 'type': 'bearer', 'secret': 's3cret', 'hosts': 'a.example'})
        assert Credential.objects.get().custom_field_data == {'owner': 'net'}

    def test_a_saved_webhook_keeps_their_values(self, client, webhook, owner):
        webhook.custom_field_data = {'owner': 'ops'}
        webhook.save()
        assert 'cf_owner' not in client.get(page_of(webhook)).content.decode()
        client.post(page_of(webhook), shown(client, webhook) | {'description': 'changed'})
        webhook.refresh_from_db()
        assert (webhook.description, webhook.custom_field_data) == ('changed', {'owner': 'ops'})
