"""Credentials go only to their hosts, and nobody is shown them."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.utils import timezone
from support.admin_browser import INIT_TIME
from support.builders import NOWHERE, site, subscribe
from support.engine import (
    dispatch_all,
    in_thread,
    open_transaction,
    pass_retry_waits,
    sender,
    take_turns,
    work,
    working,
)
from support.loopback import OK, Server, serving

from devstack.receiver import Receiver
from webhooks.models import AccessToken, Attempt, Credential, Delivery, Event, Webhook
from webhooks.models.fields import Sealed
from webhooks.payload import authorization
from webhooks.payload.authorization import TokenPending, TokenRequest
from webhooks.payload.http_request import Builder
from webhooks.security.echoes import Echoes
from webhooks.transport.exchange import Answer, Outcome

pytestmark = pytest.mark.usefixtures('committed')

CREDENTIALS = '/api/plugins/webhooks/credentials/'
WEBHOOKS = '/api/plugins/webhooks/webhooks/'
OAUTH2 = {'type': 'oauth2', 'username': 'x', 'token_url': 'https://x/'}
SECRET = 'p4ss/wörd "&+'


def credential(*urls: str, **fields: Any) -> Credential:
    hosts = ['/'.join(url.split('/')[:3]) for url in urls]
    made = Credential(**{'name': 'AWX', 'type': 'bearer', 'secret': 'tok3n-of-awx', 'hosts': hosts, **fields})
    made.full_clean()
    made.save()
    return made


def received(receiver: Receiver, count: int = 1) -> Any:
    work()
    return receiver.wait_for(count)[-1]


class TestWhatIsSent:
    @pytest.mark.parametrize(
        ('fields', 'name', 'value'),
        [
            ({'type': 'bearer', 'secret': 'tok3n'}, 'Authorization', 'Bearer tok3n'),
            ({'type': 'header', 'header': 'X-API-Key', 'secret': 'tok3n'}, 'X-API-Key', 'tok3n'),
            (
                {'type': 'basic', 'username': 'netbox', 'secret': SECRET},
                'Authorization',
                f'Basic {base64.b64encode(f"netbox:{SECRET}".encode()).decode()}',
            ),
            ({'type': 'template', 'secret': 'tok3n'}, 'Authorization', None),
        ],
    )
    def test_each_type_sends_its_header(self, receiver: Receiver, fields: dict[str, str], name: str, value: str):
        subscribe(receiver.url('/'), Site, credential=credential(receiver.url(), **fields))
        site()
        assert received(receiver).header(name) == value

    def test_in_path_query_header_and_body(self, receiver: Receiver):
        subscribe(
            receiver.url('/in/{{ credential.token }}?key={{ credential.token }}'),
            Site,
            credential=credential(receiver.url(), type='template', secret=SECRET),
            additional_headers='X-Token: {{ credential.token }}',
            body_template='{"token": "{{ credential.token }}", "same": {{ credential.token | tojson }}}',
        )
        site()
        request = received(receiver)
        quoted = 'p4ss%2Fw%C3%B6rd%20%22%26%2B'
        assert request.target == f'/in/{quoted}?key={quoted}'
        assert request.header('X-Token').encode('latin-1') in (SECRET.encode(), SECRET.encode('latin-1'))
        assert request.json() == {'token': SECRET, 'same': SECRET}
        (attempt,) = Attempt.objects.all()
        assert attempt.url == receiver.url('/in/********?key=********')

    def test_a_template_puts_the_credential_into_a_form(self, receiver: Receiver):
        subscribe(
            receiver.url('/'),
            Site,
            credential=credential(receiver.url(), type='template', secret=SECRET),
            http_content_type='application/x-www-form-urlencoded',
            body_template='token={{ credential.token }}&ref=main',
        )
        site()
        assert parse_qs(received(receiver).body.decode()) == {'token': [SECRET], 'ref': ['main']}

    def test_a_change_reaches_all_webhooks(self, receiver: Receiver):
        shared = credential(receiver.url())
        for name in 'ab':
            subscribe(receiver.url(f'/{name}'), Site, name=name, credential=shared)
        site()
        received(receiver, 2)
        shared = Credential.objects.get()
        shared.secret = 'an0ther'
        shared.full_clean()
        shared.save()
        site()
        received(receiver, 4)
        seen = [request.header('Authorization') for request in receiver.requests]
        assert seen == ['Bearer tok3n-of-awx'] * 2 + ['Bearer an0ther'] * 2

    def test_an_object_cannot_be_named_like_a_placeholder(self, receiver: Receiver):
        subscribe(
            receiver.url('/'), Site, credential=credential(receiver.url()),
            body_template='{{ data.name }} {{ data.description }}',
        )  # fmt: skip
        name = f'w{"0" * 32}_credential-token_'
        site(name=name, slug='x', description='{{ credential.token }}')
        assert received(receiver).body.decode() == f'{name} {{{{ credential.token }}}}'


class TestHosts:
    @pytest.mark.parametrize(
        ('hosts', 'fields'),
        [
            (['awx.example.com'], {'payload_url': 'https://awx.example.com/x'}),
            (['AWX.example.com:443/'], {'payload_url': 'https://awx.example.com/{{ data.name }}'}),
            (['https://awx.example.com:8443'], {'payload_url': 'https://awx.example.com:8443'}),
            (['http://awx.example.com'], {'payload_url': 'http://awx.example.com/x'}),
            (['http://awx.example.com:443'], {'payload_url': 'https://awx.example.com/', 'ssl_verification': False}),
            (['[::1]:8443'], {'payload_url': 'https://[::1]:8443/'}),
            (['awx.example.com'], {'payload_url': 'https://{{ data.name }}.example.com/'}),
        ],
    )
    def test_it_may_go_there(self, hosts: list[str], fields: dict[str, Any]):
        Webhook(name='x', type_create=True, credential=credential(hosts=hosts), **fields).full_clean()

    @pytest.mark.parametrize(
        ('hosts', 'fields'),
        [
            (['awx.example.com'], {'payload_url': 'https://evil.example.com/'}),
            (['awx.example.com'], {'payload_url': 'http://awx.example.com/'}),
            (['awx.example.com'], {'payload_url': 'https://awx.example.com:8443/'}),
            (['awx.example.com'], {'payload_url': 'https://awx.example.com/', 'ssl_verification': False}),
            (['awx.example.com'], {'payload_url': 'https://awx.example.com@evil.example.com/{{ data.name }}'}),
            (['awx.example.com'], {'payload_url': 'https://awx.example.com.evil.example.com/{{ data.name }}'}),
            (['http://awx.example.com'], {'payload_url': 'https://awx.example.com/'}),
        ],
    )
    def test_a_credential_may_not_go_to_another_host(self, hosts: list[str], fields: dict[str, Any]):
        webhook = Webhook(name='x', type_create=True, credential=credential(hosts=hosts), **fields)
        with pytest.raises(ValidationError) as error:
            webhook.full_clean()
        assert list(error.value.message_dict) == ['credential']

    @pytest.mark.parametrize('name', ['127.0.0.1:1/', 'evil.example.com', '{{ credential.token }}'])
    def test_a_host_that_a_template_makes_is_checked_for_each_request(self, receiver: Receiver, name: str):
        host = receiver.url().split('/')[2]
        url = 'http://{{ credential.token }}/' if 'token' in name else 'http://{{ data.name }}/in'
        secret = host if 'token' in name else 'tok3n-of-awx'
        subscribe(url, Site, credential=credential(receiver.url(), type='template', secret=secret))
        if 'token' not in name:
            site(name=host, slug='good')
            assert received(receiver).target == '/in'
        site(name=name, slug='bad')
        work()
        last = Delivery.objects.order_by('pk').last()
        assert last.status == 'failed'
        assert 'tok3n' not in last.error
        assert len(receiver.requests) == ('token' not in name)

    @pytest.mark.parametrize(
        'changes',
        [
            {'hosts': ['awx.example.com', 'evil.example.com']},
            {'hosts': ['http://awx.example.com']},
            {'token_url': 'https://evil.example.com/token'},
        ],
    )
    def test_to_go_elsewhere_the_secret_is_entered_again(self, changes: dict[str, Any]):
        made = credential(
            hosts=['awx.example.com'], type='oauth2', username='c', token_url='https://login.example.com/'
        )
        for secret in ('', 'entered again'):
            changed = Credential.objects.get(pk=made.pk)
            for name, value in changes.items():
                setattr(changed, name, value)
            if secret:
                changed.secret = secret
                changed.full_clean()
                continue
            with pytest.raises(ValidationError) as error:
                changed.full_clean()
            assert list(error.value.message_dict) == ['secret']

    @pytest.mark.parametrize(
        ('fields', 'wrong'),
        [
            ({'hosts': ['*']}, 'hosts'),
            ({'hosts': ['*.example.com']}, 'hosts'),
            ({'hosts': ['ftp://x']}, 'hosts'),
            ({'hosts': ['user@x']}, 'hosts'),
            ({'hosts': ['x/path']}, 'hosts'),
            ({'hosts': []}, 'hosts'),
            ({'type': 'header'}, 'header'),
            ({'type': 'header', 'header': 'Host'}, 'header'),
            ({'type': 'header', 'header': 'X-Forwarded-For'}, 'header'),
            ({'type': 'header', 'header': 'X: y'}, 'header'),
            ({'type': 'basic', 'username': 'a:b'}, 'username'),
            ({'secret': ''}, 'secret'),
            ({'secret': 'a\nb'}, 'secret'),
            ({'secret': '********'}, 'secret'),
            ({'type': 'oauth2', 'username': 'x'}, 'token_url'),
            ({'type': 'oauth2', 'username': 'x', 'token_url': 'https://u:p@x/'}, 'token_url'),
            ({'type': 'oauth2', 'username': 'x', 'token_url': 'file:///etc/passwd'}, 'token_url'),
            ({**OAUTH2, 'ca_file_path': '/etc/hosts'}, 'ca_file_path'),
        ],
    )
    def test_bad_input_is_named(self, api_client, fields: dict[str, Any], wrong: str):
        body = {'name': 'x', 'type': 'bearer', 'secret': 's3cret', 'hosts': ['x'], **fields}
        answer = api_client.post(CREDENTIALS, body, format='json')
        assert (answer.status_code, list(answer.json())) == (400, [wrong])
        assert not Credential.objects.exists()


def refusal(form: str) -> bytes:
    body = json.dumps(dict(parse_qsl(form))).encode()
    return b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b' % (len(body), body)


def token_answer(token: str, **more: Any) -> bytes:
    body = json.dumps({'access_token': token, 'token_type': 'Bearer', 'expires_in': 3600, **more}).encode()
    return b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b' % (len(body), body)


@pytest.fixture
def login() -> Iterator[Server]:
    """It gives two tokens."""
    with serving(token_answer('t0ken-one'), token_answer('t0ken-two')) as server:
        yield server


def client(receiver: Receiver, server: Server, **fields: Any) -> Credential:
    return credential(
        receiver.url(),
        **{'type': 'oauth2', 'username': 'my client', 'secret': 's3cret&', 'token_url': server.url('/token'), **fields},
    )


def router_to(proxy: Server, subscribed: str) -> type:
    """Return a router that knows one webhook."""

    class Router:
        def route(self, url: str, protocol: str | None, context: dict[str, Any]) -> dict[str, str] | None:
            return {'http': proxy.url()} if context['client'].payload_url == subscribed else None

    return Router


def pass_token_time() -> None:
    AccessToken.objects.update(expires_at=timezone.now())


@contextmanager
def held(shared: Credential) -> Iterator[None]:
    """Somebody saves the credential in a transaction that is still open after the block."""

    def rename() -> None:
        shared.name += ', renamed'
        shared.save()

    with open_transaction(rename):
        yield
        assert not Credential.objects.filter(name=shared.name).exists()


class TestOpenTransactions:
    def test_one_that_saved_a_credential_stops_no_other_webhook(self, receiver: Receiver, login: Server):
        shared = client(receiver, login)
        subscribe(receiver.url('/a'), Site, name='a', credential=shared)
        subscribe(receiver.url('/b'), Site, name='b')
        site()
        with held(shared):
            worker = in_thread(work)
            assert [one.path for one in receiver.wait_for(1)] == ['/b']
        worker.join(60)
        assert [one.path for one in receiver.wait_for(2)] == ['/b', '/a']

    def test_nobody_waits_for_it_with_a_new_token_or_a_refused_one(self, receiver: Receiver, login: Server):
        shared = client(receiver, login)
        builder = Builder(subscribe(receiver.url('/'), Site, credential=shared))
        site()
        dispatch_all()
        request = builder.build(Delivery.objects.get(), 0)
        request.judge(Answer(200, {}, json.dumps({'access_token': 't0ken-one'}), Echoes(())))
        with held(shared):
            request.grant.store(Outcome(started_at=0, duration=0, status=200))
        AccessToken.objects.update(
            token='t0ken-one',
            fetched_at=timezone.now() - timedelta(hours=1),
            expires_at=timezone.now() + timedelta(hours=1),
        )
        request = builder.build(Delivery.objects.get(), 0)
        with held(shared):
            assert not builder.forget_token(request)  # it would be used again


class TestOAuth2:
    def test_one_token_serves_all(self, receiver: Receiver, login: Server):
        shared = client(receiver, login, scope='a b', audience='awx')
        for name in 'ab':
            subscribe(receiver.url(f'/{name}'), Site, name=name, credential=shared)
        for _number in range(3):
            site()
        work()
        assert [one.header('Authorization') for one in receiver.wait_for(6)] == ['Bearer t0ken-one'] * 6
        (asked,) = login.requests
        head, _, body = asked.decode().rpartition('\r\n')
        assert head.startswith('POST /token HTTP/1.1\r\n')
        pair = base64.b64encode(b'my+client:s3cret%26').decode()
        assert f'Authorization: Basic {pair}' in head
        assert 'User-Agent: netbox-webhooks/' in head
        assert parse_qs(body) == {'grant_type': ['client_credentials'], 'scope': ['a b'], 'audience': ['awx']}
        assert {(one.status, one.attempt_count) for one in Delivery.objects.all()} == {('delivered', 1)}

    def test_client_and_secret_in_the_body(self, receiver: Receiver, login: Server):
        subscribe(receiver.url('/'), Site, credential=client(receiver, login, type='oauth2-body'))
        site()
        received(receiver)
        head, _, body = login.requests[0].decode().rpartition('\r\n')
        assert 'Authorization' not in head
        assert parse_qs(body) == {
            'grant_type': ['client_credentials'], 'client_id': ['my client'], 'client_secret': ['s3cret&'],
        }  # fmt: skip

    def test_it_is_renewed_before_it_ends(self, receiver: Receiver, login: Server):
        subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        received(receiver)
        soon, hour = timezone.now() + timedelta(seconds=30), timedelta(hours=1)
        AccessToken.objects.update(expires_at=soon, fetched_at=soon - hour)
        site()
        assert received(receiver, 2).header('Authorization') == 'Bearer t0ken-two'

    def test_after_it_was_fetched_the_webhook_does_not_rest(self, receiver: Receiver, login: Server):
        subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        dispatch_all()
        with sender() as (_pk, own):
            rested = []

            def is_fetched() -> bool:
                rested.extend(lane.rests_until for lane in own.lanes.owned.values())
                return bool(login.requests) and not own.lanes.in_hand

            assert take_turns(own, is_fetched)
            assert set(rested) == {0}

    def test_one_that_another_key_has_sealed_is_fetched_anew(self, receiver: Receiver, login: Server):
        """While keys are replaced, not all processes know the new one."""
        subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        received(receiver)
        AccessToken.objects.update(token=Sealed('by another key'))
        site()
        assert received(receiver, 2).header('Authorization') == 'Bearer t0ken-two'

    def test_while_somebody_renews_it_the_old_one_serves(self, receiver: Receiver, login: Server):
        webhook = subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        received(receiver)
        soon = timezone.now() + timedelta(seconds=30)
        AccessToken.objects.update(expires_at=soon, fetching_until=soon, fetched_at=soon - timedelta(hours=1))
        site()
        assert received(receiver, 2).header('Authorization') == 'Bearer t0ken-one'
        pass_token_time()
        site()
        dispatch_all()
        delivery = Delivery.objects.get(status='pending')
        with pytest.raises(TokenPending):
            Builder(Webhook.objects.get(pk=webhook.pk)).build(delivery, 0)
        AccessToken.objects.update(fetching_until=timezone.now())
        assert isinstance(Builder(Webhook.objects.get(pk=webhook.pk)).build(delivery, 0), TokenRequest)

    def test_one_of_two_workers_fetches_the_access_token_for_both(self, receiver: Receiver, login: Server):
        webhook = subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        dispatch_all()
        delivery = Delivery.objects.get()
        one, other = (Builder(Webhook.objects.get(pk=webhook.pk)) for _number in range(2))
        request = one.build(delivery, 0)
        assert isinstance(request, TokenRequest)
        with pytest.raises(TokenPending):
            other.build(delivery, 0)
        request.judge(Answer(200, {}, json.dumps({'access_token': 't0ken-one', 'expires_in': '3600'}), Echoes(())))
        assert request.grant.store(Outcome(started_at=0, duration=0, status=200)) is None
        for builder in (one, other):
            assert builder.build(delivery, 0).headers['Authorization'] == 'Bearer t0ken-one'

    def test_a_late_answer_does_not_replace_a_newer_token(self, receiver: Receiver, login: Server):
        webhook = subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        dispatch_all()
        request = Builder(webhook).build(Delivery.objects.get(), 0)
        request.judge(Answer(200, {}, json.dumps({'access_token': 'lat3'}), Echoes(())))
        AccessToken.objects.update(fetching_until=timezone.now() + timedelta(hours=1))
        request.grant.store(Outcome(started_at=0, duration=0, status=200))
        assert not AccessToken.objects.get().token

    def test_a_token_server_that_hangs_stops_nobody_else(self, receiver: Receiver, monkeypatch):
        monkeypatch.setattr(authorization, 'TOKEN_REQUEST_SECONDS', 1)
        with serving(None) as silent:
            subscribe(receiver.url('/a'), Site, name='a', credential=client(receiver, silent))
            subscribe(receiver.url('/b'), Site, name='b')
            site()
            work()
            assert [request.path for request in receiver.wait_for(1)] == ['/b']
            waiting = Delivery.objects.get(webhook__name='a')
            assert (waiting.status, waiting.error) == ('pending', 'no access token: no answer within 1 seconds')

    def test_waiting_for_an_access_token_that_another_fetches_costs_no_attempt(self, receiver: Receiver, login: Server):
        subscribe(receiver.url('/'), Site, credential=client(receiver, login), max_attempts=1)
        until = timezone.now() + timedelta(seconds=2)
        AccessToken.objects.update(fetching_until=until)
        site()
        assert received(receiver).header('Authorization') == 'Bearer t0ken-one'
        assert timezone.now() > until
        delivery = Delivery.objects.get()
        assert (delivery.status, delivery.attempt_count) == ('delivered', 1)

    def test_a_token_that_is_refused_is_replaced_at_once(self, receiver: Receiver, login: Server):
        subscribe(receiver.url('/'), Site, credential=client(receiver, login), max_attempts=1)
        site()
        received(receiver)
        AccessToken.objects.update(fetched_at=timezone.now() - timedelta(hours=1))
        receiver.answers('/', 401, 200)
        site()
        assert received(receiver, 3).header('Authorization') == 'Bearer t0ken-two'
        assert {(one.status, one.attempt_count) for one in Delivery.objects.all()} == {('delivered', 1)}

    def test_all_that_went_out_with_it_go_again(self, receiver: Receiver, login: Server):
        webhook = subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        received(receiver)
        AccessToken.objects.update(fetched_at=timezone.now() - timedelta(hours=1))
        site()
        dispatch_all()
        builder, delivery = Builder(webhook), Delivery.objects.get(status='pending')
        requests = [builder.build(delivery, 0) for _number in range(2)]
        assert [builder.forget_token(request) for request in requests] == [True, True]
        assert isinstance(builder.build(delivery, 0), TokenRequest)

    def test_the_same_one_again_that_is_refused_is_a_failure(self, receiver: Receiver):
        """Some servers give the same token as long as it is valid."""
        with serving(token_answer('t0ken-one'), token_answer('t0ken-one')) as server:
            subscribe(receiver.url('/'), Site, credential=client(receiver, server), max_attempts=1)
            site()
            received(receiver)
            AccessToken.objects.update(fetched_at=timezone.now() - timedelta(hours=1))
            receiver.answers('/', 401)
            site()
            with working():
                receiver.wait_for(3)
        assert Delivery.objects.filter(status='failed', response_status=401).count() == 1

    def test_a_new_one_that_is_refused_is_a_failure(self, receiver: Receiver, login: Server):
        receiver.answers('/', 401)
        subscribe(receiver.url('/'), Site, credential=client(receiver, login), max_attempts=1)
        site()
        work()
        delivery = Delivery.objects.get()
        assert (delivery.status, delivery.response_status, len(login.requests)) == ('failed', 401, 1)

    @pytest.mark.parametrize(
        ('answer', 'reason'),
        [
            (b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\ns3cret&', 'HTTP 401 Unauthorized'),
            (b'HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n', 'HTTP 410 Gone'),
            (token_answer('t0ken-one', token_type='mac'), 'the answer contains no bearer token'),
            (
                refusal('error=invalid_client&error_description=No s3cret%26'),
                'the answer contains no bearer token: invalid_client: No ********',
            ),
            (refusal('error_description=Come back later'), 'the answer contains no bearer token: Come back later'),
            (token_answer('t0ken\none'), 'the answer contains no bearer token'),
            (token_answer('t' * 20_000), 'the answer contains no bearer token'),
            (
                b'HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n' + b'[' * 60_000,
                'the answer contains no bearer token',
            ),
        ],
    )
    def test_without_a_token_the_delivery_is_tried_again(self, receiver: Receiver, answer: bytes, reason: str):
        with serving(answer, token_answer('t0ken-one')) as server:
            webhook = subscribe(receiver.url('/'), Site, credential=client(receiver, server))
            site()
            work()
            delivery = Delivery.objects.get()
            assert (delivery.status, delivery.error) == ('pending', f'no access token: {reason}')
            (attempt,) = Attempt.objects.all()
            assert 's3cret' not in str(vars(attempt))
            assert 't0ken-one' not in str(vars(attempt))
            assert receiver.requests == []
            webhook.refresh_from_db()
            assert webhook.enabled
            pass_retry_waits()
            AccessToken.objects.update(fetching_until=timezone.now())
            assert received(receiver).header('Authorization') == 'Bearer t0ken-one'

    def test_the_token_server_is_behind_the_address_guard(self, receiver: Receiver):
        made = credential(
            receiver.url(), type='oauth2', username='c', token_url='http://169.254.169.254/latest/meta-data'
        )
        subscribe(receiver.url('/'), Site, credential=made)
        site()
        work()
        assert 'is in blocked_networks' in Delivery.objects.get().error

    def test_it_goes_through_the_proxy_of_the_webhook(self, settings):
        target = 'http://10.20.30.40/in'
        with serving(token_answer('t0ken-one'), OK) as proxy:
            settings.PROXY_ROUTERS = [router_to(proxy, subscribed=target)]
            made = credential(target, type='oauth2', username='c', token_url='http://10.20.30.41/token')
            subscribe(target, Site, credential=made)
            site()
            assert work() == '1 delivered'
            asked = [request.decode().split()[1] for request in proxy.requests]
        assert asked == ['http://10.20.30.41/token', target]

    @pytest.mark.parametrize('kind', ['bearer', 'oauth2'])
    def test_no_login_of_a_proxy_that_repeats_it_is_in_the_log(self, settings, kind):
        target = 'http://10.20.30.40/in'
        login = base64.b64encode(b'squid:pr0xyp4ss').decode()

        def echo() -> Any:
            text = b'Proxy-Authorization: Basic %b, pr0xyp4ss' % login.encode()
            yield b'HTTP/1.1 407 No\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b' % (text, len(text), text)

        with serving(echo) as proxy:
            url = proxy.url().replace('http://', 'http://squid:pr0xyp4ss@')
            settings.PROXY_ROUTERS = [type('Router', (), {'route': lambda *_args, **_kwargs: {'http': url}})]
            made = credential(target, type=kind, username='c', token_url='http://10.20.30.41/token')
            subscribe(target, Site, credential=made)
            site()
            work()
            assert login in proxy.requests[0].decode()
        attempt = Attempt.objects.get()
        assert '********' in attempt.response_body
        assert not [text for text in ('pr0xyp4ss', login) if text in str(vars(attempt))]

    def test_a_test_fetches_one_too(self, receiver: Receiver, login: Server, api_client):
        webhook = subscribe(receiver.url('/'), Site, credential=client(receiver, login))
        site()
        Event.objects.all().delete()
        answer = api_client.post(f'{WEBHOOKS}{webhook.pk}/test/')
        assert answer.json()['status'] == 'delivered'
        assert receiver.requests[0].header('Authorization') == 'Bearer t0ken-one'

    def test_a_changed_credential_gets_a_new_token(self, receiver: Receiver, login: Server):
        shared = client(receiver, login)
        subscribe(receiver.url('/'), Site, credential=shared)
        site()
        received(receiver)
        shared.scope = 'more'
        shared.save()
        site()
        assert received(receiver, 2).header('Authorization') == 'Bearer t0ken-two'


def test_a_refused_host_is_named_as_it_has_to_be_entered(api_client):
    made = credential('http://127.0.0.1:9142/', hosts=['127.0.0.1:9142'])
    definition = {'name': 'w', 'payload_url': 'http://127.0.0.1:9142/', 'type_create': True, 'credential': made.pk}
    answer = api_client.post(WEBHOOKS, definition, format='json')
    assert 'Add http://127.0.0.1:9142 to the hosts of the credential.' in answer.json()['credential'][0]


class TestApi:
    def test_it_is_made_used_and_never_shown(self, receiver: Receiver, api_client):
        body = {'name': 'AWX', 'type': 'bearer', 'secret': 'tok3n-of-awx', 'hosts': [receiver.url().rstrip('/')]}
        made = api_client.post(CREDENTIALS, body, format='json').json()
        assert 'secret' not in made
        definition = {
            'name': 'w', 'payload_url': receiver.url('/'), 'object_types': ['dcim.site'], 'type_create': True,
            'credential': made['id'],
        }  # fmt: skip
        shown = api_client.post(WEBHOOKS, definition, format='json').json()
        assert shown['credential']['name'] == 'AWX'
        site()
        assert received(receiver).header('Authorization') == 'Bearer tok3n-of-awx'
        api_client.patch(f'{CREDENTIALS}{made["id"]}/', {'secret': 'an0ther'}, format='json')
        texts = [str(change.prechange_data) + str(change.postchange_data) for change in ObjectChange.objects.all()]
        assert any('stamps' in text for text in texts)
        assert not [text for text in texts if 'tok3n-of-awx' in text or 'an0ther' in text]

    def test_a_user_who_may_not_view_a_credential_cannot_use_it(self, api_client, clerk_api, grant):
        made = credential(NOWHERE)
        grant(Webhook, 'add', 'view')
        definition = {'name': 'w', 'payload_url': NOWHERE, 'type_create': True, 'credential': made.pk}
        answer = clerk_api.post(WEBHOOKS, definition, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['credential'])
        assert api_client.post(WEBHOOKS, definition, format='json').status_code == 201

    def test_a_user_who_may_not_view_a_credential_can_keep_it(self, clerk_api, grant):
        made = credential(NOWHERE)
        webhook = subscribe(NOWHERE, Site, credential=made)
        grant(Webhook, 'change', 'view')
        changed = {'name': 'New', 'credential': made.pk}
        assert clerk_api.patch(f'{WEBHOOKS}{webhook.pk}/', changed, format='json').status_code == 200

    def test_one_that_is_used_stays(self, api_client, admin_pages):
        made = credential(NOWHERE)
        webhook = subscribe(NOWHERE, Site, credential=made)
        assert api_client.delete(f'{CREDENTIALS}{made.pk}/').status_code == 409
        with pytest.raises(ProtectedError):
            made.delete()
        page = admin_pages.post(f'/plugins/webhooks/credentials/{made.pk}/delete/', {'confirm': True}, follow=True)
        assert webhook.name in page.content.decode()
        page = admin_pages.post(f'/admin/webhooks/credential/{made.pk}/delete/', {'post': 'yes'})
        assert webhook.name in page.content.decode()
        assert Credential.objects.exists()
        webhook.delete()
        assert api_client.delete(f'{CREDENTIALS}{made.pk}/').status_code == 204

    @pytest.mark.parametrize('message', ['a\0b', 'a' * 201])
    def test_a_change_log_message_that_netbox_cannot_store_is_refused(self, api_client, message: str):
        made = credential(NOWHERE)
        answer = api_client.patch(f'{CREDENTIALS}{made.pk}/', {'changelog_message': message}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['changelog_message'])

    def test_a_list_in_place_of_an_object_is_refused(self, api_client):
        assert api_client.patch(f'{CREDENTIALS}{credential(NOWHERE).pk}/', [], format='json').status_code == 400

    def test_graphql_shows_credentials_without_their_secrets(self, api_client):
        subscribe(NOWHERE, Site, credential=credential(NOWHERE))
        query = '{webhooks_credential_list {name hosts} webhooks_webhook_list {credential {name}}}'
        answer = api_client.post('/graphql/', {'query': query}, format='json').json()
        assert answer['data']['webhooks_webhook_list'] == [{'credential': {'name': 'AWX'}}]
        wrong = api_client.post('/graphql/', {'query': '{webhooks_credential_list {secret}}'}, format='json').json()
        assert 'errors' in wrong

    def test_graphql_finds_those_that_end(self, api_client):
        credential(NOWHERE, name='Soon', valid_until='2027-01-31')
        credential(NOWHERE, name='Later', valid_until='2027-02-01')
        credential(NOWHERE, name='Never')
        query = '{webhooks_credential_list(filters: {valid_until: {lte: "2027-01-31"}}) {name valid_until}}'
        answer = api_client.post('/graphql/', {'query': query}, format='json').json()
        assert answer['data']['webhooks_credential_list'] == [{'name': 'Soon', 'valid_until': '2027-01-31'}]


class TestPages:
    @pytest.mark.parametrize('place', ['/plugins/webhooks/credentials/', '/admin/webhooks/credential/'])
    def test_it_is_made_shown_and_changed(self, admin_pages, place: str):
        fields = {'name': 'AWX', 'type': 'bearer', 'hosts': 'awx.example.com, b.example.com', 'secret': 'tok3n-of-awx'}
        fields['valid_until'] = '2047-01-31'
        answer = admin_pages.post(f'{place}add/', fields)
        assert answer.status_code == 302, answer.content.decode()
        made = Credential.objects.get()
        assert (made.hosts, made.secret.reveal()) == (
            ['https://awx.example.com', 'https://b.example.com'],
            'tok3n-of-awx',
        )
        change = f'{place}{made.pk}/edit/' if 'plugins' in place else f'{place}{made.pk}/change/'
        for page in (place, f'/plugins/webhooks/credentials/{made.pk}/', change):
            shown = admin_pages.get(page)
            assert shown.status_code == 200
            assert 'AWX' in shown.content.decode()
            assert '2047' in shown.content.decode()
            assert 'tok3n-of-awx' not in shown.content.decode()
        answer = admin_pages.post(change, {**fields, 'secret': '', 'description': 'changed'})
        assert answer.status_code == 302, answer.content.decode()
        changed = Credential.objects.get()
        assert (changed.description, changed.secret.reveal()) == ('changed', 'tok3n-of-awx')
        assert changed.valid_until == date(2047, 1, 31)
        refused = admin_pages.post(change, {**fields, 'secret': '', 'hosts': 'evil.example.com'})
        assert 'Enter the secret again' in refused.content.decode()

    @pytest.mark.parametrize('page', ['plugins/webhooks/credentials/{}/edit/', 'admin/webhooks/credential/{}/change/'])
    def test_a_save_of_an_outdated_page_is_refused(self, admin_pages, page: str):
        made = credential(NOWHERE)
        address = f'/{page.format(made.pk)}'
        entered = {'name': made.name, 'type': made.type, 'hosts': ','.join(made.hosts), 'description': 'entered'}
        [entered['_init_time']] = re.findall(INIT_TIME, admin_pages.get(address).content.decode())
        made.save()
        answer = admin_pages.post(address, entered)
        assert 'has been modified since the form was rendered' in answer.content.decode()
        assert Credential.objects.get().description == ''
        assert answer.status_code == 200
        del entered['_init_time']
        assert admin_pages.post(address, entered).status_code == 302

    def test_the_preview_shows_none(self, admin_pages, api_client):
        webhook = subscribe(
            NOWHERE + '{{ credential.token }}/x',
            Site,
            credential=credential(NOWHERE),
            body_template='{"token": "{{ credential.token }}", "hidden": "{{ credential.token | list | join("-") }}"}',
        )
        site()
        shown = api_client.get(f'{WEBHOOKS}{webhook.pk}/preview/').json()
        assert shown['url'] == f'{NOWHERE}********/x'
        assert json.loads(shown['body'])['token'] == '********'
        assert shown['headers']['Authorization'] == '********'
        page = admin_pages.get(f'{webhook.get_absolute_url()}preview/').content.decode()
        for text in (json.dumps(shown), page):
            assert 'tok3n' not in text
            assert 't-o-k-3-n' not in text
