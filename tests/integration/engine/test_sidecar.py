"""A worker of several queues has a sidecar for ours, so that NetBox's jobs and ours do not wait for each other."""

import errno
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from dcim.models import Site
from django.db import OperationalError
from django_rq import get_queue, get_worker
from redis import RedisError
from rq import Worker as RQWorker
from rq.job import Job, JobStatus
from support.builders import site, subscribe
from support.engine import deliveries

from devstack.netbox import Worker
from devstack.process import ProcessId, descendants, wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.sidecar import Sidecar
from webhooks.models import Webhook
from webhooks.outbox import queue
from webhooks.worker import WebhooksWorker

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
PATIENCE = 60
# Seconds: longer than anybody here waits for it.
LONG = 600


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def is_delivered(count: int) -> Callable[[], bool]:
    return lambda: len(deliveries(StatusChoices.DELIVERED)) == count


def sidecars() -> list[RQWorker]:
    return [one for one in RQWorker.all(queue=queue.get()) if one.pid]


def process_of(worker: Worker, pid: int) -> ProcessId:
    return next(process for process in descendants(worker.pid) if process.pid == pid)


def end(worker: Worker) -> None:
    """At once, with its long job."""
    jobs = descendants(worker.pid)
    worker.kill()
    for job in jobs:
        job.kill()


def begin_a_long_job() -> Job:
    """A script of somebody, for instance."""
    job = get_queue('default').enqueue_call('time.sleep', (LONG,), timeout=2 * LONG)
    assert wait_until(lambda: job.get_status() == JobStatus.STARTED, timeout=PATIENCE)
    return job


def test_a_change_does_not_wait_for_a_long_job_of_netbox(webhook, receiver, rqworker):
    worker = rqworker()
    job = begin_a_long_job()
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)
    assert job.get_status() == JobStatus.STARTED
    end(worker)


def test_a_job_of_netbox_does_not_wait_for_an_endpoint_that_hangs(webhook, receiver, rqworker):
    receiver.answers(HOOK, Answer(manner=Manner.HANG))
    rqworker()
    site()
    receiver.wait_for(1, timeout=PATIENCE)
    job = get_queue('default').enqueue_call('time.sleep', (0,))
    assert wait_until(lambda: job.get_status() == JobStatus.FINISHED, timeout=PATIENCE)
    assert len(deliveries(StatusChoices.SENDING)) == 1


def test_it_uses_no_connection_of_its_parents_pool(webhook, rqworker, make_netbox):
    rqworker(netbox=make_netbox("DATABASES['default'] |= {'CONN_MAX_AGE': 0, 'OPTIONS': {'pool': True}}"))
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)


def test_each_queue_has_one_worker(webhook, rqworker):
    worker = rqworker()
    pids = {name: [one.pid for one in RQWorker.all(queue=get_queue(name))] for name in ('high', 'default', 'low')}
    assert pids['high'] == pids['default'] == [worker.pid]
    assert len(pids['low']) == queue.count_workers() == 1
    assert pids['low'] != pids['high']


@pytest.mark.parametrize('busy', [False, True])
def test_one_that_was_killed_is_replaced(webhook, receiver, rqworker, busy):
    worker = rqworker()
    (first,) = sidecars()
    if busy:
        begin_a_long_job()
    process_of(worker, first.pid).kill()
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)
    assert worker.child.running
    end(worker)


def test_it_ends_with_a_worker_that_is_killed(webhook, rqworker):
    worker = rqworker()
    process = process_of(worker, sidecars()[0].pid)
    others = descendants(worker.pid)
    worker.kill()
    assert wait_until(lambda: not process.is_alive, timeout=PATIENCE)
    for other in others:
        other.kill()


def test_a_worker_that_is_told_to_stop_waits_for_what_is_under_way(webhook, receiver, rqworker):
    receiver.answers(HOOK, Answer(delay=3))
    worker = rqworker()
    site()
    receiver.wait_for(1, timeout=PATIENCE)
    os.kill(worker.pid, signal.SIGTERM)
    assert wait_until(lambda: not worker.child.running, timeout=PATIENCE)
    assert is_delivered(1)()
    assert not sidecars()


def test_told_twice_it_ends_at_once(webhook, receiver, rqworker):
    receiver.answers(HOOK, Answer(manner=Manner.HANG))
    worker = rqworker()
    process = process_of(worker, sidecars()[0].pid)
    site()
    receiver.wait_for(1, timeout=PATIENCE)

    def is_gone() -> bool:
        """RQ takes no notice of a signal that comes within a second after the first."""
        if worker.child.running:
            os.kill(worker.pid, signal.SIGTERM)
        return not worker.child.running and not process.is_alive

    assert wait_until(is_gone, timeout=webhook.effective_timeout / 2, interval=1.1)


def test_it_has_no_scheduler_of_its_own(webhook, rqworker):
    """One that was killed would leave it behind, and nobody could schedule jobs of the queue but that."""
    rqworker()
    (ours,) = sidecars()
    assert wait_until(lambda: len(descendants(ours.pid)) == 1, timeout=PATIENCE)  # the standby
    locks = [f'rq:scheduler-lock:{name}' for name in ('high', 'default', 'low')]
    schedulers = {queue.get().connection.get(lock) for lock in locks}
    assert len(schedulers) == 1
    assert None not in schedulers


def test_a_worker_that_ends_by_itself_has_none(webhook, receiver, netbox):
    site()
    assert netbox.run('rqworker', '--burst').returncode == 0
    assert is_delivered(1)()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize('has_handles', [True, False])
def test_without_handles_on_processes_a_worker_serves_all_queues_itself(monkeypatch, caplog, has_handles):
    """An old kernel, or a seccomp filter."""

    def forbidden(_pid: int) -> int:
        raise PermissionError(errno.EPERM, 'no handles here')

    if not has_handles:
        monkeypatch.setattr(os, 'pidfd_open', forbidden)
    monkeypatch.setattr(RQWorker, 'work', lambda *_args, **_options: True)
    worker = get_worker('high', 'default', 'low')
    assert worker.work()
    assert [one.name for one in worker._ordered_queues] == ['high', 'default', *([] if has_handles else ['low'])]
    assert worker.queue_names() == ['high', 'default', *([] if has_handles else ['low'])]
    assert caplog.text.count('no handles here') == (not has_handles)


class Told(Sidecar):
    """A sidecar without a process, which notes what it is told."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.was_ended = False

    def keep(self) -> None:
        pass

    def end(self) -> None:
        self.was_ended = True


@pytest.mark.parametrize('is_away', [True, False])
def test_it_is_waited_for_although_redis_is_away(monkeypatch, is_away):
    worker = get_worker('high', 'default', 'low')
    worker._sidecar = Told()
    worker.register_birth()
    if is_away:
        monkeypatch.setattr(RQWorker, 'register_death', lost)
    with pytest.raises(RedisError) if is_away else nullcontext():
        worker.teardown()
    assert worker._sidecar.was_ended


def lost(*_of_what: object) -> None:
    raise RedisError('away')


@pytest.mark.parametrize('fails', [True, False])
def test_one_that_fails_at_its_start_is_not_counted(monkeypatch, fails):
    """Pages and checks would say that a worker serves the queue."""

    def make_ready(_worker: object) -> None:
        if fails:
            raise OperationalError('PostgreSQL is away')

    monkeypatch.setattr(WebhooksWorker, '_make_ready', make_ready)
    before = queue.count_workers()
    worker = get_worker('low')
    with pytest.raises(OperationalError) if fails else nullcontext():
        worker.bootstrap()
    assert queue.count_workers() == before + (not fails)
    worker.unsubscribe()
    worker.register_death()
