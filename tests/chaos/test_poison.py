"""A poison kills each process that works on it, as running out of memory does: it fails by name, all others arrive.

A worker killed by somebody is never blamed on its work.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
from dcim.models import Site
from django.db import OperationalError, connection, transaction
from django_rq import get_worker
from support import log
from support.builders import site, subscribe
from support.cases import first
from support.chaos.audit import finish
from support.chaos.victims import Children, die
from support.engine import (
    deliveries,
    health,
    hold,
    open_transaction,
    pass_alive,
    pass_retry_waits,
    suspect,
    work,
)
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Received, Receiver
from webhooks import rendering
from webhooks.choices import StatusChoices
from webhooks.engine import registry, rescue
from webhooks.engine.deliver import lane, order
from webhooks.engine.dispatch import render
from webhooks.engine.process import child, dispatcher
from webhooks.engine.process import suspects as module
from webhooks.engine.process.supervisor import Supervisor
from webhooks.engine.registry import SUSPECT
from webhooks.models import Delivery, Event, Webhook, Worker
from webhooks.outbox import redis_queue, wakeup
from webhooks.payload.http_request import Builder
from webhooks.templating import process
from webhooks.worker import WebhooksWorker

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
SITES, TENANTS = '/sites', '/tenants'
ROUNDS = 10
PATIENCE = 60
DIED = ['its process died once (signal 9)', 'its process died twice (signal 9)', 'its process died 3 times (signal 9)']

Blow = Callable[[], object]


def to_tenants(request: Received) -> bool:
    return request.path == TENANTS


def tenant(number: int) -> Tenant:
    return Tenant.objects.create(name=f'Tenant {number}', slug=f'tenant-{number}')


def hang() -> NoReturn:
    """Python's lock is kept: neither signal handlers nor other threads run."""
    ctypes.PyDLL(None).sleep(1000)
    raise AssertionError('it goes on')


def cut_off() -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_terminate_backend(pg_backend_pid())')


def kill_the_worker() -> NoReturn:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    raise AssertionError('it lives on without its worker')


def is_alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


class Poison:
    """A site that strikes where its delivery is built or its event rendered."""

    def __init__(self, stage: str, note: Path) -> None:
        self.stage = stage
        self.pk = 0
        self._note = note

    def job(self, in_worker: Blow, beside: Blow) -> Callable[[], None]:
        def run() -> None:
            worker = os.getpid()

            def strike() -> None:
                if os.getpid() != worker:
                    self._note.write_text(str(os.getpid()))
                (in_worker if os.getpid() == worker else beside)()

            self._arm(strike)
            work()

        return run

    def process(self) -> int:
        """Wait until it strikes beside the worker, and return that process's id."""
        assert wait_until(self.has_struck, PATIENCE)
        return int(self._note.read_text())

    def has_struck(self) -> bool:
        return self._note.exists() and bool(self._note.read_text())

    def count(self) -> int:
        return max(self.row().lapses - SUSPECT, 0)

    def is_in_hand(self) -> bool:
        rows = Worker.objects.filter(role=registry.SUSPECTS)
        return any(self.row().pk in (one.deliveries if self.stage == 'delivery' else one.events) for one in rows)

    def row(self) -> Delivery | Event:
        model = Delivery if self.stage == 'delivery' else Event
        return model.objects.get(object_type__model='site', object_id=self.pk)

    def _arm(self, strike: Blow) -> None:
        build, render = Builder.build, rendering.render

        def poisoned_build(builder: Builder, delivery: Delivery, *arguments: object) -> object:
            if (delivery.object_type.model, delivery.object_id) == ('site', self.pk):
                strike()
            return build(builder, delivery, *arguments)

        def poisoned_render(model: type, snapshots: list, *deletions: object) -> list:
            if model is Site and self.pk in [snapshot['row']['id'] for snapshot in snapshots]:
                strike()
            return render(model, snapshots, *deletions)

        if self.stage == 'delivery':
            Builder.build = poisoned_build
        else:
            rendering.render = poisoned_render


# What holds for both kinds of suspects alike, as one process tries them. `--long`: both.
ONE_KIND = pytest.mark.parametrize('poison', first(1, ['delivery', 'event']), indirect=True)


@pytest.fixture(params=['delivery', 'event'])
def poison(request: pytest.FixtureRequest, tmp_path: Path) -> Poison:
    return Poison(request.param, tmp_path / 'pid')


@pytest.fixture
def webhook(receiver: Receiver, poison: Poison, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    """Four sites wait, among them the poison."""
    # The process for suspects looks ten times for a lane that nobody holds.
    monkeypatch.setattr(lane, 'IDLE_SECONDS', 0.0)
    webhook = subscribe(receiver.url(SITES), Site, max_attempts=2)
    subscribe(receiver.url(TENANTS), Tenant)
    with transaction.atomic():
        places = [site() for _ in range(4)]
    poison.pk = places[1].pk
    render.Renderer()  # a first load takes long
    return webhook


@pytest.fixture
def suspects(webhook: Webhook, poison: Poison, children: Children) -> Iterator[Webhook]:
    """Two workers died with the poison and others in hand."""
    for lapses in (0, SUSPECT):
        assert children.wait(children.fork(poison.job(die, die))) == signal.SIGKILL
        pass_lapses()
        pass_retry_waits()
        assert poison.row().lapses == lapses
    return webhook


def pass_lapses() -> None:
    pass_alive()
    while rescue.rescue():
        pass


def all_but(poison: Poison) -> set[int]:
    return set(Site.objects.values_list('pk', flat=True)) - {poison.pk}


def test_it_fails_by_name_after_three_deaths_and_all_others_arrive(suspects, poison, receiver, children):
    job = poison.job(die, die)
    for deaths in (1, 2, 3):
        tenant(deaths)
        assert children.ends_well(children.fork(job)), 'the worker died'
        assert poison.count() == deaths
        assert len(deliveries(DELIVERED, webhook__payload_url=receiver.url(TENANTS))) == deaths
        pass_retry_waits()
    for _ in range(2):  # the first makes the event's delivery
        assert children.ends_well(children.fork(job)), 'the worker died'
    (failed,) = deliveries(FAILED)
    assert failed.object_id == poison.pk
    assert failed.error.endswith(DIED[-1])
    assert health(suspects).failed == 1
    assert {one.object_id for one in deliveries(DELIVERED, webhook=suspects)} == all_but(poison)
    if poison.stage == 'delivery':
        assert [attempt.error for attempt in failed.attempts.all()] == [registry.STOPPED, registry.STOPPED, *DIED]


def test_while_it_hangs_others_arrive_and_that_counts_once_its_time_is_over(
    suspects, poison, receiver, children, monkeypatch
):
    """While its worker lives, nobody rescues it."""
    monkeypatch.setattr(module, 'DISPATCH_SECONDS', 12.0)
    monkeypatch.setattr(module, 'SEND_MARGIN_SECONDS', 11.0)
    monkeypatch.setattr(registry, 'ALIVE_SECONDS', 5.0)
    Webhook.objects.update(timeout=1)
    worker = children.fork(poison.job(hang, hang))
    assert wait_until(poison.is_in_hand, PATIENCE)
    tenant(1)
    receiver.wait_for(1, to_tenants)
    assert poison.is_in_hand()
    assert wait_until(lambda: not rescue.rescue() and not children.is_running(worker), PATIENCE)
    assert children.ends_well(worker)
    assert poison.count() == 1
    assert poison.row().error == 'its process died once (it took too long)'


@ONE_KIND
def test_a_death_counts_though_the_time_of_the_job_is_over_before(suspects, poison, children):
    """A burst lasts half a minute, and a suspect may take longer."""

    def die_late() -> None:
        assert wait_until(lambda: not Worker.objects.filter(role=registry.SEND).exists(), PATIENCE)
        die()

    def job() -> None:
        child.is_stopping = poison.has_struck
        poison.job(die, die_late)()

    assert children.ends_well(children.fork(job))
    assert poison.count() == 1


@ONE_KIND
def test_workers_that_are_killed_with_it_in_hand_fail_nothing_and_all_arrive(suspects, poison, receiver, children):
    for _ in range(ROUNDS):
        assert children.wait(children.fork(poison.job(die, kill_the_worker))) == signal.SIGKILL
        pass_lapses()
        pass_retry_waits()
    assert poison.count() == 0
    finish()
    assert {one.object_id for one in deliveries(DELIVERED)} == all_but(poison) | {poison.pk}


@ONE_KIND
def test_its_process_ends_with_the_worker_and_nothing_is_counted(suspects, poison, children):
    worker = children.fork(poison.job(die, hang))
    process = poison.process()
    assert is_alive(process)
    children.kill(worker)
    assert wait_until(lambda: not is_alive(process), PATIENCE)
    assert poison.count() == 0
    finish()
    assert {one.object_id for one in deliveries(DELIVERED)} == all_but(poison) | {poison.pk}


@ONE_KIND
def test_work_that_postgresql_breaks_off_becomes_no_suspect(suspects, poison, children):
    for _ in range(4):
        assert children.ends_well(children.fork(poison.job(die, cut_off)))
        assert not is_alive(poison.process())
        # An event is counted once, then goes alone.
        assert poison.count() <= (poison.stage == 'event')
        pass_lapses()
    finish()
    assert {one.object_id for one in deliveries(DELIVERED)} == all_but(poison) | {poison.pk}


@pytest.mark.parametrize('poison', ['event'], indirect=True)
def test_an_event_whose_worker_was_ended_by_hand_is_no_suspect_and_is_tried_again_soon(suspects, poison, children):
    """Rendering may take two minutes: it does not wait for that."""
    assert children.ends_well(children.fork(poison.job(die, lambda: os.kill(os.getpid(), signal.SIGINT))))
    assert not is_alive(poison.process())
    assert poison.count() == 0
    assert not Worker.objects.exists()
    finish()
    assert {one.object_id for one in deliveries(DELIVERED)} == all_but(poison) | {poison.pk}


@ONE_KIND
def test_an_error_of_its_process_counts_and_is_named_by_the_exit_status(
    suspects, poison, receiver, children, monkeypatch, capfd
):
    monkeypatch.setattr(process.logger, 'exception', lambda what: os.write(2, what.encode()))

    def fail(*arguments: object) -> NoReturn:
        raise RuntimeError('no error of the suspect, which would be its outcome')

    def job() -> None:
        module._send = render.Renderer.render = fail
        work()

    assert children.ends_well(children.fork(job)), 'the worker died'
    rows = Delivery.objects.all() if poison.stage == 'delivery' else Event.objects.filter(dispatched_at=None)
    died = [row.error for row in rows.filter(lapses__gt=SUSPECT)]
    assert died == ['its process died once (exit status 70)']
    assert 'process=failed' in capfd.readouterr().err
    finish()
    assert {one.object_id for one in deliveries(DELIVERED)} == all_but(poison) | {poison.pk}


@ONE_KIND
def test_where_no_process_can_be_made_suspects_wait_and_all_others_arrive(suspects, poison, receiver, children):
    def fail(*arguments: object) -> NoReturn:
        raise OSError('there are too many already')

    def job() -> None:
        child.fork = fail
        work()

    tenant(1)
    with redis_queue.get().connection as redis:
        redis.flushdb()
    assert children.ends_well(children.fork(job)), 'the worker died'
    # Suspects wait for the next look: jobs that asked for a successor would never end.
    assert redis_queue.get().count == 0
    wakeup.wake()
    assert redis_queue.get().count == 1
    assert len(deliveries(DELIVERED, webhook__payload_url=receiver.url(TENANTS))) == 1
    assert poison.row().lapses == SUSPECT
    finish()
    assert len(deliveries(DELIVERED, webhook=suspects)) == len(all_but(poison)) + 1


def test_a_death_counts_although_somebody_holds_the_lane(receiver):
    webhook = subscribe(receiver.url('/hook'), Site)
    poisonous = log.delivery(log.event(site()), webhook, status=StatusChoices.PENDING)
    suspect(poisonous)
    registration = hold(poisonous, role=registry.SUSPECTS)
    supervisor = Supervisor(None, [], lambda: None)
    supervisor._ended.append((registration.name, 'signal 11'))
    with open_transaction(lambda: order.lock_lanes([webhook.pk])):
        supervisor._rescue()
    supervisor._rescue()
    poisonous.refresh_from_db()
    assert poisonous.error == 'its process died once (signal 11)'


@ONE_KIND
def test_a_suspect_that_ends_well_is_a_suspect_no_longer(suspects, poison, children):
    assert children.ends_well(children.fork(poison.job(die, die)))
    assert poison.count() == 1
    pass_retry_waits()
    finish()
    assert not Delivery.objects.exclude(status=DELIVERED, lapses=0).exists()
    assert not Event.objects.exclude(error='').exists()


@pytest.mark.parametrize('poison', ['event'], indirect=True)
def test_a_rendering_that_does_not_let_go_of_the_interpreter_is_ended_by_the_kernel(
    webhook, poison, children, monkeypatch
):
    """First dispatchers end, then the processes beside them, which counts."""
    monkeypatch.setattr(dispatcher, 'HANG_SECONDS', 4.0)
    monkeypatch.setattr(module, 'DISPATCH_SECONDS', 6.0)

    def job() -> None:
        poison._arm(hang)
        get_worker('low', worker_class=WebhooksWorker).work()

    def has_failed() -> bool:
        with suppress(OperationalError):  # the worker locks these rows in another order
            pass_retry_waits()
        return bool(deliveries(FAILED))

    children.fork(job)
    assert wait_until(has_failed, 2 * PATIENCE)
    (failed,) = deliveries(FAILED)
    assert failed.object_id == poison.pk
    assert failed.error.endswith('its process died 3 times (it took too long)')
    assert wait_until(lambda: {one.object_id for one in deliveries(DELIVERED)} == all_but(poison), PATIENCE)
