import base64
import html
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.engine import dispatch_all, in_thread, work
from support.loopback import OK, serving

from devstack.receiver import Answer, Manner, Receiver
from webhooks.constants import MAX_RESPONSE_KEPT_CHARS
from webhooks.exceptions import Busy
from webhooks.models import Attempt, Delivery, Event, Webhook
from webhooks.services import trial

pytestmark = pytest.mark.usefixtures('committed')

TOKEN = 't0ken-"of"/the&<receiver>-äöü'
USER, PASSWORD, KEY = 'us3r@corp', 'p4ss/w0rd', 'k3y of the query'
SECRET = 'whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0'
MASK = '********'


def everything(attempt: Attempt) -> str:
    shown = [attempt.url, attempt.request_headers, attempt.response_headers, attempt.error, attempt.delivery.error]
    return json.dumps([*shown, attempt.delivery.webhook.health.last_error], ensure_ascii=False) + attempt.response_body


def echoing(text: str) -> bytes:
    body = text.encode()
    return b'HTTP/1.1 500 %b\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b' % (body, body, len(body), body)


def subscribed(url: str) -> Webhook:
    host = url.removeprefix('http://').rstrip('/')
    return subscribe(
        f'http://{quote(USER, safe="")}:{quote(PASSWORD, safe="")}@{host}/in?key={quote(KEY)}&other=short',
        Site,
        additional_headers=f'X-Token: {TOKEN}\nX-Session: session=s3ss10n-0f-somebody; path=/',
        secret=SECRET,
        max_attempts=1,
    )


SPELLINGS: list[Callable[[str], str]] = [
    str,
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: json.dumps(text).replace('/', '\\/'),
    html.escape,
    lambda text: html.escape(text, quote=False),
    quote,
    lambda text: quote(text, safe=''),
    quote_plus,
    lambda text: f'you sent {text}, {text} and {text}',
]


class TestEchoes:
    def test_a_secret_that_the_answer_repeats_is_not_kept(self):
        secrets = [TOKEN, USER, PASSWORD, KEY, SECRET, SECRET.removeprefix('whsec_')]
        webhooks = []
        with ExitStack() as servers:
            for spell in SPELLINGS:
                answer = echoing(f'begin {" | ".join(map(spell, secrets))} end')
                webhooks.append(subscribed(servers.enter_context(serving(answer)).url()))
            site()
            work()
        for spell, webhook in zip(SPELLINGS, webhooks, strict=True):
            attempt = Attempt.objects.get(delivery__webhook=webhook)
            kept = everything(attempt)
            assert not [secret for secret in secrets if secret in kept or spell(secret) in kept], spell
            assert attempt.response_body.startswith('begin ') and attempt.response_body.endswith(' end'), spell
            assert attempt.response_body.count(' | ') == len(secrets) - 1, spell
            assert MASK in attempt.error, spell
            assert MASK in attempt.response_headers['X-Echo'], spell

    def test_an_endpoint_that_shows_requests_gives_nothing_away(self):
        """Public test services show headers, URL and their meaning."""
        with serving(echo_of_everything()) as server:
            server._answers = [echo_of_everything(server)]
            subscribed(server.url())
            site()
            work()
            request = server.requests[0].decode('latin-1')
        sent = dict(line.split(': ', 1) for line in request.split('\r\n')[1:] if ': ' in line)
        kept = everything(Attempt.objects.get())
        assert 'POST /in?key=' in kept, 'the answer has been kept'
        login = base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()
        assert login in request
        signatures = sent['webhook-signature'].removeprefix('v1,'), sent['X-Hook-Signature']
        for text in (login, quote(KEY), 's3ss10n-0f-somebody', *signatures):
            assert text in request
            assert text[:12] not in kept

    @pytest.mark.parametrize('shift', range(-60, 0, 15))
    def test_a_secret_at_the_end_of_what_is_kept_is_not_kept_in_part(self, shift: int):
        secret = 'Zq' * 30
        filler = '.' * (MAX_RESPONSE_KEPT_CHARS + shift)
        with serving(echoing_body(filler + secret + ' and more')) as server:
            subscribe(server.url(), Site, additional_headers=f'X-Token: {secret}', max_attempts=1)
            site()
            work()
        body = Attempt.objects.get().response_body
        assert len(body) <= MAX_RESPONSE_KEPT_CHARS
        assert body.startswith(filler[:4000])
        assert 'Zq' not in body

    def test_many_secrets_do_not_bring_forth_what_was_cut_off(self):
        """A mask is shorter than its secret, so the cut may move into the next."""
        secret = 'Zq' * 300
        with serving(echoing_body(secret * 100)) as server:
            subscribe(server.url(), Site, additional_headers=f'X-Token: {secret}', max_attempts=1)
            site()
            work()
        body = Attempt.objects.get().response_body
        assert MASK in body
        assert 'Zq' not in body

    def test_a_redirect_that_repeats_a_secret_in_its_path_names_no_secret(self):
        with serving(
            b'HTTP/1.1 302 Found\r\nLocation: /login/%b/\r\nContent-Length: 0\r\n\r\n' % quote(KEY).encode()
        ) as server:
            subscribed(server.url())
            site()
            work()
        attempt = Attempt.objects.get()
        assert 'redirect to another path is not followed' in attempt.error
        assert attempt.response_headers['Location'] == f'/login/{MASK}/'

    def test_an_answer_that_is_no_http_and_repeats_a_secret_names_no_secret(self):
        with serving(lambda: iter([f'{"x" * 480} s3cr3t-of-the-header\r\n\r\n'.encode()])) as server:
            subscribe(server.url(), Site, additional_headers='X-Token: s3cr3t-of-the-header', max_attempts=1)
            site()
            work()
        error = Attempt.objects.get().error
        assert 'BadStatusLine' in error
        assert 's3cr' not in error

    def test_retry_after_is_obeyed_whatever_is_the_same_number(self):
        with serving(b'HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 4\r\n\r\n3600') as server:
            subscribe(f'{server.url()}?window=3600', Site)
            site()
            work()
        waiting = Delivery.objects.get()
        assert (waiting.due_at - waiting.attempts.get().started_at).total_seconds() > 3000
        assert waiting.attempts.get().response_body == MASK


def echoing_body(text: str) -> bytes:
    return b'HTTP/1.1 500 Broken\r\nContent-Length: %d\r\n\r\n%b' % (len(text), text.encode())


def echo_of_everything(server: Any = None) -> Any:
    def parts() -> Iterator[bytes]:
        request = server.requests[-1]
        yield b'HTTP/1.1 500 Broken\r\n\r\n' + request

    return parts


class TestControlCharacters:
    HOSTILE = b'ok\x1b[2J\x0b\x85\x9bforged\r status=delivered\x7f'

    def test_a_reason_phrase_writes_no_line_of_its_own_into_the_log(self, caplog):
        with (
            caplog.at_level(logging.WARNING),
            serving(b'HTTP/1.1 500 %b\r\nContent-Length: 0\r\n\r\n' % self.HOSTILE) as server,
        ):
            subscribe(server.url(), Site, max_attempts=1)
            site()
            work()
        (line,) = [record.getMessage() for record in caplog.records if 'forged' in record.getMessage()]
        assert line.isprintable()
        assert r'ok\x1b[2J' in line
        assert Attempt.objects.get().error.isprintable()
        assert Webhook.objects.get().health.last_error.isprintable()

    def test_values_of_headers_are_kept_in_one_line_each(self, admin_pages):
        answer = b'HTTP/1.1 500 Broken\r\nX-Name: a\x1bb\x9bc\r\nContent-Length: 0\r\n\r\n'
        with serving(answer) as server:
            subscribe(server.url(), Site, max_attempts=1)
            site()
            work()
        headers = Attempt.objects.get().response_headers
        assert headers['X-Name'] == r'a\x1bb\x9bc'
        page = admin_pages.get(Delivery.objects.get().get_absolute_url()).content.decode()
        assert r'\x1b' in page
        assert '\x1b' not in page

    def test_a_reason_why_nothing_was_sent_is_one_line_too(self, caplog):
        """A plugin may raise it while rendering."""
        subscribe('http://127.0.0.1:9/', Site, max_attempts=1)
        site()
        dispatch_all()
        Event.objects.update(data='', error='ValueError: x\nERROR webhooks.delivery forged\x1b[2J\x85')
        with caplog.at_level(logging.WARNING):
            work()
        messages = [record.getMessage() for record in caplog.records if record.name == 'webhooks.delivery']
        assert [r'x\nERROR webhooks.delivery forged\x1b[2J\x85' in one for one in messages] == [True]
        assert all(one.isprintable() for one in (*messages, Attempt.objects.get().error))


class TestCharsets:
    def test_an_answer_with_a_charset_that_is_none_of_texts_is_read_as_utf8(self):
        """64 KiB of Punycode take a second of the processor, while nobody else is served."""
        charsets = (b'punycode', b'idna', b'unicode_escape', b'rot13', b'undefined', b'none')
        body = 'Zürich \\x41'.encode()
        answer = b'HTTP/1.1 500 Broken\r\nContent-Type: text/plain; charset=%b\r\nContent-Length: %d\r\n\r\n%b'
        with ExitStack() as servers:
            for charset in charsets:
                server = servers.enter_context(serving(answer % (charset, len(body), body)))
                subscribe(server.url(), Site, max_attempts=1)
            site()
            work()
        assert [attempt.response_body for attempt in Attempt.objects.all()] == [body.decode()] * len(charsets)

    def test_a_charset_of_a_text_is_read(self):
        with serving(
            b'HTTP/1.1 500 Broken\r\nContent-Type: text/plain; charset=utf-16\r\nContent-Length: 14\r\n\r\n'
            + 'Zürich'.encode('utf-16')
        ) as server:
            subscribe(server.url(), Site, max_attempts=1)
            site()
            work()
        assert Attempt.objects.get().response_body == 'Zürich'


class TestChunks:
    """Chunk extensions are read, but count for no body."""

    @pytest.mark.parametrize('size', [b'1', b'0'])
    def test_an_answer_that_has_more_beside_its_chunks_than_in_them_is_given_up(self, size: bytes):
        def endless() -> Iterator[bytes]:
            yield b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
            while True:
                yield size + b';x=' + b'x' * 60_000 + b'\r\na\r\n'

        with serving(endless) as server:
            subscribe(server.url(), Site, max_attempts=1)
            site()
            work()
        assert 'the lines of the chunks are longer than 524288 bytes' in Attempt.objects.get().error

    def test_an_answer_in_chunks_of_a_byte_is_read(self):
        body = b''.join(b'1\r\n%c\r\n' % byte for byte in b'answer' * 10_000)
        with serving(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + body + b'0\r\n\r\n') as server:
            subscribe(server.url(), Site)
            site()
            work()
        assert Attempt.objects.get().response_body.startswith('answeranswer')
        assert Delivery.objects.get().status == 'delivered'


class TestSlowEndpoints:
    def test_a_test_waits_no_longer_than_a_web_thread_may(self, monkeypatch, receiver: Receiver):
        """10 seconds, shortened here."""
        monkeypatch.setattr(trial, 'MAX_TEST_SECONDS', 0.2)
        site()
        receiver.answers('/', Answer(200, manner=Manner.HANG))
        webhook = subscribe(receiver.url('/'), Site, timeout=60)
        sent = trial.send_test(webhook)
        assert (
            'within 0.2 seconds. A test does not wait any longer, but a delivery waits up to 60 seconds' in sent.error
        )
        assert Webhook.objects.get().health.unreachable == 0, 'it is not out of reach for that'

    def test_tests_of_slow_endpoints_hold_few_web_threads(self, monkeypatch):
        monkeypatch.setattr(trial, 'MAX_TEST_SECONDS', 60)
        site()
        monkeypatch.setattr(trial, 'MAX_TESTS', 2)
        with serving(None) as server:
            webhooks = [subscribe(server.url(), Site, name=f'Slow {number}', timeout=60) for number in range(4)]
            begun = [in_thread(lambda webhook=webhook: trial.send_test(webhook)) for webhook in webhooks[:2]]
            while len(server.requests) < 2:
                threading.Event().wait(0.01)
            with pytest.raises(Busy, match='Too many tests are running'):
                trial.send_test(webhooks[2])
            server.close()
            for thread in begun:
                thread.join(30)
        with serving(OK) as server:
            assert trial.send_test(subscribe(server.url(), Site, name='Quick')).status == 'delivered'

    def test_one_webhook_is_tested_once_at_a_time(self, api_client, monkeypatch):
        monkeypatch.setattr(trial, 'MAX_TEST_SECONDS', 60)
        site()
        with serving(None) as server:
            webhook = subscribe(server.url(), Site, timeout=60)
            begun = in_thread(lambda: trial.send_test(webhook))
            while not server.requests:
                threading.Event().wait(0.01)
            answer = api_client.post(f'/api/plugins/webhooks/webhooks/{webhook.pk}/test/')
            assert (answer.status_code, 'already running' in answer.data['detail']) == (503, True)
            server.close()
            begun.join(30)
        assert api_client.post(f'/api/plugins/webhooks/webhooks/{webhook.pk}/test/').status_code == 201
