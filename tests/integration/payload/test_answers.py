import json
from typing import Any

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.engine import pass_retry_waits, work
from support.loopback import serving

from webhooks.models import Attempt, Delivery, Webhook

pytestmark = pytest.mark.usefixtures('committed')

OK = {'attr': 'body.ok', 'value': True}
NOT_MET = 'the answer does not meet success_conditions'


def answer(body: Any, status: int = 200, headers: str = '') -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f'HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n{headers}\r\n'.encode() + text


def sent(conditions: Any, *answers: bytes, **fields: Any) -> Delivery:
    with serving(*answers) as server:
        subscribe(server.url(), Site, success_conditions=conditions, **fields)
        site()
        work()
    return Delivery.objects.get()


@pytest.mark.parametrize(
    ('conditions', 'good'),
    [
        (OK, answer({'ok': True})),
        ({'attr': 'body.result.response', 'value': 'success'}, answer({'result': {'response': 'success'}})),
        ({'attr': 'status', 'value': 201}, answer({}, 201)),
        ({'attr': 'headers.x-done', 'value': 'yes'}, answer({}, headers='X-Done: yes\r\n')),
        ({'attr': 'text', 'value': 'ok'}, answer(b'ok')),
        ({'attr': 'body', 'value': None}, answer(b'')),
        ({'attr': 'text', 'op': 'contains', 'value': 'error', 'negate': True}, answer(b'fine')),
        (OK, answer({'long': 'x' * 10_000, 'ok': True})),
        ({}, answer({'ok': False})),
    ],
)
def test_an_answer_that_meets_the_success_conditions_is_a_success(conditions: Any, good: bytes):
    delivery = sent(conditions, good)
    assert (delivery.status, delivery.error) == ('delivered', '')


@pytest.mark.parametrize(
    ('conditions', 'bad', 'reason'),
    [
        (OK, answer({'ok': False}), NOT_MET),
        (OK, answer({}), f'{NOT_MET}: Invalid key path: body.ok'),
        (OK, answer(b'<html>'), f'{NOT_MET}: Invalid key path: body.ok'),
        ({'attr': 'body.n', 'op': 'gt', 'value': 1}, answer({'n': 'x'}), NOT_MET),
        (OK, answer({'ok': True}, 500), 'HTTP 500 X'),
        (OK, answer({'ok': True}, 302), 'HTTP 302: redirect to nowhere is not followed'),
        # A hostile endpoint might answer this.
        (OK, answer(b'[' * 60_000), NOT_MET),
        (OK, answer(b'{"ok":' * 9_000 + b'1' + b'}' * 9_000), NOT_MET),
        (OK, answer(b'{"ok": ' + b'9' * 60_000 + b'}'), NOT_MET),
        (OK, answer(b'{"ok": NaN}'), NOT_MET),
        (OK, answer(b'{"ok": true, "x": "' + b'y' * 70_000 + b'"}'), NOT_MET),
        (OK, answer(b'{"ok": "\\ud800\\u0000"}'), NOT_MET),
        ({'attr': 'body.a.b', 'value': 1}, answer({'a': [{'b': 1}, 2] * 5_000}), NOT_MET),
    ],
)
def test_an_answer_that_meets_no_success_conditions_is_a_failure(conditions: Any, bad: bytes, reason: str):
    delivery = sent(conditions, bad, max_attempts=2)
    assert delivery.status == 'pending'
    assert delivery.error.startswith(reason)
    assert Attempt.objects.get().error == delivery.error


def test_it_is_delivered_once_they_are_met():
    with serving(answer({'ok': False}), answer({'ok': True})) as server:
        subscribe(server.url(), Site, success_conditions=OK)
        site()
        work()
        assert Delivery.objects.get().error == NOT_MET
        pass_retry_waits()
        work()
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.attempt_count) == ('delivered', 2)


def test_success_conditions_that_were_saved_unchecked_fail_the_delivery_by_name():
    with serving(answer({'ok': True})) as server:
        webhook = subscribe(server.url(), Site)
        Webhook.objects.filter(pk=webhook.pk).update(success_conditions={'attr': 'status', 'op': 'no such'})
        site()
        work()
    delivery = Delivery.objects.get()
    assert delivery.status == 'failed'
    assert delivery.error.startswith('not sent: success_conditions: ')
