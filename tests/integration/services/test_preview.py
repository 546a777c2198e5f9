import json
from datetime import timedelta

import pytest
from dcim.models import Device, Region, Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.utils import timezone
from support.admin_browser import filled, page_of
from support.builders import NOWHERE, device, site, subscribe
from support.builtin import rule
from support.log import delivery, event

from webhooks.models import Delivery, Event, Webhook
from webhooks.models.fields import Sealed
from webhooks.security.masking import MASK
from webhooks.services import preview_sources

URL = 'https://a.example/in?token=t0ken'
HEADERS = 'Authorization: Bearer b3arer\nX-Site: {{ data.name }}'

pytestmark = pytest.mark.usefixtures('db')


@pytest.fixture
def webhook(db: None) -> Webhook:
    return subscribe(URL, Site, additional_headers=HEADERS, secret='s3cret', name='Receiver')


def tab(webhook: Webhook) -> str:
    return f'/plugins/webhooks/webhooks/{webhook.pk}/preview/'


def api(webhook: Webhook) -> str:
    return f'/api/plugins/webhooks/webhooks/{webhook.pk}/preview/'


@pytest.fixture
def clerk(clerk_user) -> Client:
    client = Client()
    client.force_login(clerk_user)
    return client


class TestWhatIsShown:
    def test_a_preview_shows_the_latest_event(self, webhook, api_client):
        event(site(name='Bern'))
        event(site(name='Genf'))
        event(site(name='Test'), test=True)
        event(device(name='another model'))
        shown = api_client.get(api(webhook)).data
        assert '"name": "Genf"' in shown['body']
        assert (shown['method'], shown['url']) == ('POST', f'https://a.example/in?token={MASK}')
        assert shown['headers']['Authorization'] == shown['headers']['X-Site'] == MASK
        assert shown['headers']['webhook-signature'] == shown['headers']['X-Hook-Signature'] == MASK

    def test_a_real_object_where_there_is_no_event(self, webhook, api_client):
        """Its data equal the current answer of NetBox's own serializer."""
        site(name='Bern')
        newest = site(name='Genf')
        answer = api_client.post(api(webhook), {'include_snapshots': True}, format='json')
        body = answer.json()['body']
        assert answer.json()['size'] == len(body.encode())
        assert f'"id": {newest.pk}, "url": "/api/dcim/sites/{newest.pk}/"' in body
        assert '"event": "created"' in body
        assert '"prechange": null, "postchange": {' in body

    def test_an_event_without_snapshots_is_not_previewed_for_a_webhook_that_shows_them(self, api_client):
        other = subscribe(NOWHERE, Site, body_template='{{ snapshots.postchange.name }}', include_snapshots=True)
        event(site(name='Bern'))
        site(name='Genf')
        assert api_client.get(api(other)).data['body'] == 'Genf'

    def test_a_webhook_that_only_event_rules_use_is_previewed_with_its_last_event(self, api_client):
        other = subscribe(NOWHERE, body_template='{{ data.name }}')
        assert list(api_client.get(api(other)).data) == ['object_types']
        delivery(event(site(name='Bern')), other)
        assert api_client.get(api(other)).data['body'] == 'Bern'

    def test_a_webhook_that_event_rules_use_seldom_is_previewed_with_its_last_event(self, api_client, monkeypatch):
        monkeypatch.setattr(preview_sources, 'MAX_EVENTS_SEARCHED', 2)
        other = subscribe(NOWHERE, body_template='{{ data.name }}')
        delivery(event(site(name='Bern')), other)
        for _ in range(3):
            event(site())
        assert api_client.get(api(other)).data['body'] == 'Bern'

    def test_an_error_with_its_line(self, webhook, api_client):
        site()
        answer = api_client.post(api(webhook), {'body_template': 'a\n{{ data.x.y }}'}, format='json')
        assert answer.status_code == 400
        assert '(line 2)' in str(answer.data['body_template'])

    def test_keys_to_be_expanded_are_tried(self, webhook, api_client):
        region = Region.objects.create(name='Mittelland', slug='mittelland')
        site(region=region)
        body = api_client.post(api(webhook), {'expand': ['region']}, format='json').json()['body']
        assert f'/api/dcim/regions/{region.pk}/' in body
        assert 'prefix_count' in json.loads(body)['data']['region']
        assert 'prefix_count' not in json.loads(api_client.get(api(webhook)).json()['body'])['data']['region']
        answer = api_client.post(api(webhook), {'expand': ['nobody']}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['expand'])

    def test_an_object_that_cannot_be_rendered(self, webhook, api_client, admin_pages):
        """NetBox's field cannot read an unknown time zone; fields of plugins may fail too."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE dcim_site SET time_zone = 'Nowhere/At_all' WHERE id = %s", [site().pk])
        answer = api_client.get(api(webhook))
        assert answer.status_code == 400
        assert answer.json()['object_types'][0].startswith('The payload cannot be built: ')
        shown = admin_pages.get(tab(webhook))
        assert shown.status_code == 200
        assert 'The payload cannot be built: ' in shown.content.decode()

    def test_a_secret_that_cannot_be_decrypted(self, webhook, api_client, admin_pages):
        event(site())
        Webhook.objects.update(
            previous_secret=Sealed('of a key that is gone'), previous_secret_expires=timezone.now() + timedelta(hours=1)
        )
        assert list(api_client.get(api(webhook)).json()) == ['previous_secret']
        assert 'cannot be decrypted' in admin_pages.get(tab(webhook)).content.decode()

    def test_a_preview_saves_nothing(self, webhook, api_client):
        site()
        before = Event.objects.count()
        api_client.post(api(webhook), {'body_template': 'x'}, format='json')
        assert Webhook.objects.get().body_template == ''
        assert (Event.objects.count(), Delivery.objects.count()) == (before, 0)

    @pytest.mark.parametrize(
        ('name', 'value'), [('ignore_users', ['nobody']), ('only_if_changed', ['staus']), ('payload_url', 'x')]
    )
    def test_a_change_that_it_would_not_show_is_refused(self, webhook, api_client, name, value):
        site()
        answer = api_client.post(api(webhook), {name: value}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, [name])


class TestWhoSees:
    @pytest.fixture(autouse=True)
    def places(self, db: None) -> None:
        for name in ('Bern', 'Genf'):
            event(site(name=name))
        device()

    def test_those_who_may_view_the_object(self, webhook, clerk, clerk_api, grant):
        grant(Webhook, 'view')
        grant(Site, 'view', name='Bern')
        assert '"name": "Bern"' in clerk_api.get(api(webhook)).data['body']
        page = clerk.get(tab(webhook)).content.decode()
        assert 'Bern' in page
        assert 'Genf' not in page

    def test_an_event_is_shown_to_those_only_who_may_view_events(self, clerk, clerk_api, grant):
        """An event tells the user, the request and the former values."""
        webhook = subscribe(NOWHERE, Site, include_snapshots=True, name='Receiver')
        event(site(name='Lyon'), username='alice', snapshots={'prechange': {'name': 'Lugdunum'}, 'postchange': None})
        grant(Webhook, 'view', 'change')
        grant(Site, 'view')
        tried = clerk_api.post(api(webhook), {}, format='json')
        for answer in (tried, clerk_api.get(api(webhook)), clerk.get(tab(webhook))):
            text = answer.content.decode()
            assert 'Lyon' in text
            assert not [word for word in ('alice', 'Lugdunum') if word in text]
        grant(Event, 'view', kind='created')
        assert 'Lugdunum' not in clerk_api.get(api(webhook)).data['body']
        grant(Event, 'view', kind='updated')
        shown = clerk_api.get(api(webhook)).data['body']
        assert 'alice' in shown
        assert 'Lugdunum' in shown

    def test_nobody_else_sees_an_object_where_there_is_no_event(self, webhook, clerk_api, grant):
        Event.objects.all().delete()
        grant(Webhook, 'view')
        grant(Device, 'view')
        assert list(clerk_api.get(api(webhook)).data) == ['object_types']
        grant(Site, 'view', name='Bern')
        assert '"name": "Bern"' in clerk_api.get(api(webhook)).data['body']

    def test_nobody_sees_the_preview_of_a_hidden_webhook(self, webhook, clerk, clerk_api, grant):
        grant(Site, 'view')
        assert clerk.get(tab(webhook)).status_code in (403, 404)
        assert clerk_api.get(api(webhook)).status_code in (403, 404)

    def test_changes_are_tried_by_who_may_change(self, webhook, clerk_api, grant):
        grant(Webhook, 'view')
        grant(Site, 'view')
        assert clerk_api.post(api(webhook), {'body_template': 'x'}, format='json').status_code in (403, 404)
        grant(Webhook, 'change')
        assert clerk_api.post(api(webhook), {'body_template': 'x'}, format='json').data['body'] == 'x'


class TestWithoutObjectTypes:
    """Only enabled event rules send something through such a webhook."""

    NOT_SENT = 'No object types are chosen, and no event rule uses the webhook.'

    @pytest.fixture
    def other(self, db: None) -> Webhook:
        other = subscribe(NOWHERE)
        delivery(event(site()), other)
        return other

    def test_what_no_event_rule_sends_is_not_sent(self, other, api_client):
        shown = api_client.get(api(other)).data
        assert (shown['is_sent'], shown['reasons']) == (False, [self.NOT_SENT])

    def test_what_an_enabled_event_rule_sends_is_sent(self, other, api_client):
        of_rule = rule(other, Site)
        assert api_client.get(api(other)).data['is_sent']
        of_rule.enabled = False
        of_rule.save()
        assert not api_client.get(api(other)).data['is_sent']

    def test_a_draft_whose_types_were_removed_is_not_sent(self, webhook, admin_pages):
        log = event(site())
        types = [ContentType.objects.get_for_model(Site).pk]
        for chosen, is_sent in ((types, True), ([], False)):
            fields = filled(object_types_1=chosen, type_update='on', preview_source=f'event:{log.pk}')
            for address in ('/plugins/webhooks/webhooks/draft/', f'{webhook.get_absolute_url()}draft/'):
                page = admin_pages.post(address, fields).content.decode()
                assert ('This change would be sent' in page) is is_sent
                assert (self.NOT_SENT in page) is not is_sent


class TestPages:
    @pytest.fixture
    def page(self, webhook, admin_pages):
        def read() -> str:
            return admin_pages.get(tab(webhook)).content.decode()

        return read

    def test_a_preview_page_of_an_event_shows_the_request_without_secrets(self, page):
        event(site(name='Bern'))
        text = page()
        assert f'POST https://a.example/in?token={MASK}' in text
        assert f'Authorization: {MASK}' in text
        assert '&quot;name&quot;: &quot;Bern&quot;' in text
        assert not [secret for secret in ('t0ken', 'b3arer', 's3cret') if secret in text]

    def test_a_preview_page_without_an_event_shows_the_newest_object(self, page):
        site(name='Bern')
        assert 'Bern created, with the object as it is now' in page()

    def test_a_name_that_postgresql_cannot_hold_finds_nothing(self, webhook, admin_pages):
        site(name='Bern')
        for name, found in (('Be', True), ('Be\0', False)):
            answer = admin_pages.get(tab(webhook), {'name': name})
            assert answer.status_code == 200
            assert bool(answer.context['choices']) is found

    def test_a_search_looks_into_all_object_types_and_shows_a_few(self, admin_pages, monkeypatch):
        monkeypatch.setattr(preview_sources, 'MAX_TYPE_CHOICES', 1)
        region = Region.objects.create(name='Mittelland', slug='mittelland')
        sources = {'Bern': f'object:dcim.site:{site(name="Bern").pk}', 'Mittel': f'object:dcim.region:{region.pk}'}
        address = tab(subscribe(NOWHERE, Site, Region))

        def found(text: str) -> list[str]:
            page = admin_pages.get(address, {'name': text}).content.decode()
            return [one for one in sources.values() if f'value="{one}"' in page]

        assert {text: found(text) for text in sources} == {text: [one] for text, one in sources.items()}
        assert len(found('e')) == 1

    def test_an_error_of_a_template_is_shown_with_its_line(self, page, webhook):
        Webhook.objects.update(body_template='a\n\n{{ data.x.y }}')
        site()
        text = page().lower()
        assert 'body template: undefinederror' in text
        assert '(line 3)' in text

    def test_the_page_of_a_webhook_leads_to_the_preview(self, webhook, admin_pages):
        for page in (webhook.get_absolute_url(), page_of(webhook)):
            assert f'href="{tab(webhook)}"' in admin_pages.get(page).content.decode()


class TestWhatIsUndecided:
    """Dispatch removes what was before a change, unless a webhook shows it."""

    ASKED = {'only_if_changed': ['status.value', 'region.name', 'custom_fields.owner']}
    BEFORE = {'status': 'planned', 'region': 1, 'custom_fields': {'owner': 'a'}, 'last_updated': '1'}
    CHANGED = {'attr': 'status', 'op': 'changed'}

    def verdict(self, api_client, webhook: Webhook, **asked) -> tuple[bool | None, list[str], list[str]]:
        shown = api_client.get(api(webhook), asked).data
        return shown['is_sent'], shown['reasons'], shown['undecided']

    def test_keys_that_have_to_change_are_named_in_an_undecided_verdict(self, api_client, admin_pages):
        webhook = subscribe(NOWHERE, Site, **self.ASKED)
        event(site())
        told = 'Not checked here: whether one of these changed: status.value, region.name, custom_fields.owner'
        assert self.verdict(api_client, webhook) == (None, [], [told])
        page = admin_pages.get(tab(webhook)).content.decode()
        assert told in page
        assert 'Undecided whether this change would be sent:' in page

    @pytest.mark.parametrize(
        ('after', 'is_sent'),
        [
            ({}, False),
            ({'facility': 'new'}, False),
            ({'status': 'active'}, True),
            ({'custom_fields': {'owner': 'b'}}, True),
            ({'custom_fields': {'owner': 'a', 'other': 1}}, False),
            ({'region': 2}, None),
            ({'region': 2, 'status': 'active'}, True),
        ],
    )
    def test_a_kept_state_before_decides_whether_one_of_the_keys_changed(self, api_client, after, is_sent):
        webhook = subscribe(NOWHERE, Site, **self.ASKED)
        snapshots = {'prechange': self.BEFORE, 'postchange': {**self.BEFORE, 'last_updated': '2', **after}}
        event(site(), snapshots=snapshots)
        told, reasons, undecided = self.verdict(api_client, webhook)
        assert told is is_sent
        keys = 'status.value, region.name, custom_fields.owner'
        assert reasons == ([f'Only if changed: {keys}'] if is_sent is False else [])
        assert bool(undecided) is (is_sent is None)

    def test_a_key_that_the_change_log_lacks_is_undecided(self, api_client):
        webhook = subscribe(NOWHERE, Site, only_if_changed=['prefix_count'])
        event(site(), snapshots={'prechange': self.BEFORE, 'postchange': self.BEFORE})
        assert self.verdict(api_client, webhook)[0] is None

    @pytest.mark.parametrize(
        ('before', 'is_sent'),
        [
            ({'status': 'active', 'last_updated': '1'}, None),
            ({'status': 'planned', 'last_updated': '1'}, True),
            (None, None),
        ],
    )
    def test_whether_anything_changed_is_seen_in_the_change_log(self, api_client, before, is_sent):
        webhook = subscribe(NOWHERE, Site, only_real_changes=True)
        event(site(), snapshots={'prechange': before, 'postchange': {'status': 'active', 'last_updated': '2'}})
        undecided = [] if is_sent else ['Not checked here: whether it is a real change']
        assert self.verdict(api_client, webhook) == (is_sent, [], undecided)

    @pytest.mark.parametrize('other', [{'kind': 'created'}, {'caused_by': ['interface']}, {'backfill_for': 1}])
    def test_an_event_that_compares_nothing_is_decided(self, api_client, other):
        webhook = subscribe(NOWHERE, Site, **self.ASKED)
        event(site(), **other)
        assert self.verdict(api_client, webhook) == (True, [], [])

    def test_an_update_without_a_state_before_is_undecided(self, api_client):
        webhook = subscribe(NOWHERE, Site, kinds=('updated',), **self.ASKED)
        site()
        assert self.verdict(api_client, webhook)[0] is None

    def test_whether_an_object_is_in_the_list_is_undecided(self, api_client):
        webhook = subscribe(NOWHERE, Site, filters={'dcim.site': 'status=active'})
        event(site(status='planned'))
        told = 'Not checked here: whether the object is in the list: status=active'
        assert self.verdict(api_client, webhook) == (None, [], [told])

    def test_conditions_that_need_no_state_before_are_decided_by_the_latest_change(self, admin_pages, api_client):
        webhook = subscribe(NOWHERE, Site, conditions={'attr': 'name', 'value': 'Bern'})
        event(site(name='Bern'))
        event(site(name='Genf'))
        assert self.verdict(api_client, webhook) == (False, ['Conditions: name is Genf'], [])
        types = [ContentType.objects.get_for_model(Site).pk]
        fields = filled(object_types_1=types, type_update='on', conditions='{"attr": "name", "value": "Genf"}')
        page = admin_pages.post('/plugins/webhooks/webhooks/draft/', fields).content.decode()
        assert 'This change would be sent:' in page
        assert 'as it is now' not in page

    @pytest.mark.parametrize(
        'conditions', [CHANGED, {'and': [{'attr': 'snapshots.prechange.status', 'value': 'planned'}]}]
    )
    def test_conditions_on_a_state_before_that_was_not_kept_are_undecided(self, admin_pages, api_client, conditions):
        webhook = subscribe(NOWHERE, Site, conditions=conditions)
        event(site(name='Bern'))
        is_sent, reasons, (told,) = self.verdict(api_client, webhook)
        assert (is_sent, reasons) == (None, [])
        assert told.startswith('The conditions ask for the state before the change, which was not kept')
        page = admin_pages.get(tab(webhook)).content.decode()
        assert 'Undecided whether this change would be sent:' in page
        assert 'as it is now' not in page

    def test_conditions_are_decided_by_a_change_whose_state_before_was_kept(self, api_client):
        webhook = subscribe(NOWHERE, Site, conditions=self.CHANGED)
        log = event(site(), snapshots={'prechange': self.BEFORE, 'postchange': {**self.BEFORE, 'status': 'active'}})
        event(site())
        assert self.verdict(api_client, webhook) == (True, [], [])
        log.snapshots = {'prechange': self.BEFORE, 'postchange': self.BEFORE}
        log.save()
        assert self.verdict(api_client, webhook) == (False, ['Conditions: status did not change'], [])

    def test_an_object_as_it_is_now_has_not_changed(self, api_client):
        webhook = subscribe(NOWHERE, Site, kinds=('updated',), conditions=self.CHANGED)
        source = f'object:dcim.site:{site().pk}'
        told = 'The conditions ask for the state before a change. An object as it is now has none.'
        assert self.verdict(api_client, webhook, source=source) == (None, [], [told])
