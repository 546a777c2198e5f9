"""A form shows what it would send before it is saved."""

import re
from html import unescape

import pytest
from dcim.models import Device, Site
from django.contrib.contenttypes.models import ContentType
from support.builders import NOWHERE, site, subscribe
from support.log import event
from users.models import User

from webhooks.models import Credential, Delivery, Event, Webhook
from webhooks.security.masking import MASK

pytestmark = pytest.mark.usefixtures('db')

NEW = '/plugins/webhooks/webhooks/draft/'
API = '/api/plugins/webhooks/webhooks/{}/preview/'
TEMPLATE = '{"text": "{{ data.name }} was {{ event }}"}'


def typed(**more: object) -> dict[str, object]:
    return {
        'name': 'Slack',
        'enabled': 'on',
        'object_types_1': [ContentType.objects.get_for_model(Site).pk],
        'type_create': 'on',
        'type_update': 'on',
        'payload_url': 'https://a.example/?key=s3cret',
        'http_method': 'POST',
        'http_content_type': 'application/json',
        'payload_format': 'default',
        'max_attempts': 8,
        'concurrency': 16,
        'standard_headers': 'on',
        'ssl_verification': 'on',
        'ordered': 'on',
        'keep_previous': '24',
        'expand': '',
        **more,
    }


def text_of(answer) -> str:
    assert answer.status_code == 200
    return ' '.join(unescape(re.sub(r'<[^>]*>', ' ', answer.content.decode())).split())


def draft(client, address: str = NEW, **more: object) -> str:
    return text_of(client.post(address, typed(**more)))


def test_a_name_that_postgresql_cannot_hold_finds_nothing(admin_pages):
    event(site(name='Bern'))
    assert 'This change would be sent' in draft(admin_pages, preview_name='Be\0')


class TestRequest:
    def test_it_is_shown_before_anything_is_saved(self, admin_pages):
        event(site(name='Bern'))
        shown = draft(admin_pages, body_template=TEMPLATE)
        assert 'This change would be sent: Bern updated' in shown
        assert '"text": "Bern was updated"' in shown
        assert f'POST https://a.example/?key={MASK}' in shown
        assert not Webhook.objects.exists()
        assert not Delivery.objects.exists()

    def test_a_name_is_not_needed_for_it_and_a_secret_not_entered_again(self, admin_pages):
        event(site(name='Bern'))
        assert 'Bern was updated' in draft(admin_pages, name='', secret='an-0wn-secret', body_template=TEMPLATE)

    def test_the_draft_of_an_existing_webhook_shows_its_changes_and_keeps_masked_values(self, admin_pages):
        webhook = subscribe(
            'https://a.example/?key=s3cret', Site, body_template='old', secret='whsec_' + 'A' * 43 + '='
        )
        event(site(name='Bern'))
        address = f'{webhook.get_absolute_url()}draft/'
        shown = draft(admin_pages, address, name=webhook.name, payload_url=webhook.masked_url, body_template=TEMPLATE)
        assert 'Bern was updated' in shown
        assert 'webhook-signature' in shown
        assert 's3cret' not in shown
        webhook.refresh_from_db()
        assert webhook.body_template == 'old'

    def test_a_wrong_draft_names_what_is_wrong_by_field(self, admin_pages):
        shown = draft(admin_pages, payload_url='ftp://x', http_method='')
        assert 'URL:' in shown
        assert 'HTTP method:' in shown

    def test_a_template_that_fails_names_its_line(self, admin_pages):
        event(site())
        assert '(line 2)' in draft(admin_pages, body_template='a\n{{ data.x.y }}')

    def test_without_object_types_it_says_so(self, admin_pages):
        assert 'No object types are chosen. So only event rules send' in draft(admin_pages, object_types_1=[])


class TestSource:
    def test_any_event_or_object_can_be_chosen(self, admin_pages):
        first, second = event(site(name='Bern')), event(site(name='Genf'))
        fresh = site(name='Basel')
        page = admin_pages.post(NEW, typed()).content.decode()
        for one in (first, second):
            assert f'value="event:{one.pk}"' in page
        assert f'value="object:dcim.site:{fresh.pk}"' in page
        assert 'Bern was updated' in draft(admin_pages, body_template=TEMPLATE, preview_source=f'event:{first.pk}')
        of_object = draft(admin_pages, body_template=TEMPLATE, preview_source=f'object:dcim.site:{fresh.pk}')
        assert 'Basel was created' in of_object

    def test_they_are_found_by_name(self, admin_pages):
        first, second = event(site(name='Bern')), event(site(name='Genf'))
        page = admin_pages.post(NEW, typed(preview_name='gen')).content.decode()
        assert f'value="event:{second.pk}"' in page
        assert f'value="object:dcim.site:{second.object_id}"' in page
        assert f'value="event:{first.pk}"' not in page
        assert f'value="object:dcim.site:{first.object_id}"' not in page

    def test_objects_whose_names_fail_are_shown_by_their_ids(self, admin_pages, monkeypatch, caplog):
        """As where a plugin changes a model's name."""
        place = site(name='Bern')
        monkeypatch.setattr(Site, '__str__', lambda site: site.missing)
        page = admin_pages.post(NEW, typed()).content.decode()
        assert f'<option value="object:dcim.site:{place.pk}">ID {place.pk}</option>' in ' '.join(page.split())
        assert 'model=dcim.Site names failed' in caplog.text

    def test_a_draft_offers_no_source_that_the_reader_may_not_view(self, clerk_pages, grant):
        hidden, seen = event(site(name='Bern')), event(site(name='Genf'))
        grant(Webhook, 'add')
        grant(Event, 'view')
        grant(Site, 'view', name='Genf')
        page = clerk_pages.post(NEW, typed()).content.decode()
        assert f'event:{seen.pk}"' in page
        assert f'event:{hidden.pk}"' not in page
        assert f'object:dcim.site:{hidden.object_id}"' not in page
        for source in (f'event:{hidden.pk}', f'object:dcim.site:{hidden.object_id}', 'event:x', 'object:x:1', 'nobody'):
            shown = draft(clerk_pages, preview_source=source)
            assert 'There is no such event or object' in shown
            assert 'Bern' not in shown


class TestVerdict:
    def test_conditions_that_are_not_met_are_named_with_their_value(self, admin_pages):
        place = site(name='Bern', status='planned')
        shown = draft(
            admin_pages,
            conditions='{"and": [{"attr": "status.value", "value": "active"}, {"attr": "name", "value": "Bern"}]}',
            preview_source=f'object:dcim.site:{place.pk}',
        )
        assert 'This change would not be sent:' in shown
        assert 'Conditions: status.value is planned' in shown
        assert 'Condition met:' in shown
        assert 'name is Bern' in shown

    def test_kind_type_and_user_are_named(self, admin_pages):
        log = event(site(name='Bern'), username='admin')
        chosen = {'preview_source': f'event:{log.pk}'}
        assert 'This kind of change is not chosen: Updated' in draft(admin_pages, type_update='', **chosen)
        other = [ContentType.objects.get_for_model(Device).pk]
        assert 'The object type is not chosen: Site' in draft(admin_pages, object_types_1=other, **chosen)
        admin = User.objects.get(username='admin')
        assert 'Ignored user: admin' in draft(admin_pages, ignore_users=[admin.pk], **chosen)
        assert 'The webhook is disabled.' in draft(admin_pages, enabled='', **chosen)

    @pytest.mark.parametrize(
        ('fields', 'told'),
        [
            ({'body_template': '{"a": {{ data.name }}}'}, 'The content type says JSON, but the body is not valid JSON'),
            ({'conditions': '{"attr": "staus.value", "value": "x"}'}, 'The object has no attribute staus.value.'),
            ({'conditions': '{"or": []}'}, '{"or": []} is never met.'),
        ],
    )
    def test_a_draft_says_in_red_what_is_probably_a_mistake(self, admin_pages, fields, told):
        place = site(name='Bern')
        page = admin_pages.post(NEW, typed(**fields, preview_source=f'object:dcim.site:{place.pk}')).content.decode()
        red = [unescape(one) for one in re.findall(r'alert-danger.*?</div>', page, re.DOTALL)]
        assert any(told in one for one in red)
        page = admin_pages.post(NEW, typed(preview_source=f'object:dcim.site:{place.pk}')).content.decode()
        assert 'alert-danger' not in page

    def test_text_may_be_no_json(self, admin_pages):
        event(site())
        shown = draft(admin_pages, body_template='hello', http_content_type='text/plain')
        assert 'is not the JSON' not in shown

    def test_the_rest_api_shows_the_verdict_too(self, api_client):
        webhook = subscribe(NOWHERE, Site)
        log, place = event(site(name='Bern')), site(name='Genf')
        api = API.format(webhook.pk)
        shown = api_client.get(api, {'source': f'event:{log.pk}'}).json()
        assert (shown['is_sent'], shown['reasons'], shown['warnings']) == (True, [], [])
        changes = {
            'source': f'object:dcim.site:{place.pk}',
            'conditions': {'attr': 'name', 'value': 'x'},
            'body_template': 'no JSON',
        }
        shown = api_client.post(api, changes, format='json').json()
        assert (shown['is_sent'], shown['reasons']) == (False, ['Conditions: name is Genf'])
        assert shown['warnings'][0].startswith('The content type says JSON')
        refused = api_client.get(api, {'source': 'event:99999999'})
        assert (refused.status_code, list(refused.json())) == (400, ['source'])


class TestPermissions:
    def test_it_needs_those_of_saving(self, clerk_pages, grant):
        webhook = subscribe(NOWHERE, Site)
        addresses = (NEW, f'{webhook.get_absolute_url()}draft/')
        grant(Webhook, 'view')
        assert [clerk_pages.post(one, typed()).status_code for one in addresses] == [403, 403]
        grant(Webhook, 'add', 'change', name='another')
        assert [clerk_pages.post(one, typed()).status_code for one in addresses] == [200, 404]

    def test_a_credential_that_the_reader_may_not_view_is_refused(self, clerk_pages, grant):
        event(site())
        grant(Webhook, 'add')
        hidden = Credential.objects.create(name='x', type='bearer', secret='tok3n', hosts=['a.example'])
        assert 'Credential:' in draft(clerk_pages, credential=hidden.pk)
