import ipaddress
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Site
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.engine import work
from support.loopback import serving
from support.settings import change_settings

from devstack.receiver import Answer, Receiver
from webhooks.models import AccessToken, Credential, Delivery, Webhook

pytestmark = pytest.mark.usefixtures('committed')

API, PAGES = '/api/plugins/webhooks/', '/plugins/webhooks/'
EVIL = 'http://127.0.0.1:7/'
SECRET = 'tok3n-of-awx'


def credential(url: str = NOWHERE, **fields: Any) -> Credential:
    hosts = ['/'.join(url.split('/')[:3])]
    made = Credential(**{'name': 'AWX', 'type': 'bearer', 'secret': SECRET, 'hosts': hosts, **fields})
    made.full_clean()
    made.save()
    return made


def by_patch(api: Any, pages: Any, pk: int, values: dict[str, Any]) -> Any:
    return api.patch(f'{API}webhooks/{pk}/', values, format='json')


def by_bulk_patch(api: Any, pages: Any, pk: int, values: dict[str, Any]) -> Any:
    return api.patch(f'{API}webhooks/', [{'id': pk, **values}], format='json')


def by_import(api: Any, pages: Any, pk: int, values: dict[str, Any]) -> Any:
    given = values | ({'credential': 'AWX'} if 'credential' in values else {})
    lines = ','.join(['id', *given]) + '\n' + ','.join([str(pk), *map(str, given.values())])
    return pages.post(f'{PAGES}webhooks/import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})


def by_bulk_edit(api: Any, pages: Any, pk: int, values: dict[str, Any]) -> Any:
    return pages.post(f'{PAGES}webhooks/edit/', {'pk': [pk], '_apply': '1', **values})


Door = Callable[[Any, Any, int, dict[str, Any]], Any]


class TestAnotherHost:
    @pytest.mark.parametrize('door', [by_patch, by_bulk_patch, by_import])
    def test_a_webhook_cannot_take_it_along(self, api_client, admin_pages, door: Door):
        webhook = subscribe(NOWHERE, Site, credential=credential())
        answer = door(api_client, admin_pages, webhook.pk, {'payload_url': EVIL})
        assert answer.status_code in (200, 400)
        assert 'not be sent to this host' in answer.content.decode()
        webhook.refresh_from_db()
        assert webhook.payload_url.reveal() == NOWHERE
        answer = door(api_client, admin_pages, webhook.pk, {'payload_url': f'{NOWHERE}other'})
        assert answer.status_code in (200, 302)

    @pytest.mark.parametrize('door', [by_patch, by_bulk_patch, by_import, by_bulk_edit])
    def test_a_webhook_that_leads_elsewhere_cannot_take_it(self, api_client, admin_pages, door: Door):
        made, webhook = credential(), subscribe(EVIL, Site)
        answer = door(api_client, admin_pages, webhook.pk, {'credential': made.pk})
        assert answer.status_code in (200, 400)
        assert 'not be sent to this host' in answer.content.decode()
        webhook.refresh_from_db()
        assert webhook.credential is None

    @pytest.mark.parametrize('door', [by_bulk_edit, by_import, by_patch])
    def test_verification_cannot_be_turned_off_with_a_credential_for_https(self, api_client, admin_pages, door: Door):
        made = credential(hosts=['awx.example.com'])
        webhook = subscribe('https://awx.example.com/', Site, credential=made)
        answer = door(api_client, admin_pages, webhook.pk, {'ssl_verification': 'false'})
        assert (
            'Turn verification on, or add http://awx.example.com:443 to the hosts of the credential'
            in answer.content.decode()
        )
        webhook.refresh_from_db()
        assert webhook.ssl_verification

    def test_a_redirect_is_not_followed(self, receiver: Receiver):
        with Receiver() as evil:
            receiver.answers('/', Answer(307, headers={'Location': evil.url('/')}))
            subscribe(receiver.url('/'), Site, credential=credential(receiver.url()), max_attempts=1)
            site()
            work()
            assert Delivery.objects.get().response_status == 307
            assert evil.requests == []

    def test_a_credential_is_not_sent_to_a_host_that_was_saved_unchecked(self, receiver: Receiver):
        with Receiver() as evil:
            webhook = subscribe(receiver.url('/'), Site, credential=credential(receiver.url()), max_attempts=1)
            Webhook.objects.filter(pk=webhook.pk).update(payload_url=evil.url('/'))
            site()
            work()
            assert 'not be sent to this host' in Delivery.objects.get().error
            assert evil.requests == []

    def test_a_host_that_was_taken_away_gets_nothing(self, receiver: Receiver):
        made = credential(receiver.url(), hosts=[receiver.url().rstrip('/'), 'b.example.com'])
        subscribe(receiver.url('/'), Site, credential=made, max_attempts=1)
        made.hosts = ['b.example.com']
        made.full_clean()
        made.save()
        site()
        work()
        assert 'not be sent to this host' in Delivery.objects.get().error
        assert receiver.requests == []

    @pytest.mark.parametrize('kind', ['bearer', 'header', 'template', 'basic'])
    def test_a_clients_secret_does_not_become_a_token(self, api_client, kind: str):
        made = credential(type='oauth2', username='c', token_url='https://login.example.com/', header='X-Key')
        answer = api_client.patch(f'{API}credentials/{made.pk}/', {'type': kind}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['secret'])

    def test_a_copy_needs_the_permission(self, clerk_pages, grant):
        made = credential()
        webhook = subscribe(NOWHERE, Site, credential=made)
        grant(Webhook, 'view', 'add')
        copy = clerk_pages.get(f'{PAGES}webhooks/add/', webhook.clone())
        assert copy.status_code == 200
        form = {name: copy.context['form'][name].value() for name in copy.context['form'].fields}
        form = {name: value for name, value in form.items() if value not in (None, False)}
        answer = clerk_pages.post(f'{PAGES}webhooks/add/', form | {'name': 'Copy', 'credential': made.pk})
        assert 'credential' in answer.context['form'].errors
        assert Webhook.objects.count() == 1

    def test_an_import_or_bulk_edit_needs_it(self, clerk_pages, grant):
        made, webhook = credential(), subscribe(NOWHERE, Site)
        grant(Webhook, 'view', 'add', 'change')
        for door in (by_import, by_bulk_edit):
            assert door(None, clerk_pages, webhook.pk, {'credential': made.pk}).status_code == 200
        webhook.refresh_from_db()
        assert webhook.credential is None


class TestReaders:
    def test_others_are_shown_the_name_only(self, clerk_api, grant):
        made = credential(hosts=[NOWHERE.rstrip('/'), 'h1dden.example.com'], type='basic', username='us3r')
        subscribe(NOWHERE, Site, credential=made)
        grant(Webhook, 'view')
        shown = clerk_api.get(f'{API}webhooks/').json()['results'][0]['credential']
        assert shown.keys() == {'id', 'url', 'display', 'name', 'description'}
        assert clerk_api.get(f'{API}credentials/').status_code == 403
        query = '{webhooks_webhook_list {name credential {name hosts username}}}'
        answer = clerk_api.post('/graphql/', {'query': query}, format='json').content.decode()
        assert 'Webhook' in answer
        assert 'h1dden' not in answer
        assert 'us3r' not in answer

    def test_a_preview_shows_masks_to_them(self, clerk_api, clerk_pages, grant):
        template = '{"token": "{{ credential.token }}", "spelt": "{{ credential.token | list | join("-") }}"}'
        made = credential(type='header', header='X-Key')
        webhook = subscribe(f'{NOWHERE}{{{{ credential.token }}}}', Site, credential=made, body_template=template)
        site()
        grant(Webhook, 'view', 'change')
        grant(Site, 'view')
        answers = [
            clerk_api.get(f'{API}webhooks/{webhook.pk}/preview/'),
            clerk_api.post(f'{API}webhooks/{webhook.pk}/preview/', {'body_template': template}, format='json'),
            clerk_pages.get(f'{PAGES}webhooks/{webhook.pk}/preview/'),
        ]
        for answer in answers:
            assert '********' in answer.content.decode()
            assert SECRET not in answer.content.decode()
            assert '-'.join(SECRET) not in answer.content.decode()

    @pytest.mark.parametrize('secret', ['p4ss/wörd "&+\'<tok3n>', 'a=b;c d\\e%2Fq'])
    def test_an_answer_that_repeats_the_request_is_masked(self, secret: str):
        box: list[Any] = []

        def echo() -> Any:
            request = box[0].requests[-1]
            yield b'HTTP/1.1 500 %b\r\n\r\n%b' % (request.split(b'\r\n')[0], request)

        with serving(echo) as server:
            box.append(server)
            url = server.url('/')
            made = credential(url, type='template', secret=secret)
            token = '{{ credential.token }}'
            fields = {'credential': made, 'max_attempts': 1, 'additional_headers': f'X-Token: {token}'}
            body = f'{{"token": "{token}"}}'
            subscribe(f'{url}{token}/x?key={token}', Site, **fields, body_template=body)
            form = {'http_content_type': 'application/x-www-form-urlencoded', 'body_template': f'token={token}'}
            subscribe(url, Site, **fields, **form)
            site()
            work()
        assert len(server.requests) == 2
        for delivery in Delivery.objects.all():
            (attempt,) = delivery.attempts.all()
            kept = f'{attempt.url} {attempt.error} {attempt.response_headers} {attempt.response_body}'
            assert '********' in attempt.response_body
            assert not [part for part in ('p4ss', 'tok3n', 'c d', 'c+d', 'c%20d') if part in kept], kept


def answered(body: bytes) -> bytes:
    return b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b' % (len(body), body)


def send_with_tokens_of(receiver: Receiver, *answers: bytes) -> list[int]:
    """Send a change by a webhook for each answer of a token server. Return how often each server was asked."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(answer)) for answer in answers]
        for number, server in enumerate(servers):
            login = {'type': 'oauth2', 'username': 'c', 'token_url': server.url('/')}
            subscribe(receiver.url('/'), Site, credential=credential(receiver.url(), name=f'{number}', **login))
        site()
        work()
        return [len(server.requests) for server in servers]


class TestTokenServers:
    def test_an_odd_time_of_validity_does_no_harm(self, receiver: Receiver):
        odd = ('Infinity', '-Infinity', 'NaN', '1e999', '-1', '0', '""', '"soon"', '"3600.5"', 'null', '[1]')
        granted = '{{"access_token": "t0ken", "token_type": "Bearer", "expires_in": {}}}'
        asked = send_with_tokens_of(receiver, *(answered(granted.format(expires).encode()) for expires in odd))
        assert [one.header('Authorization') for one in receiver.requests] == ['Bearer t0ken'] * len(odd)
        assert asked == [1] * len(odd)
        until = [token.expires_at for token in AccessToken.objects.all()]
        assert len(until) == len(odd)
        assert all(timezone.now() < one < timezone.now() + timedelta(days=1, seconds=1) for one in until)

    def test_an_answer_without_a_token_is_an_error(self, receiver: Receiver):
        without = (b'[]', b'null', b'"x"', b'{', b'\xff\xfe', b'{"access_token": ["x"]}', b'9' * 9999, b'x' * 2**20)
        send_with_tokens_of(receiver, *map(answered, without))
        shown = [(delivery.status, delivery.error) for delivery in Delivery.objects.all()]
        assert shown == [('pending', 'no access token: the answer contains no bearer token')] * len(without)
        assert receiver.requests == []

    def test_a_redirect_takes_no_secret_along(self, receiver: Receiver):
        with (
            Receiver() as evil,
            serving(
                b'HTTP/1.1 307 Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n' % evil.url('/').encode()
            ) as server,
        ):
            made = credential(receiver.url(), type='oauth2-body', username='c', token_url=server.url('/'))
            subscribe(receiver.url('/'), Site, credential=made)
            site()
            work()
            assert evil.requests == []
        assert Delivery.objects.get().error.startswith('no access token: ')

    def test_a_blocked_address_is_not_asked(self, receiver: Receiver, monkeypatch):
        with serving(answered(b'{"access_token": "t0ken"}')) as server:
            made = credential(receiver.url(), type='oauth2', username='c', token_url=server.url('/'))
            subscribe(receiver.url('/'), Site, credential=made)
            change_settings(monkeypatch, blocked_networks=(ipaddress.ip_network('127.0.0.0/8'),))
            site()
            work()
            error = Delivery.objects.get().error
            assert error.startswith('no access token: ')
            assert 'is in blocked_networks' in error
            assert server.requests == []
