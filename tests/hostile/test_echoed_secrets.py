"""Who may edit and test a webhook, but sees no secret, learns none from what the endpoint repeats."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dcim.models import Site
from support.builders import NOWHERE, site, subscribe
from support.engine import work
from support.loopback import Server, serving

from devstack.receiver import Receiver
from webhooks.constants import MAX_HEADER_VALUE_CHARS, MAX_HEADERS_CHARS, MAX_SENT_URL_CHARS
from webhooks.models import Attempt, Credential, Delivery, Webhook

API = '/api/plugins/webhooks/webhooks/'
MASK = '********'
TOKEN, NUMBER = 'Xk7-q9Lm/2v', '8067153924'


def repeating(box: list[Server]) -> Any:
    """As public test services do: headers as JSON, and one as a number."""

    def answer() -> Iterator[bytes]:
        lines = box[0].requests[-1].decode('latin-1').split('\r\n')[1:]
        headers = dict(line.split(': ', 1) for line in lines if ': ' in line)
        said = {'headers': headers, 'number': int(headers['X-Number']), 'ok': True, 'sum': f'the {headers["X-Token"]}.'}
        body = json.dumps(said).encode()
        yield b'HTTP/1.1 200 OK\r\nX-Echo: %b\r\nX-Done: yes\r\n\r\n%b' % (headers['X-Token'].encode(), body)

    return answer


@pytest.fixture
def endpoint() -> Iterator[Server]:
    box: list[Server] = []
    with serving(repeating(box)) as server:
        box.append(server)
        yield server


@pytest.fixture
def webhook(committed: None, endpoint: Server) -> Webhook:
    site()
    host = endpoint.url('').rstrip('/')
    made = Credential(name='Login', type='header', header='X-Key', hosts=[host], secret='c0urier-9')
    made.full_clean()
    made.save()
    headers = f'X-Token: {TOKEN}\nX-Number: {NUMBER}'
    return subscribe(endpoint.url(), Site, additional_headers=headers, credential=made, max_attempts=1)


class TestSuccessConditions:
    """Each test answers a question: met or not."""

    @pytest.fixture
    def is_met(self, webhook: Webhook, clerk_api, grant) -> Any:
        grant(Webhook, 'view', 'change', 'test')
        grant(Site, 'view')

        def ask(attr: str, op: str, value: Any) -> bool:
            condition = {'attr': attr, 'op': op, 'value': value}
            sent = {'success_conditions': condition}
            assert clerk_api.patch(f'{API}{webhook.pk}/', sent, format='json').status_code == 200
            answer = clerk_api.post(f'{API}{webhook.pk}/test/')
            assert answer.status_code == 201
            return answer.json()['status'] == 'delivered'

        return ask

    def test_they_tell_no_secret_letter_by_letter(self, is_met, endpoint: Server):
        questions = [
            ('text', 'contains', TOKEN[:4]),
            ('text', 'contains', f'the {TOKEN[:1]}'),
            ('text', 'contains', TOKEN),
            ('text', 'contains', NUMBER[:5]),
            ('text', 'contains', 'c0ur'),
            ('body.sum', 'contains', f'the {TOKEN[:1]}'),
            ('body.headers.X-Token', 'contains', TOKEN[:3]),
            ('body.headers.X-Key', 'eq', 'c0urier-9'),
            ('body.headers.X-Number', 'contains', NUMBER[:1]),
            ('body.number', 'gt', int(NUMBER) - 1),
            ('body.number', 'lt', int(NUMBER) + 1),
            ('headers.x-echo', 'contains', TOKEN[:1]),
            ('headers.x-echo', 'eq', TOKEN),
        ]
        assert [question for question in questions if is_met(*question)] == []
        sent = endpoint.requests[-1].decode()
        assert all(secret in sent for secret in (TOKEN, NUMBER, 'c0urier-9'))

    def test_success_conditions_see_all_of_an_answer_but_secrets(self, is_met):
        questions = [
            ('text', 'contains', f'"X-Token": "{MASK}"'),
            ('body.sum', 'eq', f'the {MASK}.'),
            ('body.number', 'eq', MASK),
            ('body.ok', 'eq', True),
            ('headers.x-echo', 'eq', MASK),
            ('headers.x-done', 'eq', 'yes'),
        ]
        assert [question for question in questions if not is_met(*question)] == []


class TestWhatIsSent:
    """All that is in a request is looked for in its answer, so it has bounds. No web server takes more."""

    @pytest.mark.parametrize(
        ('headers', 'reason'),
        [
            (f'X-Big: {"x" * (MAX_HEADER_VALUE_CHARS + 1)}', 'The value of X-Big has 8193 characters'),
            ('\n'.join(f'X-{number}: {"x" * 8000}' for number in range(5)), 'The headers up to X-4 have 40015'),
        ],
    )
    def test_headers_of_more_are_refused_by_name(self, db, api_client, headers: str, reason: str):
        webhook = subscribe(NOWHERE, Site)
        answer = api_client.patch(f'{API}{webhook.pk}/', {'additional_headers': headers}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['additional_headers'])
        assert answer.json()['additional_headers'][0].startswith(reason)

    def test_headers_of_as_many_are_not(self, db, api_client):
        webhook = subscribe(NOWHERE, Site)
        most = [f'X-{number}: {"x" * MAX_HEADER_VALUE_CHARS}' for number in range(3)]
        most.append(f'X-3: {"x" * (MAX_HEADERS_CHARS - 3 * MAX_HEADER_VALUE_CHARS - 12)}')
        template = f'X-4: {"{# long #}" * 900}'
        for headers in ('\n'.join(most), template):
            answer = api_client.patch(f'{API}{webhook.pk}/', {'additional_headers': headers}, format='json')
            assert answer.status_code == 200, answer.content

    @pytest.mark.parametrize(
        ('fields', 'error'),
        [
            (
                {'additional_headers': 'X-Big: {% for n in range(30000) %}{{ n }} {% endfor %}'},
                'not sent: additional_headers: The value of X-Big has 168889 characters',
            ),
            (
                {'additional_headers': '\n'.join(f'X-{n}: {{{{ "x" * 8000 }}}}' for n in range(5))},
                'not sent: additional_headers: The headers up to X-4 have 40015 characters',
            ),
            (
                {'path': '?x={{ "x" * 9000 }}'},
                'not sent: payload_url: The URL has 90',
            ),
        ],
    )
    def test_a_template_that_makes_more_fails_the_delivery_by_name(
        self, committed, receiver: Receiver, fields: dict[str, str], error: str
    ):
        subscribe(receiver.url('/') + fields.pop('path', ''), Site, **fields)
        site()
        work()
        delivery = Delivery.objects.get()
        assert delivery.status == 'failed'
        assert delivery.error.startswith(error)
        assert receiver.requests == []

    def test_so_does_a_stored_header_of_an_earlier_version(self, committed, receiver: Receiver):
        webhook = subscribe(receiver.url('/'), Site)
        Webhook.objects.filter(pk=webhook.pk).update(additional_headers=f'X-Big: {"x" * (MAX_HEADER_VALUE_CHARS + 1)}')
        site()
        work()
        assert Delivery.objects.get().error.startswith('not sent: additional_headers: The value of X-Big has 8193')

    def test_many_parts_that_the_answer_repeats_are_not_kept(self, committed):
        parts = [f'p{number:07}' for number in range(900)]
        headers = '\n'.join(f'X-{n}: {" ".join(f"{part}{n}" for part in parts)}'[:8000] for n in range(4))
        box: list[Server] = []

        def answer() -> Iterator[bytes]:
            repeated = box[0].requests[-1]
            yield b'HTTP/1.1 500 p00000011\r\nX-Echo: p00000021\r\n\r\n%b' % repeated[:60_000]

        with serving(answer) as server:
            box.append(server)
            subscribe(server.url(), Site, additional_headers=headers, max_attempts=1)
            site()
            work()
        attempt = Attempt.objects.get()
        kept = f'{attempt.error} {attempt.response_headers} {attempt.response_body}'
        assert 'p0000' not in kept
        assert (attempt.error, attempt.response_headers['X-Echo']) == (f'HTTP 500 {MASK}', MASK)
        assert attempt.response_body == MASK

    def test_the_longest_url_is_sent(self, committed, receiver: Receiver):
        length = MAX_SENT_URL_CHARS - len(receiver.url('/')) - 3
        subscribe(receiver.url(f'/?x={{{{ "x" * {length} }}}}'), Site)
        site()
        work()
        assert len(receiver.requests) == 1
