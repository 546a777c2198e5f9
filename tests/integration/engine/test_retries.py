from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from dcim.models import Site
from django.utils import timezone
from support.builders import site, subscribe
from support.cases import first
from support.engine import deliveries, die, health, pass_probe_interval, pass_retry_waits, work

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.engine.deliver import backoff
from webhooks.engine.deliver.backoff import JITTER_SHARE, MAX_RETRY_AFTER_SECONDS
from webhooks.engine.deliver.circuit_breaker import SUSPEND_AFTER_ATTEMPTS
from webhooks.models import Delivery

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
OK, BROKEN, BUSY, SLOW_DOWN = 200, 500, 503, 429


def try_until_closed() -> Delivery:
    site()
    work()
    while deliveries(PENDING):
        pass_retry_waits()
        work()
    (closed,) = deliveries()
    return closed


# Answers, `max_attempts`, final status, answers used.
ENDS = [
    ([404, 403, 302, BUSY, OK], 8, DELIVERED, [404, 403, 302, BUSY, OK]),
    ([BROKEN], 8, FAILED, [BROKEN] * 8),
    ([BROKEN, OK], 1, FAILED, [BROKEN]),
    ([BROKEN, BROKEN, OK], 3, DELIVERED, [BROKEN, BROKEN, OK]),
    ([BROKEN, BROKEN, OK], 2, FAILED, [BROKEN, BROKEN]),
    ([OK], 8, DELIVERED, [OK]),
    ([BROKEN, OK], 8, DELIVERED, [BROKEN, OK]),
    ([BROKEN], 1, FAILED, [BROKEN]),
    ([BROKEN], 10, FAILED, [BROKEN] * 10),
]


@pytest.mark.parametrize(('answers', 'max_attempts', 'status', 'asked'), first(5, ENDS))
def test_attempts_end_with_success_or_after_as_many_as_are_allowed(receiver, answers, max_attempts, status, asked):
    subscribe(receiver.url(HOOK), Site, max_attempts=max_attempts)
    receiver.answers(HOOK, *answers)
    closed = try_until_closed()
    assert (closed.status, closed.attempt_count, closed.response_status) == (status, len(asked), asked[-1])
    attempts = closed.attempts.order_by('pk')
    assert [attempt.response_status for attempt in attempts] == asked
    assert [attempt.number for attempt in attempts] == list(range(1, len(asked) + 1))
    assert {request.header('webhook-id') for request in receiver.requests} == {str(closed.uuid)}
    assert len(receiver.requests) == len(asked)


def test_each_attempt_has_its_own_time_and_signature(receiver, monkeypatch):
    subscribe(receiver.url(HOOK), Site, secret='sesame')
    receiver.answers(HOOK, BROKEN, OK)
    site()
    work()
    pass_retry_waits()
    monkeypatch.setattr('webhooks.engine.deliver.build.time.time', lambda: timezone.now().timestamp() + 100)
    work()
    first, second = receiver.requests
    assert int(second.header('webhook-timestamp')) >= int(first.header('webhook-timestamp')) + 100
    assert first.header('webhook-signature') != second.header('webhook-signature')
    assert first.header('X-Hook-Signature') == second.header('X-Hook-Signature')


def test_the_waits_follow_the_schedule(receiver):
    subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, BROKEN)
    site()
    waits = []
    for _ in backoff.BACKOFF_SECONDS:
        pass_retry_waits()
        earliest = timezone.now()
        work()
        (pending,) = deliveries(PENDING)
        waits.append((pending.due_at - timezone.now(), pending.due_at - earliest))
    for (at_least, at_most), delay in zip(waits, backoff.BACKOFF_SECONDS, strict=True):
        assert at_most >= timedelta(seconds=delay * (1 - JITTER_SHARE))
        assert at_least <= timedelta(seconds=delay * (1 + JITTER_SHARE))


def due_within(attempt: int, delivery: Delivery) -> bool:
    """Whether it waits as after so many answers."""
    longest = timedelta(seconds=backoff.BACKOFF_SECONDS[attempt - 1] * (1 + JITTER_SHARE))
    return timezone.now() < delivery.due_at <= timezone.now() + longest


def test_an_attempt_of_a_worker_that_stopped_makes_the_next_wait_no_longer(receiver):
    subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, BROKEN)
    site()
    work()
    for _ in range(4):
        pass_retry_waits()
        die(*deliveries(PENDING))
        Delivery.objects.update(lapses=0, state=DeliveryState.RETRYING)  # no suspect
    pass_retry_waits()
    work()
    (pending,) = deliveries(PENDING)
    assert pending.attempt_count == 6
    assert due_within(2, pending)


def test_probes_make_the_next_wait_no_longer(receiver):
    webhook = subscribe(receiver.url(HOOK), Site, concurrency=SUSPEND_AFTER_ATTEMPTS)
    receiver.answers(HOOK, 502)
    for _ in range(SUSPEND_AFTER_ATTEMPTS):
        site()
    work()
    (first, *others) = deliveries(PENDING)
    Delivery.objects.filter(pk__in=[one.pk for one in others]).update(due_at=timezone.now() + timedelta(days=1))
    for _ in range(4):
        pass_retry_waits(pk=first.pk)
        pass_probe_interval(webhook)
        assert work() == '1 to retry'
    receiver.answers(HOOK, 404)
    pass_retry_waits(pk=first.pk)
    pass_probe_interval(webhook)
    work()
    first.refresh_from_db()
    assert (first.attempt_count, first.response_status) == (6, 404)
    assert due_within(2, first)


def test_a_retry_waits_for_its_time(receiver):
    subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, BROKEN)
    site()
    assert work() == '1 to retry'
    assert work() == 'nothing to send'


@pytest.mark.parametrize('hours', [-1, 1])
def test_the_clock_of_the_workers_host_does_not_matter(receiver, monkeypatch, hours):
    subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, BROKEN)
    site()
    known = timezone.now
    before = known()
    monkeypatch.setattr(timezone, 'now', lambda: known() + timedelta(hours=hours))
    work()
    monkeypatch.undo()
    (pending,) = deliveries(PENDING)
    longest = timedelta(seconds=backoff.BACKOFF_SECONDS[0] * (1 + JITTER_SHARE))
    assert before < pending.due_at <= known() + longest


def test_deliveries_that_failed_together_are_retried_at_different_times(receiver):
    subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, BROKEN)
    for _ in range(10):
        site()
    work()
    assert len({one.due_at for one in deliveries(PENDING)}) == 10


def test_failures_are_counted_at_the_end_only(receiver):
    webhook = subscribe(receiver.url(HOOK), Site, max_attempts=2)
    receiver.answers(HOOK, BROKEN)
    site()
    work()
    assert (health(webhook).failed, health(webhook).last_status) == (0, BROKEN)
    pass_retry_waits()
    work()
    assert (health(webhook).failed, health(webhook).delivered) == (1, 0)


def at(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)


class TestRetryAfter:
    """The longer wait counts: the schedule's or the endpoint's."""

    @pytest.mark.parametrize('status', [SLOW_DOWN, BUSY])
    @pytest.mark.parametrize('name', ['Retry-After', 'retry-after'])
    def test_a_number_of_seconds_is_waited(self, receiver, status, name):
        assert 1990 < self.wait_after(receiver, Answer(status, headers={name: '2000'})) <= 2000

    @pytest.mark.parametrize('status', [SLOW_DOWN, BUSY])
    def test_a_date_is_waited_for(self, receiver, status):
        asked = at(timezone.now() + timedelta(seconds=2000))
        assert 1900 < self.wait_after(receiver, Answer(status, headers={'Retry-After': asked})) <= 2000

    @pytest.mark.parametrize('value', [str(10**6), at(datetime(2099, 1, 1, tzinfo=UTC))])
    def test_no_longer_than_a_day_is_waited(self, receiver, value):
        wait = self.wait_after(receiver, Answer(BUSY, headers={'Retry-After': value}))
        assert MAX_RETRY_AFTER_SECONDS - 60 < wait <= MAX_RETRY_AFTER_SECONDS

    @pytest.mark.parametrize('value', ['0', '-5', 'soon', '', '1e9', 'Wed, 01 Jan 2020 00:00:00 GMT', '9' * 400, '²'])
    def test_a_retry_after_that_is_shorter_or_unreadable_leaves_the_schedule(self, receiver, value):
        wait = self.wait_after(receiver, Answer(BUSY, headers={'Retry-After': value}))
        if value == '9' * 400:
            assert wait > MAX_RETRY_AFTER_SECONDS - 60
        else:
            assert wait <= backoff.BACKOFF_SECONDS[0] * (1 + JITTER_SHARE)

    @pytest.mark.parametrize('status', [BROKEN, 404, 302])
    def test_other_statuses_cannot_ask_for_a_wait(self, receiver, status):
        wait = self.wait_after(receiver, Answer(status, headers={'Retry-After': '2000'}))
        assert wait <= backoff.BACKOFF_SECONDS[0] * (1 + JITTER_SHARE)

    @staticmethod
    def wait_after(receiver: Receiver, answer: Answer) -> float:
        subscribe(receiver.url(HOOK), Site)
        receiver.answers(HOOK, answer)
        site()
        work()
        (pending,) = deliveries(PENDING)
        return (pending.due_at - timezone.now()).total_seconds()


@pytest.mark.parametrize('hold', [{'paused': True}, {'enabled': False}])
def test_a_retry_that_is_due_during_a_pause_is_sent_after_it(receiver, hold):
    webhook = subscribe(receiver.url(HOOK), Site)
    receiver.answers(HOOK, BROKEN, OK)
    site()
    work()
    pass_retry_waits()
    for name, value in hold.items():
        setattr(webhook, name, value)
    webhook.save()
    assert work() == 'nothing to send'
    webhook.paused, webhook.enabled = False, True
    webhook.save()
    assert work() == '1 delivered'
