"""What one webhook, endpoint, outcome or transaction does costs the others nothing that they could notice."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.db import OperationalError, transaction
from django.db.models.signals import pre_save
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    arrivals,
    claim,
    claim_suspect,
    deliveries,
    dispatch_all,
    expire,
    health,
    open_transaction,
    pass_leases,
    pass_retry_waits,
    work,
    working,
)
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Received, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import (
    building,
    claims,
    expiry,
    job_time,
    lanes,
    outcomes,
    purge,
    quarantine,
    rescue,
    runner,
    sql,
    timer,
)
from webhooks.engine.claimed import Claimed
from webhooks.engine.job_time import Pace
from webhooks.engine.senders import SPARE, THREADS, Senders
from webhooks.models import Attempt, Delivery, Health, Webhook
from webhooks.outbox import queue
from webhooks.payload.http_request import Builder
from webhooks.services import trial
from webhooks.templating import renderer

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED = StatusChoices.values()
BUSY, IDLE = '/busy', '/idle'
# Also those of deleted webhooks.
LANES = 'SELECT webhook_id FROM webhooks_health'
# A tenth of a second and more on any machine, and within a template's two seconds.
SLOW_TEMPLATE = '{% for j in range(80) %}{% for i in range(20000) %}{% set x = i * i %}{% endfor %}{% endfor %}slow'


def sites(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            site()


def dispatch_sites(count: int = 1) -> None:
    sites(count)
    dispatch_all()


def tenant() -> Tenant:
    return Tenant.objects.create(name='Tenant', slug='tenant')


def to_idle(request: Received) -> bool:
    return request.path == IDLE


class TestBacklog:
    def test_a_change_for_an_idle_webhook_passes_it(self, receiver):
        receiver.answers(BUSY, Answer(delay=0.02))
        subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        sites(800)
        with working():
            receiver.wait_for(50, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            assert len(receiver.requests) < 700
            receiver.wait_for(801, timeout=60)

    def test_backlogs_of_many_webhooks_do_not_hold_the_one_that_was_idle(self, receiver):
        """Whoever has least under way is claimed for first."""
        for _ in range(5):
            subscribe(receiver.url(BUSY), Site, concurrency=2)
        idle = subscribe(receiver.url(IDLE), Tenant)
        dispatch_sites(20)
        assert len(claim()) == 10
        Webhook.objects.update(concurrency=100)
        tenant()
        dispatch_all()
        (claimed,) = claim(limit=1)
        assert claimed.webhook == idle


@dataclass(frozen=True)
class Gate:
    """Files, for what waits is another process."""

    is_reached: Path
    is_open: Path

    def wait(self, text: str) -> str:
        self.is_reached.touch()
        assert wait_until(self.is_open.exists, timeout=60)
        return text


@pytest.fixture
def gate(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gate:
    """Where templates with the filter `wait` wait until it is open."""
    gate = Gate(tmp_path / 'reached', tmp_path / 'open')
    settings.JINJA_FILTERS = {'wait': gate.wait}
    monkeypatch.setattr(renderer, 'TIME_LIMIT', 60)
    return gate


class TestSlowTemplate:
    def test_what_has_no_template_waits_for_none(self, receiver):
        subscribe(receiver.url(BUSY), Site, body_template=SLOW_TEMPLATE)
        subscribe(receiver.url(IDLE), Tenant)
        sites(12)
        tenant()
        work()
        assert [request.path for request in receiver.requests] == [IDLE, *[BUSY] * 12]

    def test_behind_a_slow_template_others_do_not_wait_for_all_that_is_slow(self, receiver):
        subscribe(receiver.url(BUSY), Site, body_template=SLOW_TEMPLATE)
        subscribe(receiver.url(IDLE), Tenant, body_template='{{ data.name }}')
        sites(12)
        tenant()
        work()
        assert [request.path for request in receiver.requests].index(IDLE) < 12
        assert {one.attempt_count for one in deliveries(DELIVERED)} == {1}
        assert len(receiver.requests) == 13

    def test_no_other_waits_for_those_that_are_known_to_be_slow(self, receiver, gate):
        """They have a thread of their own, also in the next job."""
        slow = "{% if data.name == 'slow' %}" + SLOW_TEMPLATE + '{% else %}{{ data.name|wait }}{% endif %}'
        subscribe(receiver.url(BUSY), Site, body_template=slow)
        subscribe(receiver.url(IDLE), Tenant, body_template='{{ data.name }}')
        site(name='slow')
        assert work() == '1 delivered'
        site()
        with working():
            assert wait_until(gate.is_reached.exists, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            gate.is_open.touch()
        assert len(deliveries(DELIVERED)) == 3

    def test_what_was_claimed_and_not_begun_is_free_for_other_workers(self, receiver, monkeypatch):
        monkeypatch.setattr(building, 'BUDGET', 0)
        subscribe(receiver.url(BUSY), Site)
        sites(5)
        assert work() == '5 delivered'
        assert {one.attempt_count for one in deliveries(DELIVERED)} == {1}

    def test_what_waits_to_be_built_leaves_threads_to_others(self, receiver, gate):
        for _ in range(5):
            subscribe(receiver.url(BUSY), Site, body_template='{{ data.name|wait }}')
        subscribe(receiver.url(IDLE), Tenant)
        sites(16)
        with working():
            assert wait_until(lambda: len(deliveries(SENDING)) >= THREADS - SPARE, timeout=60)
            assert wait_until(gate.is_reached.exists, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            gate.is_open.touch()


class TestSlowEndpoint:
    @pytest.mark.parametrize(('webhooks', 'concurrency'), [(16, 16), (1, 100)])
    def test_those_that_hang_leave_threads_to_others(self, receiver, webhooks, concurrency):
        receiver.answers(BUSY, Answer(manner=Manner.HANG))
        for _ in range(webhooks):
            subscribe(receiver.url(BUSY), Site, concurrency=concurrency, max_attempts=1, timeout=120)
        subscribe(receiver.url(IDLE), Tenant)
        sites(concurrency)
        with working():
            receiver.wait_for(THREADS - SPARE, timeout=60)
            assert wait_until(lambda: len({one.webhook_id for one in deliveries(SENDING)}) == webhooks, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            assert not Attempt.objects.filter(delivery__object_type__model='site').exists()
            receiver.close()

    @pytest.mark.parametrize(
        ('answer', 'result'),
        [(Answer(manner=Manner.HANG), '8 delivered, 2 failed'), (Answer(delay=0.5), '10 delivered')],
        ids=['hanging', 'slow'],
    )
    def test_suspects_of_others_wait_for_one_of_its_requests(self, receiver, answer, result):
        """They are sent one after the other, those of a slow endpoint last."""
        receiver.answers(BUSY, answer)
        subscribe(receiver.url(BUSY), Site, max_attempts=1, timeout=1)
        subscribe(receiver.url(IDLE), Tenant)
        sites(2)
        for number in range(8):
            Tenant.objects.create(name=str(number), slug=str(number))
        dispatch_all()
        assert len(claim()) == 10
        pass_leases()
        rescue.rescue()
        assert work() == result
        paths = [request.path for request in receiver.requests]
        assert paths[:9].count(IDLE) == 8


@pytest.mark.parametrize('template', ['', '{}'], ids=['at once', 'in the other thread'])
class TestDatabaseErrorWhileBuilding:
    """It ends no job."""

    def let_tenants(self, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object]) -> None:
        build = Builder.build

        def failing(builder: Builder, delivery: Delivery, now: float) -> object:
            if delivery.object_type.model == 'tenant':
                fail()
            return build(builder, delivery, now)

        monkeypatch.setattr(Builder, 'build', failing)

    def test_it_fails_one_delivery_where_our_own_connection_answers(self, receiver, monkeypatch, template):
        def fail() -> None:
            raise OperationalError("a plugin's database is down")

        subscribe(receiver.url(BUSY), Site, Tenant, body_template=template)
        tenant()
        site()
        self.let_tenants(monkeypatch, fail)
        assert work() == '1 delivered, 1 failed'
        (failed,) = deliveries(FAILED)
        assert failed.error == "not sent: OperationalError: a plugin's database is down"

    @pytest.mark.parametrize('times', [1, 2], ids=['once', 'and goes back while it is away'])
    def test_what_postgresql_breaks_off_is_built_again(self, receiver, monkeypatch, template, times):
        struck = []

        def fail() -> None:
            if len(struck) < times:
                struck.append(None)
                sql.execute('SELECT pg_terminate_backend(pg_backend_pid())')

        subscribe(receiver.url(BUSY), Site, Tenant, body_template=template)
        tenant()
        site()
        self.let_tenants(monkeypatch, fail)
        assert work() == '2 delivered'
        assert len(struck) == times


def test_a_filter_that_meets_a_database_error_fails_its_delivery_alone(receiver, settings):
    def ask(_value: object) -> None:
        raise OperationalError("a plugin's database is down")

    settings.JINJA_FILTERS = {'ask': ask}
    subscribe(receiver.url(BUSY), Tenant, body_template='{{ data.name|ask }}')
    subscribe(receiver.url(BUSY), Site)
    site()
    tenant()
    assert work() == '1 delivered, 1 failed'
    (failed,) = deliveries(FAILED)
    assert "OperationalError: a plugin's database is down (line 1)" in failed.error


class TestOpenTransactions:
    def test_a_webhook_that_was_saved_in_one_is_sent_for_meanwhile(self, receiver):
        webhook = subscribe(receiver.url(BUSY), Site)

        def save() -> None:
            again = Webhook.objects.get(pk=webhook.pk)
            again.description = 'edited'
            again.save()

        with open_transaction(save):
            site()
            assert work() == '1 delivered'

    def test_a_webhook_that_was_renamed_in_one_is_dispatched_and_sent_for_meanwhile(self, receiver):
        webhook = subscribe(receiver.url(BUSY), Site)
        with open_transaction(lambda: Webhook.objects.filter(pk=webhook.pk).update(name='another')):
            site()
            assert work() == '1 delivered'

    def test_a_webhook_that_was_deleted_in_one_is_dispatched_and_sent_for_meanwhile(self, receiver):
        """Who knows whether it is committed?"""
        webhook = subscribe(receiver.url(BUSY), Site)
        with open_transaction(Webhook.objects.get(pk=webhook.pk).delete):
            site()
            assert work() == '1 delivered'

    def test_an_answer_of_410_waits_for_no_edit_and_disables_when_that_is_over(self, receiver):
        """What others have got is recorded meanwhile."""
        gone = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Site)
        receiver.answers(BUSY, 410)
        with open_transaction(lambda: Webhook.objects.filter(pk=gone.pk).update(description='being edited')):
            dispatch_sites()
            assert work() == '1 delivered, 1 to retry'
            assert Webhook.objects.get(pk=gone.pk).enabled
        assert timer.something_to_do()
        work()
        assert not Webhook.objects.get(pk=gone.pk).enabled
        assert not timer.something_to_do()

    def test_meanwhile_an_endpoint_that_answers_410_gets_no_more(self, receiver):
        gone = subscribe(receiver.url(BUSY), Site, max_attempts=1, concurrency=1)
        subscribe(receiver.url(IDLE), Site)
        receiver.answers(BUSY, 410)
        with open_transaction(Webhook.objects.get(pk=gone.pk).save):
            dispatch_sites(9)
            assert work() == '9 delivered, 1 failed'
            assert len(deliveries(PENDING)) == 8
            assert Webhook.objects.get(pk=gone.pk).enabled

    def test_what_cannot_be_tidied_because_of_one_is_left_and_all_answers_are_recorded(self, receiver, monkeypatch):
        """PostgreSQL breaks it off, each time."""
        monkeypatch.setattr(lanes, 'BEGIN', lanes.BEGIN.replace("'lock_timeout', '5000'", "'lock_timeout', '50'"))
        monkeypatch.setattr(runner, 'PATIENCE', 0)
        gone = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Site)
        receiver.answers(BUSY, 410)
        with open_transaction(lambda: sql.execute('LOCK TABLE extras_journalentry')):
            dispatch_sites()
            assert work() == '1 delivered, 1 to retry'
            assert Webhook.objects.get(pk=gone.pk).enabled
        work()
        assert not Webhook.objects.get(pk=gone.pk).enabled

    def test_whoever_enables_a_webhook_after_a_410_has_the_last_word(self, receiver):
        gone = subscribe(receiver.url(BUSY), Site)
        receiver.answers(BUSY, 410, 200)
        site()
        work()
        gone.refresh_from_db()
        assert not gone.enabled
        gone.enabled = True
        gone.save()
        pass_retry_waits()
        assert work() == '1 delivered'
        gone.refresh_from_db()
        assert gone.enabled

    def test_a_suspended_webhook_that_is_saved_in_one_holds_up_nobody(self, receiver):
        webhook = subscribe(receiver.url(BUSY), Site)
        site()
        dispatch_all()
        Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now(), probe_at=timezone.now())
        with open_transaction(lambda: Webhook.objects.get(pk=webhook.pk).save()):
            assert work() == '1 delivered'


class TestOutcomeThatCannotBeRecorded:
    """Whatever is wrong with it, its delivery fails by it, and the others are recorded."""

    @pytest.fixture
    def victim(self, receiver: Receiver) -> Webhook:
        subscribe(receiver.url(IDLE), Site)
        return subscribe(receiver.url(BUSY), Site)

    def check(self, victim: Webhook, reason: str) -> None:
        assert work() == '1 delivered, 1 failed'
        (failed,) = deliveries(FAILED)
        assert failed.webhook == victim
        assert reason in failed.error
        assert Attempt.objects.count() == 2

    def test_an_error_in_deciding_stops_no_other(self, victim, receiver, monkeypatch):
        original = outcomes.decide

        def decide(delivery: Delivery, *args: object) -> object:
            if delivery.webhook_id == victim.pk:
                raise OverflowError('too far away')
            return original(delivery, *args)

        monkeypatch.setattr(outcomes, 'decide', decide)
        site()
        self.check(victim, 'OverflowError: too far away')

    def test_an_error_in_masking_stops_no_other(self, victim, receiver, monkeypatch):
        original = Builder.mask

        def mask(builder: Builder, request: object) -> object:
            if builder.webhook.pk == victim.pk:
                raise ValueError('no mask')
            return original(builder, request)

        monkeypatch.setattr(Builder, 'mask', mask)
        site()
        self.check(victim, 'ValueError: no mask')

    def test_an_error_of_postgresql_stops_no_other(self, victim, receiver, monkeypatch):
        original = outcomes.row

        def row(one: Claimed, *args: object, **options: object) -> dict:
            values = original(one, *args, **options)
            is_spoilt = one.delivery.webhook_id == victim.pk and one.outcome.succeeded
            # PostgreSQL stores no NUL.
            return {**values, 'error': 'a\x00b'} if is_spoilt else values

        monkeypatch.setattr(outcomes, 'row', row)
        site()
        self.check(victim, 'its outcome cannot be recorded')

    def test_an_error_of_a_plugin_when_a_webhook_is_disabled_stops_no_other(self, victim, receiver):
        """The webhook stays enabled until it can be saved; nothing else is lost."""
        receiver.answers(BUSY, 410)

        def refuse(instance: Webhook, **kwargs: object) -> None:
            if not instance.enabled:
                raise ValueError('not today')

        pre_save.connect(refuse, sender=Webhook)
        try:
            site()
            assert work() == '1 delivered, 1 to retry'
        finally:
            pre_save.disconnect(refuse, sender=Webhook)
        victim.refresh_from_db()
        assert victim.enabled
        work()
        victim.refresh_from_db()
        assert not victim.enabled

    @pytest.mark.parametrize('error', [ValueError('not today'), OperationalError("a plugin's database is down")])
    def test_nor_keeps_it_another_one_from_being_disabled(self, receiver, error):
        first, _second = subscribe(receiver.url(BUSY), Site), subscribe(receiver.url(BUSY), Site)
        receiver.answers(BUSY, 410)

        def refuse(instance: Webhook, **kwargs: object) -> None:
            if instance.pk == first.pk:
                raise error

        pre_save.connect(refuse, sender=Webhook)
        try:
            site()
            work()
        finally:
            pre_save.disconnect(refuse, sender=Webhook)
        assert list(Webhook.objects.filter(enabled=True)) == [first]
        work()
        assert not Webhook.objects.filter(enabled=True)

    def test_an_endpoint_cannot_ask_to_wait_until_a_day_that_is_none(self, receiver):
        receiver.answers(BUSY, Answer(429, headers={'Retry-After': f'Mon, {"9" * 20} Jan 2026 00:00:00 GMT'}))
        subscribe(receiver.url(BUSY), Site)
        site()
        assert work() == '1 to retry'


def test_a_claim_that_is_broken_off_each_time_takes_no_outcome_with_it(receiver, monkeypatch):
    """PostgreSQL does so with what takes too long."""
    monkeypatch.setattr(runner, 'PATIENCE', 5)
    claim_now, broken_off = runner.Drain._claim, []

    def claim_too_long(drain: runner.Drain, held: set[int], ended: list[Claimed], now: datetime) -> claims.Claim:
        if ended:
            broken_off.append(now)
            sql.execute("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(300)")
        return claim_now(drain, held, ended, now)

    monkeypatch.setattr(runner.Drain, '_claim', claim_too_long)
    subscribe(receiver.url(BUSY), Site)
    dispatch_sites(3)
    assert work() == '3 delivered'
    assert len(broken_off) >= 2
    assert [one.attempt_count for one in deliveries(DELIVERED)] == [1, 1, 1]
    assert len(receiver.requests) == 3


class TestLane:
    def test_what_is_due_in_a_busy_lane_is_left_and_the_others_go(self, receiver):
        busy, idle = subscribe(receiver.url(BUSY), Site), subscribe(receiver.url(IDLE), Site)
        dispatch_sites()
        with open_transaction(lambda: lanes.take([busy.pk])):
            assert [one.webhook for one in claim()] == [idle]
        assert [one.webhook for one in claim()] == [busy]

    def test_an_outcome_for_a_busy_lane_is_kept_until_it_is_free(self, receiver, monkeypatch):
        busy = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Site)
        dispatch_sites()
        seen = []
        take = lanes.take

        def busy_at_first(webhook_ids: set[int]) -> set[int]:
            """As if another worker held it, until the other webhook has got its own."""
            taken = take(webhook_ids)
            is_held = busy.pk in taken and not deliveries(DELIVERED)
            seen.append(is_held)
            return taken - {busy.pk} if is_held else taken

        monkeypatch.setattr(lanes, 'take', busy_at_first)
        assert work() == '2 delivered'
        assert True in seen
        assert {one.attempt_count for one in deliveries(DELIVERED)} == {1}

    def test_while_one_is_held_beyond_the_time_of_the_job_the_others_go(self, receiver, monkeypatch):
        """As by a script that sends something anew, and goes on in its transaction."""
        is_over, goes_on = threading.Event(), Pace.is_over

        def noticed(pace: Pace, now: float) -> bool:
            if over := goes_on(pace, now):
                is_over.set()
            return over

        busy = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        receiver.answers(BUSY, Answer(delay=0.5))
        site()
        monkeypatch.setattr(job_time, 'JOB_TIME', job_time.RUN_OUT + 1)
        monkeypatch.setattr(Pace, 'is_over', noticed)
        with working():
            receiver.wait_for(1)
            with open_transaction(lambda: lanes.take([busy.pk])):
                assert is_over.wait(60)
                tenant()
                receiver.wait_for(1, to_idle, timeout=20)
        assert {one.attempt_count for one in deliveries(DELIVERED)} == {1}
        assert len(receiver.requests) == 2

    @pytest.fixture
    def held(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Webhook:
        """In whose lane is more than a slice, and older than what waits in the other's."""
        monkeypatch.setattr(expiry, 'PART', 2)
        monkeypatch.setattr(rescue, 'PART', 2)
        held = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        sites(3)
        tenant()
        dispatch_all()
        return held

    def statuses(self, held: Webhook) -> tuple[set[str], set[str]]:
        """Return those of the held one, and those of the other one."""
        of_held = Delivery.objects.filter(webhook=held).values_list('status', flat=True)
        return set(of_held), set(Delivery.objects.exclude(webhook=held).values_list('status', flat=True))

    def test_while_one_is_held_what_has_expired_in_the_others_fails(self, held):
        expire()
        with open_transaction(lambda: lanes.take([held.pk])):
            assert expiry.expire()
            assert not expiry.expire()
            assert self.statuses(held) == ({PENDING}, {FAILED})
            assert timer.something_to_do()
        assert expiry.expire()
        assert expiry.expire()
        assert not timer.something_to_do()
        assert self.statuses(held) == ({FAILED}, {FAILED})

    def test_what_a_deleted_webhook_has_left_is_purged_and_does_not_expire(self, held):
        expire()
        Webhook.objects.get(pk=held.pk).delete()
        while expiry.expire():
            pass
        assert set(sql.fetch_column('SELECT status FROM webhooks_delivery')) == {PENDING, FAILED}

    def test_while_one_is_held_what_has_lapsed_in_the_others_is_rescued(self, held):
        assert len(claim()) == 4
        pass_leases()
        with open_transaction(lambda: lanes.take([held.pk])):
            assert rescue.rescue()
            assert not rescue.rescue()
            assert self.statuses(held) == ({SENDING}, {PENDING})
        assert rescue.rescue()
        assert rescue.rescue()
        assert self.statuses(held) == ({PENDING}, {PENDING})

    def test_while_one_is_held_the_logs_of_other_deleted_webhooks_go(self, held):
        Webhook.objects.all().delete()
        with open_transaction(lambda: lanes.take([held.pk])):
            while purge.purge():
                pass
            assert sql.fetch_column(LANES) == [held.pk]
        while purge.purge():
            pass
        assert sql.fetch_column(LANES) == []

    def test_whoever_is_frozen_while_he_holds_one_is_ended_unless_the_transaction_is_older(self, receiver):
        webhook = subscribe(receiver.url(BUSY), Site)
        bounds = "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_user_timeout')"
        with lanes.hold(webhook.pk):
            assert sql.fetch(bounds) == [('5s', '8000')]
        assert sql.fetch(bounds)[0][0] == '0'
        with transaction.atomic(), lanes.hold(webhook.pk):
            assert sql.fetch(bounds)[0][0] == '0'


class TestLease:
    def test_what_was_frozen_for_so_long_that_others_may_have_it_goes_back_unsent(self, receiver, monkeypatch):
        begin, refused = Senders.begin, []

        def begin_late(senders: Senders, one: object, latest: float) -> None:
            if refused:
                begin(senders, one, latest)
                return
            refused.append(one)
            begin(senders, one, latest - 3600)

        monkeypatch.setattr(Senders, 'begin', begin_late)
        subscribe(receiver.url(BUSY), Site)
        site()
        assert work() == '1 delivered'
        assert (len(refused), len(receiver.requests)) == (1, 1)
        assert [one.attempt_count for one in deliveries()] == [1]


class TestLapsed:
    """A lease that ran out: its worker stopped, and the delivery may be why."""

    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url(BUSY), Site, max_attempts=1)

    def lapse(self, count: int = 1) -> None:
        """As if a worker had claimed what is due, and died."""
        for _ in range(count):
            pass_retry_waits()
            assert claim() or claim_suspect()
            pass_leases()
            rescue.rescue()

    def test_it_is_an_attempt_with_a_reason_and_the_next_one_comes_at_once(self, webhook):
        site()
        dispatch_all()
        self.lapse()
        (lapsed,) = deliveries()
        assert (lapsed.status, lapsed.attempt_count, lapsed.error) == (PENDING, 1, rescue.LAPSED)
        assert lapsed.due_at <= timezone.now()
        (attempt,) = Attempt.objects.all()
        assert (attempt.number, attempt.response_status, attempt.error) == (1, None, rescue.LAPSED)
        assert health(webhook).failed == 0

    def test_one_lapse_is_no_failure_however_few_attempts_there_may_be(self, webhook, receiver):
        site()
        dispatch_all()
        self.lapse(2)
        pass_retry_waits()
        assert work() == '1 delivered'
        assert deliveries()[0].lapses == 0

    def test_however_many_they_are_no_failure_and_leave_as_many_attempts_as_before(self, webhook, receiver):
        """Each may have been a worker that somebody killed."""
        Webhook.objects.update(max_attempts=2)
        receiver.answers(BUSY, 500)
        site()
        dispatch_all()
        self.lapse(10)
        (lapsed,) = deliveries()
        assert (lapsed.status, lapsed.lapses, health(webhook).failed) == (PENDING, rescue.SUSPECT, 0)
        assert work() == '1 to retry'
        pass_retry_waits()
        assert work() == '1 failed'
        assert len(receiver.requests) == 2

    def test_what_is_no_suspect_is_claimed_by_others_and_suspects_one_by_one(self, webhook, receiver):
        sites(3)
        dispatch_all()
        self.lapse()
        tenants = subscribe(receiver.url(IDLE), Tenant)
        tenant()
        pass_retry_waits()
        dispatch_all()
        assert [one.webhook for one in claim()] == [tenants]
        first, second = claim_suspect(), claim_suspect()  # by two workers
        assert len(first) == len(second) == 1
        assert first != second
        assert Delivery.objects.filter(status=SENDING, lapses__gt=0).count() == 2

    def test_others_of_its_webhook_leave_a_slot_to_it(self, webhook):
        Webhook.objects.update(concurrency=2)
        sites(4)
        dispatch_all()
        assert claim(limit=1)
        pass_leases()
        rescue.rescue()
        assert len(claim()) == 1
        assert len(claim_suspect()) == 1

    @pytest.mark.parametrize('limits', [{'concurrency': 1}, {'rate_limit': 5}])
    def test_where_there_is_one_slot_or_token_it_goes_before_others(self, webhook, receiver, limits):
        Webhook.objects.update(**limits)
        sites(4)
        dispatch_all()
        (lapsed,) = claim(limit=1)
        pass_leases()
        rescue.rescue()
        Health.objects.update(tokens_at=None)
        assert work() == '4 delivered'
        assert arrivals(receiver)[0][1] == lapsed.sequence

    def test_where_there_is_one_slot_others_do_not_wait_for_it_in_vain(self, webhook):
        """A job whose process has suspects of other webhooks in hand, or could not be begun, goes on with others."""
        Webhook.objects.update(concurrency=1)
        sites(2)
        dispatch_all()
        assert claim(limit=1)
        pass_leases()
        rescue.rescue()
        with lanes.turn() as now:
            assert not claims.claim(uuid.uuid4(), (), 10, now, yields=True).held
        assert len(claim()) == 1

    def test_its_neighbours_all_arrive(self, webhook, receiver):
        sites(5)
        dispatch_all()
        self.lapse()
        pass_retry_waits()
        assert work() == '5 delivered'

    def test_where_its_lane_is_busy_it_is_waited_for(self, webhook, receiver, monkeypatch):
        site()
        dispatch_all()
        self.lapse()
        found_busy, free = [], claims.claim

        def busy_at_first(*arguments: object, suspect: bool = False, **others: object) -> claims.Claim:
            if suspect and not found_busy:
                found_busy.append(True)
                return claims.Claim()
            return free(*arguments, suspect=suspect, **others)

        monkeypatch.setattr(claims, 'claim', busy_at_first)
        assert work() == '1 delivered'

    def test_where_its_lane_stays_busy_the_job_ends_and_asks_for_no_other(self, webhook, monkeypatch):
        """It is left to the timer: there would be one job after the other."""
        monkeypatch.setattr(quarantine, 'TIME', 3600.0)
        site()
        dispatch_all()
        self.lapse()
        queue.get().empty()
        with open_transaction(lambda: lanes.take([webhook.pk])):
            assert work() == 'nothing to send'
            assert timer.something_to_do()
        assert queue.get().count == 0
        assert work() == '1 delivered'

    def test_while_its_webhook_is_paused_no_job_asks_for_another(self, webhook):
        site()
        dispatch_all()
        self.lapse()
        Webhook.objects.update(paused=True)
        queue.get().empty()
        assert work() == 'nothing to send'
        assert queue.get().count == 0
        Webhook.objects.update(paused=False)
        assert work() == '1 delivered'

    def test_its_process_begins_nothing_once_its_time_is_over(self, webhook, monkeypatch):
        site()
        dispatch_all()
        self.lapse()
        with monkeypatch.context() as context:
            context.setattr(quarantine, 'TIME', 0.0)
            assert work() == 'nothing to send'
        assert work() == '1 delivered'

    def test_what_its_process_was_frozen_with_for_long_is_not_sent_by_it(self, webhook, receiver, monkeypatch):
        site()
        dispatch_all()
        self.lapse()
        with monkeypatch.context() as context:
            context.setattr(quarantine, 'LEASE_MARGIN', -1.0)
            assert work() == 'nothing to send'
        assert not receiver.requests
        assert len(deliveries(SENDING)) == 1
        pass_leases()
        rescue.rescue()
        assert work() == '1 delivered'

    def test_of_a_webhook_that_is_deleted_just_then_it_is_not_counted_and_others_are_sent(
        self, webhook, receiver, monkeypatch
    ):
        other = subscribe(receiver.url(IDLE), Tenant)
        site()
        tenant()
        dispatch_all()
        self.lapse()
        fetch = claims.fetch

        def fetch_too_late(pks: list[int]) -> list[Delivery]:
            found = fetch(pks)
            Webhook.objects.filter(pk__in={one.webhook_id for one in found} - {other.pk}).delete()
            return found

        monkeypatch.setattr(claims, 'fetch', fetch_too_late)
        assert work() == '1 delivered'
        assert [request.path for request in receiver.requests] == [IDLE]

    def test_what_waits_behind_it_waits_no_longer_than_behind_any_retry(self, webhook, receiver):
        place = site()
        dispatch_all()
        place.save()
        dispatch_all()
        self.lapse()
        _first, behind = deliveries()
        assert behind.due_at is not None


class TestProbes:
    """A suspended webhook is asked from time to time, whatever keeps its health from being written."""

    @pytest.fixture
    def suspended(self, receiver: Receiver) -> Webhook:
        webhook = subscribe(receiver.url(BUSY), Site)
        dispatch_sites(3)
        past = timezone.now() - timedelta(seconds=1)
        Health.objects.filter(webhook=webhook).update(unreachable=5, suspended_since=past, probe_at=past)
        receiver.close()
        return webhook

    def test_of_a_webhook_with_one_attempt_they_have_their_intervals(self, suspended):
        Webhook.objects.update(max_attempts=1)
        work()
        assert Attempt.objects.count() == 1
        assert health(suspended).probe_at > timezone.now()

    def test_while_somebody_holds_its_lane_there_is_none(self, suspended):
        with open_transaction(lambda: lanes.take([suspended.pk])):
            work()
            assert not Attempt.objects.exists()
        work()
        assert Attempt.objects.count() == 1

    def test_an_edit_brings_one_at_once_and_only_one(self, suspended):
        Health.objects.update(probe_at=timezone.now() + timedelta(hours=1), last_attempt_at=timezone.now())
        work()
        assert not Attempt.objects.exists()
        suspended.save()
        assert timer.something_to_do()
        work()
        assert Attempt.objects.count() == 1
        assert not timer.something_to_do()


def test_what_expires_is_failed_a_little_at_a_time_while_others_are_sent(receiver, monkeypatch):
    monkeypatch.setattr(expiry, 'PART', 1)
    paused = subscribe(receiver.url(BUSY), Site, paused=True)
    dispatch_sites(5)
    Delivery.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    subscribe(receiver.url(IDLE), Tenant)
    tenant()
    left = []
    receiver_send = runner.Drain._send

    def send(drain: runner.Drain, *args: object) -> None:
        left.append(len(deliveries(PENDING, webhook=paused)))
        receiver_send(drain, *args)

    monkeypatch.setattr(runner.Drain, '_send', send)
    work()
    assert left == [5]
    assert len(deliveries(FAILED, webhook=paused)) == 5


def test_a_receiver_of_signals_that_fails_does_not_keep_deliveries_from_expiring(receiver):
    subscribe(receiver.url(BUSY), Site, paused=True)
    dispatch_sites(2)
    Delivery.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    def refuse(**kwargs: object) -> None:
        raise ValueError('not today')

    pre_save.connect(refuse, sender=Health)
    try:
        work()
    finally:
        pre_save.disconnect(refuse, sender=Health)
    assert len(deliveries(FAILED)) == 2


def test_a_test_whose_process_stopped_is_not_sent_again(receiver):
    webhook = subscribe(receiver.url(BUSY), Site)
    site()
    work()
    sent = trial.send_test(webhook)
    Delivery.objects.filter(pk=sent.pk).update(status=SENDING, lease_until=timezone.now(), attempt_count=0)
    rescue.rescue()
    sent.refresh_from_db()
    assert (sent.status, sent.error) == (FAILED, rescue.LAPSED)


def test_a_hanging_endpoint_and_a_lapsed_delivery_hold_up_nobody(receiver):
    receiver.answers(BUSY, Answer(manner=Manner.HANG))
    subscribe(receiver.url(BUSY), Site, timeout=30)
    subscribe(receiver.url(IDLE), Tenant)
    site()
    dispatch_all()
    claim()
    pass_leases()
    rescue.rescue()
    pass_retry_waits()
    with working():
        receiver.wait_for(1)
        tenant()
        receiver.wait_for(1, to_idle)
        Webhook.objects.get(payload_url=receiver.url(BUSY)).delete()
        receiver.close()
