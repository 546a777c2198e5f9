import json
from contextlib import ExitStack
from typing import Any

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.engine import pass_retry_waits, work
from support.loopback import serving

from webhooks.models import Delivery, Webhook

pytestmark = pytest.mark.usefixtures('committed')

OK = {'attr': 'body.ok', 'value': True}
NOT_MET = 'the answer does not meet success_conditions'


def answer(body: Any, status: int = 200, headers: str = '') -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f'HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n{headers}\r\n'.encode() + text


GOOD = (
    (OK, answer({'ok': True})),
    ({'attr': 'body.result.response', 'value': 'success'}, answer({'result': {'response': 'success'}})),
    ({'attr': 'status', 'value': 201}, answer({}, 201)),
    ({'attr': 'headers.x-done', 'value': 'yes'}, answer({}, headers='X-Done: yes\r\n')),
    ({'attr': 'text', 'value': 'ok'}, answer(b'ok')),
    ({'attr': 'body', 'value': None}, answer(b'')),
    ({'attr': 'text', 'op': 'contains', 'value': 'error', 'negate': True}, answer(b'fine')),
    (OK, answer({'long': 'x' * 10_000, 'ok': True})),
    ({}, answer({'ok': False})),
)
BAD = (
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
)


def sent(*cases: tuple[Any, bytes], **fields: Any) -> list[Delivery]:
    """Return the delivery of each case, (success conditions, answer), of one change."""
    with ExitStack() as servers:
        webhooks = [
            subscribe(servers.enter_context(serving(said)).url(), Site, success_conditions=conditions, **fields)
            for conditions, said in cases
        ]
        site()
        work()
    return [webhook.deliveries.get() for webhook in webhooks]


def test_an_answer_that_meets_the_success_conditions_is_a_success():
    for case, delivery in zip(GOOD, sent(*GOOD), strict=True):
        assert (delivery.status, delivery.error) == ('delivered', ''), case


def test_an_answer_that_meets_no_success_conditions_is_a_failure():
    found = sent(*((conditions, bad) for conditions, bad, _reason in BAD), max_attempts=2)
    for case, delivery in zip(BAD, found, strict=True):
        assert delivery.status == 'pending', case
        assert delivery.error.startswith(case[2]), case
        assert delivery.attempts.get().error == delivery.error, case


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
