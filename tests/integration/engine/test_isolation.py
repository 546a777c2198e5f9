from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.db import OperationalError, transaction
from django.db.models.signals import pre_save
from django.utils import timezone
from support.builders import site, subscribe
from support.engine import (
    deliveries,
    die,
    dispatch_all,
    expire,
    health,
    hold,
    in_hand,
    in_thread,
    open_transaction,
    pass_alive,
    pass_retry_waits,
    sender,
    suspect,
    take_turns,
    work,
    working,
)
from support.others_code import proxy_router
from support.tables import refusing
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Received, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import registry, rescue, sql
from webhooks.engine.deliver import loop, order, record
from webhooks.engine.registry import ENDING, SEND, STOPPED, SUSPECT
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Attempt, Delivery, Health, Webhook, Worker
from webhooks.outbox import redis_queue
from webhooks.payload.http_request import Builder
from webhooks.services import trial
from webhooks.templating import renderer

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
BUSY, IDLE = '/busy', '/idle'
# Deleted webhooks have lanes, too.
LANES = 'SELECT webhook_id FROM webhooks_health'
# At least a tenth of a second.
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


def pass_turn() -> None:
    """Wait for two beats: a whole turn lies between them."""
    beats = {Worker.objects.get(role=SEND).alive_until}

    def are_three() -> bool:
        beats.add(Worker.objects.get(role=SEND).alive_until)
        return len(beats) == 3

    assert wait_until(are_three, timeout=60)


def to_idle(request: Received) -> bool:
    return request.path == IDLE


class TestBacklog:
    def test_a_change_for_an_idle_webhook_passes_it(self, receiver):
        receiver.answers(BUSY, Answer(delay=0.1))
        subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        sites(300)
        with working():
            receiver.wait_for(50, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            assert len(receiver.requests) < 250
            receiver.wait_for(301, timeout=60)


@dataclass(frozen=True)
class Gate:
    """It uses files, because another process waits."""

    is_reached: Path
    is_open: Path

    def wait(self, text: str) -> str:
        self.is_reached.touch()
        assert wait_until(self.is_open.exists, timeout=60)
        return text


@pytest.fixture
def gate(settings: Any, tmp_path: Path) -> Gate:
    gate = Gate(tmp_path / 'reached', tmp_path / 'open')
    settings.JINJA_FILTERS = {'wait': gate.wait}
    return gate


class TestSlowTemplate:
    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renderer, 'TEMPLATE_SECONDS', 60)

    def test_a_webhook_without_a_template_does_not_wait_for_slow_templates(self, receiver):
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
        """A webhook takes at most one thread."""
        subscribe(receiver.url(BUSY), Site, body_template='{{ data.name|wait }}')
        subscribe(receiver.url(IDLE), Tenant, body_template='{{ data.name }}')
        sites(2)
        with working():
            assert wait_until(gate.is_reached.exists, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            gate.is_open.touch()
        assert len(deliveries(DELIVERED)) == 3

    def test_requests_that_wait_to_be_built_are_not_sent_once_the_webhook_is_paused(self, receiver, gate):
        template = '{% if data.name != "first" %}{{ data.name|wait }}{% endif %}'
        subscribe(receiver.url(BUSY), Site, body_template=template)
        with transaction.atomic():
            site(name='first')
            for _ in range(4):
                site()
        with working():
            assert wait_until(gate.is_reached.exists, timeout=60)
            assert len(in_hand()) > 1
            Webhook.objects.update(paused=True)
            pass_turn()
            gate.is_open.touch()
        assert len(receiver.requests) == 1

    def test_a_request_that_is_being_built_is_not_sent_once_the_worker_ends(self, receiver, gate):
        subscribe(receiver.url(BUSY), Site, body_template='{{ data.name|wait }}')
        dispatch_sites()
        with sender() as (pk, first):
            assert take_turns(first, gate.is_reached.exists)
            ending = in_thread(first.end)
            assert wait_until(lambda: Worker.objects.get(pk=pk).role == ENDING, timeout=60)
            gate.is_open.touch()
            ending.join(60)
        assert not receiver.requests
        assert len(deliveries(PENDING)) == 1

    def test_requests_that_wait_to_be_built_leave_threads_to_other_webhooks(self, receiver, gate):
        for _ in range(5):
            subscribe(receiver.url(BUSY), Site, body_template='{{ data.name|wait }}')
        subscribe(receiver.url(IDLE), Tenant)
        sites(16)
        with working():
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
            receiver.wait_for(webhooks, timeout=60)
            assert wait_until(lambda: len({one.webhook_id for one in in_hand()}) == webhooks, timeout=60)
            tenant()
            receiver.wait_for(1, to_idle, timeout=60)
            assert not Attempt.objects.filter(delivery__object_type__model='site').exists()
            Webhook.objects.all().delete()
            receiver.close()

    def test_the_one_request_of_each_takes_no_room_from_others(self, receiver, monkeypatch):
        """The last two requests of another webhook hang, so both are under way at once."""
        monkeypatch.setattr(loop, 'MAX_SHARED_REQUESTS', 2)
        receiver.answers(BUSY, Answer(manner=Manner.HANG))
        receiver.answers(IDLE, 200, 200, Answer(manner=Manner.HANG))
        for _ in range(3):
            subscribe(receiver.url(BUSY), Site, timeout=120)
        subscribe(receiver.url(IDLE), Tenant, timeout=120, concurrency=2)
        site()
        with working():
            receiver.wait_for(3, timeout=60)
            for number in range(4):
                Tenant.objects.create(name=str(number), slug=str(number))
            receiver.wait_for(7, timeout=60)
            receiver.close()

    def test_deliveries_that_a_dead_worker_held_do_not_wait_for_an_endpoint_that_hangs(self, receiver):
        receiver.answers(BUSY, Answer(manner=Manner.HANG))
        subscribe(receiver.url(BUSY), Site, max_attempts=1, timeout=120)
        subscribe(receiver.url(IDLE), Tenant)
        sites(2)
        for number in range(8):
            Tenant.objects.create(name=str(number), slug=str(number))
        dispatch_all()
        die(*deliveries())
        pass_retry_waits()
        with working():
            receiver.wait_for(8, to_idle)
            receiver.close()
        paths = [request.path for request in receiver.requests]
        assert paths[:9].count(IDLE) == 8


@pytest.mark.parametrize('template', ['', '{}'], ids=['at once', 'in the other thread'])
class TestDatabaseErrorWhileBuilding:
    @pytest.fixture(autouse=True)
    def changed(self, committed: None, receiver: Receiver, template: str) -> None:
        subscribe(receiver.url(BUSY), Tenant, body_template=template)
        subscribe(receiver.url(IDLE), Site, body_template=template)
        tenant()
        site()

    def for_tenants(self, fail: Callable[[], object]) -> list[type]:
        return [proxy_router(lambda webhook: webhook.payload_url.endswith(BUSY) and fail())]

    @pytest.mark.parametrize('asks_ours', [False, True])
    def test_it_fails_one_delivery_where_our_own_connection_answers(self, settings, asks_ours):
        def fail() -> None:
            if asks_ours:
                Tenant.objects.get()
            raise OperationalError("a plugin's database is down")

        settings.PROXY_ROUTERS = self.for_tenants(fail)
        assert work() == '1 delivered, 1 failed'
        (failed,) = deliveries(FAILED)
        assert failed.error == "not sent: OperationalError: a plugin's database is down"

    @pytest.mark.parametrize('times', [1, 2], ids=['once', 'and goes back while it is away'])
    def test_a_request_whose_building_postgresql_breaks_off_is_built_again(self, settings, times):
        struck = []

        def fail() -> None:
            if len(struck) < times:
                struck.append(None)
                sql.execute('SELECT pg_terminate_backend(pg_backend_pid())')

        settings.PROXY_ROUTERS = self.for_tenants(fail)
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
        """Nobody knows yet whether the deletion commits."""
        webhook = subscribe(receiver.url(BUSY), Site)
        with open_transaction(Webhook.objects.get(pk=webhook.pk).delete):
            site()
            assert work() == '1 delivered'

    def test_an_answer_of_410_waits_for_no_edit_and_disables_when_that_is_over(self, receiver):
        gone = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Site)
        receiver.answers(BUSY, 410)
        with open_transaction(lambda: Webhook.objects.filter(pk=gone.pk).update(description='being edited')):
            dispatch_sites()
            assert work() == '1 delivered, 1 to retry'
            assert Webhook.objects.get(pk=gone.pk).enabled
        work()
        assert not Webhook.objects.get(pk=gone.pk).enabled

    def test_meanwhile_an_endpoint_that_answers_410_gets_no_more(self, receiver):
        gone = subscribe(receiver.url(BUSY), Site, max_attempts=1, concurrency=1)
        subscribe(receiver.url(IDLE), Site)
        receiver.answers(BUSY, 410)
        with open_transaction(Webhook.objects.get(pk=gone.pk).save):
            dispatch_sites(9)
            assert work() == '9 delivered, 1 failed'
            assert len(deliveries(PENDING)) == 8
            assert Webhook.objects.get(pk=gone.pk).enabled

    def test_a_410_that_cannot_disable_its_webhook_yet_holds_no_other_answer(self, receiver, monkeypatch):
        monkeypatch.setattr(sql, 'BOUNDS', sql.BOUNDS.replace("'lock_timeout', '5000'", "'lock_timeout', '50'"))
        gone = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Site)
        receiver.answers(BUSY, 410)
        with open_transaction(lambda: sql.execute('LOCK TABLE extras_journalentry')):
            dispatch_sites()
            assert work() == '1 delivered, 1 to retry'
            assert Webhook.objects.get(pk=gone.pk).enabled
        work()
        assert not Webhook.objects.get(pk=gone.pk).enabled

    def test_a_webhook_that_somebody_enables_after_a_410_stays_enabled(self, receiver):
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
        original = record.decide

        def decide(delivery: Delivery, *args: object) -> object:
            if delivery.webhook_id == victim.pk:
                raise OverflowError('too far away')
            return original(delivery, *args)

        monkeypatch.setattr(record, 'decide', decide)
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

    def test_an_error_of_postgresql_stops_no_other(self, victim):
        site()
        data_exception = '22000'
        with refusing('INSERT ON webhooks_attempt', f"NEW.url LIKE '%{BUSY}' AND NEW.error = ''", data_exception):
            self.check(victim, 'its outcome cannot be recorded')

    def test_an_error_of_a_plugin_when_a_webhook_is_disabled_stops_no_other(self, victim, receiver):
        """The webhook stays enabled until it can be saved."""
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
    def test_a_webhook_that_cannot_be_saved_keeps_no_other_from_being_disabled(self, receiver, error):
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


def hold_lane(webhook: Webhook) -> Callable[[], None]:
    """A script may close deliveries and keep its transaction open."""
    return lambda: order.lock_lanes([webhook.pk])


class TestLane:
    """Somebody holds a lane."""

    def test_a_locked_lane_is_left_and_the_other_lanes_are_sent(self, receiver):
        busy, idle = subscribe(receiver.url(BUSY), Site), subscribe(receiver.url(IDLE), Site)
        dispatch_sites()
        with open_transaction(hold_lane(busy)):
            assert work() == '1 delivered'
        assert [one.webhook for one in deliveries(DELIVERED)] == [idle]
        assert work() == '1 delivered'

    def test_an_outcome_is_kept_until_it_is_free_and_the_others_go(self, receiver):
        busy = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        receiver.answers(BUSY, Answer(delay=150))
        site()
        with working():
            receiver.wait_for(1)
            with open_transaction(hold_lane(busy)):
                receiver.closing.set()
                tenant()
                receiver.wait_for(1, to_idle)
                assert wait_until(lambda: deliveries(DELIVERED), timeout=60)
                assert len(in_hand()) == 1
        assert {one.attempt_count for one in deliveries(DELIVERED)} == {1}
        assert len(receiver.requests) == 2

    def test_where_a_worker_has_died_that_owned_it_its_other_lanes_are_free(self, receiver):
        busy = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        site()
        tenant()
        dispatch_all()
        first, second = deliveries()
        dead = hold(first, second)
        pass_alive()
        with open_transaction(hold_lane(busy)):
            while rescue.rescue():
                pass
            assert [one.error for one in deliveries()] == ['', STOPPED]
            assert list(Health.objects.filter(owner=dead.pk)) == [busy.health]
            with pytest.raises(registry.Lost):
                dead.beat()
        pass_alive()
        assert rescue.rescue()
        assert [one.error for one in deliveries()] == [STOPPED, STOPPED]
        assert not Worker.objects.exists()
        assert not Health.objects.exclude(owner=None)

    @pytest.fixture
    def held(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Webhook:
        """Its lane has more than a slice, all older than the second lane's."""
        monkeypatch.setattr(tidy, 'ROWS_PER_TRANSACTION', 2)
        held = subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Tenant)
        sites(3)
        tenant()
        dispatch_all()
        return held

    def statuses(self, held: Webhook) -> tuple[set[str], set[str]]:
        """Return the statuses in the held lane and in the second lane."""
        of_held = Delivery.objects.filter(webhook=held).values_list('status', flat=True)
        return set(of_held), set(Delivery.objects.exclude(webhook=held).values_list('status', flat=True))

    def test_while_one_is_held_what_has_expired_in_the_others_fails(self, held):
        expire()
        with open_transaction(hold_lane(held)):
            assert tidy.expire()
            assert not tidy.expire()
            assert self.statuses(held) == ({PENDING}, {FAILED})
        assert tidy.expire()
        assert tidy.expire()
        assert not tidy.expire()
        assert self.statuses(held) == ({FAILED}, {FAILED})

    def test_deliveries_of_a_deleted_webhook_do_not_expire(self, held):
        expire()
        Webhook.objects.get(pk=held.pk).delete()
        while tidy.expire():
            pass
        assert set(sql.fetch_column('SELECT status FROM webhooks_delivery')) == {PENDING, FAILED}

    def test_while_one_is_held_the_logs_of_other_deleted_webhooks_go(self, held):
        Webhook.objects.all().delete()
        with open_transaction(hold_lane(held)):
            while tidy.forget_deleted():
                pass
            assert sql.fetch_column(LANES) == [held.pk]
        while tidy.forget_deleted():
            pass
        assert sql.fetch_column(LANES) == []


class TestStopped:
    """A worker stopped, and the delivery in hand may be the reason."""

    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url(BUSY), Site, max_attempts=1)

    def stop(self, count: int = 1) -> None:
        for _ in range(count):
            die(*deliveries(PENDING))
        pass_retry_waits()

    def test_it_is_an_attempt_with_a_reason(self, webhook):
        dispatch_sites()
        self.stop()
        (stopped,) = deliveries()
        assert (stopped.status, stopped.attempt_count, stopped.error) == (PENDING, 1, STOPPED)
        (attempt,) = Attempt.objects.all()
        assert (attempt.number, attempt.response_status, attempt.error) == (1, None, STOPPED)
        assert health(webhook).failed == 0

    def test_one_is_no_failure_however_few_attempts_there_may_be(self, webhook):
        dispatch_sites()
        self.stop(2)
        work()
        (delivered,) = deliveries(DELIVERED)
        assert delivered.lapses == 0

    def test_however_many_they_are_no_failure_and_leave_as_many_attempts_as_before(self, webhook, receiver):
        """Somebody may have killed each worker."""
        Webhook.objects.update(max_attempts=2)
        receiver.answers(BUSY, 500)
        dispatch_sites()
        self.stop(10)
        (stopped,) = deliveries()
        assert (stopped.status, stopped.lapses, health(webhook).failed) == (PENDING, SUSPECT, 0)
        work()
        assert deliveries(PENDING)
        pass_retry_waits()
        assert work() == '1 failed'
        assert len(receiver.requests) == 2

    def test_its_neighbours_all_arrive(self, webhook):
        dispatch_sites(5)
        first, *_others = deliveries()
        die(first)
        pass_retry_waits()
        work()
        assert len(deliveries(DELIVERED)) == 5

    def test_while_somebody_holds_its_lane_it_waits(self, webhook, receiver):
        dispatch_sites()
        self.stop()
        with open_transaction(hold_lane(webhook)):
            assert work() == 'nothing to send'
            assert not receiver.requests
        work()
        assert len(deliveries(DELIVERED)) == 1

    def test_while_its_webhook_is_paused_no_job_asks_for_another(self, webhook):
        dispatch_sites()
        self.stop()
        Webhook.objects.update(paused=True)
        redis_queue.get().empty()
        assert work() == 'nothing to send'
        assert redis_queue.get().count == 0
        Webhook.objects.update(paused=False)
        work()
        assert len(deliveries(DELIVERED)) == 1

    def test_a_deleted_webhook_sends_nothing_and_the_others_go_on(self, webhook, receiver):
        subscribe(receiver.url(IDLE), Tenant)
        site()
        tenant()
        dispatch_all()
        self.stop()
        webhook.delete()
        work()
        assert [request.path for request in receiver.requests] == [IDLE]


class TestProbes:
    @pytest.fixture
    def suspended(self, receiver: Receiver) -> Webhook:
        webhook = subscribe(receiver.url(BUSY), Site)
        dispatch_sites(3)
        past = timezone.now() - timedelta(seconds=1)
        Health.objects.filter(webhook=webhook).update(unreachable=5, suspended_since=past, probe_at=past)
        receiver.close()
        return webhook

    def test_probes_of_a_webhook_with_one_attempt_keep_their_intervals(self, suspended):
        Webhook.objects.update(max_attempts=1)
        work()
        assert Attempt.objects.count() == 1
        assert health(suspended).probe_at > timezone.now()

    def test_while_somebody_holds_its_lane_there_is_none(self, suspended):
        with open_transaction(hold_lane(suspended)):
            work()
            assert not Attempt.objects.exists()
        work()
        assert Attempt.objects.count() == 1

    def test_an_edit_brings_one_at_once_and_only_one(self, suspended):
        Health.objects.update(probe_at=timezone.now() + timedelta(hours=1), last_attempt_at=timezone.now())
        work()
        assert not Attempt.objects.exists()
        suspended.save()
        work()
        assert Attempt.objects.count() == 1
        work()
        assert Attempt.objects.count() == 1


def test_expired_deliveries_fail_a_few_at_a_time_while_others_are_sent(receiver, monkeypatch):
    monkeypatch.setattr(tidy, 'ROWS_PER_TRANSACTION', 1)
    subscribe(receiver.url(BUSY), Site, paused=True)
    dispatch_sites(5)
    expire()
    subscribe(receiver.url(IDLE), Tenant)
    tenant()
    assert work() == '1 delivered'
    assert wait_until(lambda: work() and len(deliveries(FAILED)) == 5, timeout=60)


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
    Delivery.objects.filter(pk=sent.pk).update(state=SENDING, attempt_count=0)
    expire()
    tidy.expire()
    sent.refresh_from_db()
    assert (sent.status, sent.error) == (FAILED, 'it was cut off before an outcome was recorded')


def test_a_hanging_endpoint_and_a_suspect_hold_up_nobody(receiver):
    receiver.answers(BUSY, Answer(manner=Manner.HANG))
    subscribe(receiver.url(BUSY), Site, timeout=30)
    subscribe(receiver.url(IDLE), Tenant)
    dispatch_sites()
    suspect(*deliveries())
    pass_retry_waits()
    with working():
        receiver.wait_for(1)
        tenant()
        receiver.wait_for(1, to_idle)
        Webhook.objects.get(payload_url=receiver.url(BUSY)).delete()
        receiver.close()
