"""One delivery probes, while the rest wait and spend no attempts."""

from datetime import timedelta

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    deliveries,
    dispatch_all,
    health,
    in_hand,
    in_thread,
    pass_probe_interval,
    pass_retry_waits,
    work,
    working,
)
from tenancy.models import Tenant

from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.deliver import endpoint
from webhooks.engine.deliver.circuit_breaker import PROBE_SECONDS, REFUSED_TOO_LONG, SUSPEND_AFTER_ATTEMPTS
from webhooks.engine.deliver.endpoint import Entry
from webhooks.models import Delivery, Health, Webhook
from webhooks.services import trial, why_not_sent
from webhooks.transport.exchange import Outcome

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
PATIENCE = 30
MANY = 2 * SUSPEND_AFTER_ATTEMPTS


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, concurrency=SUSPEND_AFTER_ATTEMPTS)


@pytest.fixture
def suspended(webhook: Webhook, receiver: Receiver) -> Webhook:
    receiver.close()
    sites(MANY)
    work()
    assert health(webhook).suspended_since
    return webhook


def sites(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            site()


def move(webhook: Webhook, url: str) -> None:
    moved = Webhook.objects.get(pk=webhook.pk)
    moved.payload_url = url
    moved.save()


def spent() -> int:
    return sum(one.attempts.count() for one in deliveries())


def refuse_for_long(webhook: Webhook) -> None:
    Health.objects.filter(webhook=webhook).update(refused_since=timezone.now() - REFUSED_TOO_LONG)


class TestRefused:
    @pytest.fixture
    def refused(self, webhook: Webhook, receiver: Receiver) -> Webhook:
        receiver.answers(HOOK, 500)
        sites(2)
        work()
        assert health(webhook).suspended_since is None
        refuse_for_long(webhook)
        sites(MANY)
        work()
        return webhook

    def test_the_others_are_not_tried(self, refused, receiver):
        found = health(refused)
        assert (found.suspended_since is not None, found.last_status, found.unreachable) == (True, 500, 0)
        so_far = len(receiver.requests)
        sites(MANY)
        pass_retry_waits()
        work()
        assert len(receiver.requests) == so_far

    def test_a_probe_that_is_refused_spends_no_attempt(self, refused, receiver):
        def left() -> int:
            limits = [(one.attempt_limit or refused.max_attempts) - one.attempt_count for one in deliveries()]
            return sum(limits)

        before, so_far = left(), len(receiver.requests)
        pass_retry_waits()
        pass_probe_interval(refused)
        work()
        assert (len(receiver.requests), left()) == (so_far + 1, before)
        assert health(refused).suspended_since

    @pytest.mark.parametrize('status', [200, 404])
    def test_the_first_other_answer_lets_all_go(self, refused, receiver, status):
        receiver.answers(HOOK, status)
        pass_retry_waits()
        pass_probe_interval(refused)
        work()
        found = health(refused)
        assert (found.suspended_since, found.refused_since) == (None, None)

    def test_too_many_requests_without_end_suspends_it_too(self, webhook, receiver):
        receiver.answers(HOOK, 429)
        sites(2)
        work()
        refuse_for_long(webhook)
        sites(2)
        work()
        assert health(webhook).suspended_since

    def test_a_single_delivery_that_is_refused_does_not(self, webhook, receiver):
        """The endpoint may fail to digest this delivery alone."""
        receiver.answers(HOOK, 500)
        site()
        work()
        refuse_for_long(webhook)
        pass_retry_waits()
        work()
        assert len(receiver.requests) == 2
        assert health(webhook).suspended_since is None

    def test_a_change_that_comes_after_the_turn_began_does_not_count(self, webhook, receiver):
        receiver.answers(HOOK, 500)
        site()
        work()
        site()
        dispatch_all()
        refuse_for_long(webhook)
        pass_retry_waits(attempt_count=1)
        Delivery.objects.filter(attempt_count=0).update(due_at=timezone.now() + REFUSED_TOO_LONG)
        work()
        assert len(receiver.requests) == 2
        assert health(webhook).suspended_since is None

    def test_the_wait_says_since_when(self, refused):
        delivery = deliveries(attempt_count=0)[0]
        assert 'has refused everything since' in why_not_sent.wait_of(delivery, timezone.now()).text


class TestSuspended:
    def test_after_some_failures_the_others_are_not_tried(self, suspended):
        assert spent() == SUSPEND_AFTER_ATTEMPTS
        assert [one.attempt_count for one in deliveries()].count(0) == MANY - SUSPEND_AFTER_ATTEMPTS

    def test_nothing_is_tried_before_the_probe(self, suspended, receiver):
        receiver.open()
        pass_retry_waits()
        assert work() == 'nothing to send'
        assert not receiver.requests
        pass_probe_interval(suspended)
        work()
        assert receiver.requests

    def test_a_new_change_waits_for_the_probe_as_well(self, suspended, receiver):
        place = site()
        work()
        (waiting,) = deliveries(object_id=place.pk)
        assert (waiting.status, waiting.attempt_count) == (PENDING, 0)
        receiver.open()
        pass_probe_interval(suspended)
        while work() != 'nothing to send':
            pass_retry_waits()
        assert deliveries(object_id=place.pk)[0].status == DELIVERED

    def test_the_reason_is_kept(self, suspended):
        found = health(suspended)
        assert 'refused' in found.last_error
        assert found.last_status is None

    def test_it_is_no_change_of_the_definition(self, suspended):
        changed = ObjectChange.objects.filter(changed_object_type__model='webhook', changed_object_id=suspended.pk)
        assert not changed.exists()
        before = suspended.last_updated
        suspended.refresh_from_db()
        assert suspended.last_updated == before
        suspended.save()
        assert suspended.last_updated > before

    def test_a_test_is_tried_once_all_the_same(self, suspended):
        assert trial.send_test(Webhook.objects.get(pk=suspended.pk)).status == FAILED

    def test_other_webhooks_go_on(self, suspended, receiver):
        receiver.open()
        subscribe(receiver.url('/other'), Tenant)
        Tenant.objects.create(name='Tenant', slug='tenant')
        assert work() == '1 delivered'

    def test_an_endpoint_that_does_not_answer_in_time_suspends(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, timeout=1, concurrency=MANY)
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        sites(MANY)
        work()
        assert health(webhook).suspended_since

    @pytest.mark.parametrize('status', [404, 429, 500, 302])
    def test_an_endpoint_that_answers_does_not_suspend(self, webhook, receiver, status):
        receiver.answers(HOOK, status)
        sites(MANY)
        work()
        assert health(webhook).suspended_since is None
        assert spent() == MANY

    @pytest.mark.parametrize('status', [502, 503, 504])
    def test_a_proxy_whose_endpoint_is_away_suspends(self, webhook, receiver, status):
        receiver.answers(HOOK, status)
        sites(MANY)
        work()
        assert health(webhook).suspended_since
        assert spent() == SUSPEND_AFTER_ATTEMPTS

    def test_without_a_second_attempt_nothing_is_suspended(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, max_attempts=1)
        receiver.close()
        sites(MANY)
        assert work() == f'{MANY} failed'
        assert health(webhook).suspended_since is None

    def test_failures_with_successes_in_between_do_not_suspend(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, concurrency=1)
        receiver.answers(HOOK, 502, 502, 200, 502, 502, 200)
        sites(6)
        work()
        assert health(webhook).suspended_since is None
        receiver.answers(HOOK, 502)
        sites(SUSPEND_AFTER_ATTEMPTS)
        work()
        assert health(webhook).suspended_since


class TestProbe:
    def test_one_delivery_goes_as_a_probe(self, suspended, receiver):
        pass_retry_waits()
        pass_probe_interval(suspended)
        before = spent()
        assert work() == '1 to retry'
        assert spent() == before + 1
        assert work() == 'nothing to send'

    def test_one_that_was_under_way_while_the_webhook_was_mended_puts_off_no_other(self, suspended, receiver):
        """It says nothing about the new URL."""
        Webhook.objects.filter(pk=suspended.pk).update(timeout=1)
        receiver.open()
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        pass_retry_waits()
        pass_probe_interval(suspended)
        with working():
            receiver.wait_for(1, timeout=60)
            move(suspended, receiver.url('/mended'))
        work()
        assert health(suspended).suspended_since is None
        assert {request.path for request in receiver.requests[1:]} == {'/mended'}

    def test_a_probe_without_end_fails_before_its_number_is_too_large(self, suspended):
        Delivery.objects.update(attempt_count=31_999, attempt_limit=32_100)
        pass_retry_waits()
        pass_probe_interval(suspended)
        work()
        assert [one.attempt_count for one in deliveries(FAILED)] == [32_000]

    def test_a_failed_probe_spends_no_attempt(self, suspended):
        limits = {one.pk: one.webhook.max_attempts - one.attempt_count for one in deliveries()}
        for _ in range(2 * suspended.max_attempts):
            pass_retry_waits()
            pass_probe_interval(suspended)
            work()
        assert not deliveries(FAILED)
        left = {
            one.pk: (one.attempt_limit or one.webhook.max_attempts) - one.attempt_count for one in deliveries(PENDING)
        }
        assert left == limits

    def test_an_outage_behind_a_proxy_uses_up_no_attempts(self, webhook, receiver):
        receiver.answers(HOOK, 502)
        sites(MANY)
        work()
        for _ in range(2 * webhook.max_attempts):
            pass_retry_waits()
            pass_probe_interval(webhook)
            assert work() == '1 to retry'
        receiver.answers(HOOK, 200)
        pass_retry_waits()
        pass_probe_interval(webhook)
        assert work() == f'{MANY} delivered'

    def test_a_probe_that_is_asked_to_wait_waits(self, webhook, receiver):
        receiver.answers(HOOK, 503)
        sites(SUSPEND_AFTER_ATTEMPTS)
        work()
        receiver.answers(HOOK, Answer(503, headers={'Retry-After': '2000'}))
        pass_retry_waits()
        pass_probe_interval(webhook)
        assert work() == '1 to retry'
        assert max(one.due_at for one in deliveries(PENDING)) > timezone.now() + timedelta(seconds=1900)

    def test_probes_come_at_growing_intervals(self, suspended):
        before = health(suspended).suspended_since
        for expected in (*PROBE_SECONDS, PROBE_SECONDS[-1]):
            probe_at, interval = health(suspended).probe_at, timedelta(seconds=expected)
            assert before + interval / 2 < probe_at <= timezone.now() + interval
            pass_retry_waits()
            pass_probe_interval(suspended)
            before = timezone.now()
            work()

    @pytest.mark.parametrize('seconds', [0, 2])
    def test_an_attempt_under_way_at_the_suspension_is_no_probe(self, suspended, seconds):
        before = health(suspended)
        failure = Outcome(started_at=0, duration=seconds, error='no answer', unreachable=True)
        with sql.transaction() as now:
            endpoint.write([Entry(suspended.pk, PENDING, 1, failure, suspended)] * SUSPEND_AFTER_ATTEMPTS, now)
        after = health(suspended)
        assert (after.probes, after.probe_at) == (before.probes, before.probe_at)
        assert after.unreachable == MANY

    def test_tests_do_not_put_off_the_probe(self, suspended):
        before = health(suspended)
        assert trial.send_test(suspended).status == FAILED
        after = health(suspended)
        assert (after.probes, after.probe_at) == (before.probes, before.probe_at)
        assert after.unreachable == before.unreachable + 1

    def test_a_success_lets_the_others_go(self, suspended, receiver):
        receiver.open()
        pass_retry_waits()
        pass_probe_interval(suspended)
        assert work() == f'{MANY} delivered'
        found = health(suspended)
        assert (found.suspended_since, found.probe_at, found.unreachable, found.probes) == (None, None, 0, 0)

    def test_an_answer_that_is_no_success_lets_the_others_go(self, suspended, receiver):
        """The endpoint is back: failures spend attempts again."""
        receiver.open()
        receiver.answers(HOOK, 500)
        pass_retry_waits()
        pass_probe_interval(suspended)
        work()
        assert health(suspended).suspended_since is None
        assert all(one.attempt_count for one in deliveries())

    def test_two_workers_send_one_probe(self, suspended, receiver):
        receiver.open()
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        pass_retry_waits()
        pass_probe_interval(suspended)
        threads = [in_thread(work) for _ in range(2)]
        receiver.wait_for(1)
        threads_ended = [thread for thread in threads if not thread.join(2) and not thread.is_alive()]
        assert len(receiver.requests) == 1
        assert len(in_hand()) == 1
        receiver.close()
        for thread in threads:
            thread.join(60)
        assert len(threads_ended) <= 1


def test_a_probe_that_disables_leaves_an_edit_in_peace(suspended, receiver):
    """Both write webhook and health. The worker does not wait: the next answer disables it."""
    receiver.open()
    receiver.answers(HOOK, 410)
    pass_probe_interval(suspended)
    with transaction.atomic():
        Webhook.objects.filter(pk=suspended.pk).update(description='being edited')
        in_thread(work).join(PATIENCE)
        assert receiver.requests
        Webhook.objects.get(pk=suspended.pk).save()
    pass_retry_waits()
    work()
    suspended.refresh_from_db()
    assert (suspended.enabled, suspended.description) == (False, 'being edited')


def test_a_410_from_where_it_sends_no_more_disables_nothing(webhook, receiver):
    receiver.answers(HOOK, Answer(410, delay=150))
    site()
    with working():
        receiver.wait_for(1)
        move(webhook, receiver.url('/moved'))
        receiver.closing.set()
    assert deliveries(PENDING)
    assert work() == 'nothing to send'
    assert Webhook.objects.get(pk=webhook.pk).enabled


def test_an_edit_of_what_was_read_before_the_endpoint_was_gone_does_not_enable_it(suspended, receiver):
    receiver.open()
    receiver.answers(HOOK, 410)
    pass_probe_interval(suspended)
    read = Webhook.objects.get(pk=suspended.pk)
    work()
    read.description = 'edited'
    read.save()
    stored = Webhook.objects.get(pk=suspended.pk)
    assert (read.enabled, stored.enabled, stored.description) == (False, False, 'edited')
    assert not stored.subscriptions.filter(until=None).exists()
    read.enabled = True
    read.save()
    assert Webhook.objects.get(pk=suspended.pk).enabled
    assert stored.subscriptions.filter(until=None).exists()
