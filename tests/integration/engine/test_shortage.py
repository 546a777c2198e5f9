"""This machine may have no descriptor left for a socket. That is not the endpoint's fault."""

import resource

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.descriptors import left
from support.engine import (
    arrivals,
    deliveries,
    dispatch_all,
    health,
    pass_retry_waits,
    sender,
    suspect,
    take_turns,
    try_suspects,
    work,
)

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.deliver import loop
from webhooks.models import Attempt, Webhook

pytestmark = pytest.mark.usefixtures('committed')

PENDING, DELIVERED = StatusChoices.PENDING, StatusChoices.DELIVERED


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site, max_attempts=1)


def test_deliveries_wait_in_order_and_spend_no_attempt(webhook, receiver, caplog, monkeypatch):
    monkeypatch.setattr(loop, 'PAUSE', 3600)
    first, second = site(), site()
    for one in (first, second, first):
        one.save()
    dispatch_all()
    with sender() as (_pk, opened):
        with left(0):
            assert take_turns(opened, lambda: 'Too many open files' in caplog.text)
            for _ in range(5):
                opened.turn()
                assert not opened.lanes.in_hand, 'it rests'
        assert caplog.text.count('Too many open files') == 1
        assert [(one.status, one.attempt_count) for one in deliveries()] == [(PENDING, 0)] * 5
        assert not Attempt.objects.exists()
        assert (health(webhook).unreachable, health(webhook).last_error) == (0, '')
        opened.lanes.owned[webhook.pk].rests_until = 0
        assert take_turns(opened, lambda: len(deliveries(DELIVERED)) == 5)
    assert {one.attempt_count for one in deliveries()} == {1}
    sequences = [[sequence for pk, sequence in arrivals(receiver) if pk == one.pk] for one in (first, second)]
    assert [len(one) for one in sequences] == [3, 2]
    assert sequences == [sorted(one) for one in sequences]


def test_fewer_requests_go_at_once(webhook, receiver, caplog, monkeypatch):
    monkeypatch.setattr(loop, 'PAUSE', 3600)
    site()
    dispatch_all()
    with sender() as (_pk, opened):
        assert take_turns(opened, lambda: deliveries(DELIVERED))
        lane = opened.lanes.owned[webhook.pk]
        lane.window = 8
        site()
        dispatch_all()
        opened.poke()
        with left(0):
            assert take_turns(opened, lambda: 'Too many open files' in caplog.text)
        assert lane.window == 4


def test_a_suspect_waits_too(webhook, receiver):
    site()
    dispatch_all()
    suspect(*deliveries())
    pass_retry_waits()
    (before,) = deliveries()
    with left(0):
        try_suspects()
    (after,) = deliveries()
    assert (after.status, after.attempt_count, after.lapses) == (PENDING, before.attempt_count, before.lapses)
    assert after.due_at > before.due_at
    pass_retry_waits()
    work()
    assert deliveries(DELIVERED)


@pytest.mark.parametrize(('most', 'expected'), [(2**20, lambda hard: hard), (500, lambda hard: 500)])
def test_a_sender_raises_the_soft_limit_within_reason(monkeypatch, most, expected):
    monkeypatch.setattr(loop, 'FILES', most)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with left(100), sender():
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (expected(hard), hard)


def test_a_sender_lowers_no_limit(monkeypatch):
    monkeypatch.setattr(loop, 'FILES', 500)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with sender():
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
