"""The standby: the process that waits for jobs of ours."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from core.models import ConfigRevision
from dcim.models import Device, Site
from django.db import connection
from ipam.models import IPAddress
from rq import Worker as RQWorker
from rq.registry import FailedJobRegistry
from rq.timeouts import HorseMonitorTimeoutException
from support.builders import device, site, subscribe
from support.engine import deliveries

from devstack.netbox import Worker
from devstack.process import descendants, wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import standby
from webhooks.engine.standby import Standby
from webhooks.models import Webhook
from webhooks.outbox import queue
from webhooks.worker import WebhooksWorker

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
PATIENCE = 60
OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""

NEWEST_IS_IDLE = """
    SELECT EXISTS (SELECT 1 FROM (
        SELECT state, state_change FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        ORDER BY backend_start DESC LIMIT 1
    ) newest WHERE state = 'idle' AND state_change < now() - interval '1 second')"""


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, Device)


@pytest.fixture
def worker(webhook: Webhook, rqworker) -> Worker:
    """A worker that has done a job, and waits for the next one."""
    worker = rqworker('low')
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)
    assert wait_until(lambda: is_idle(worker), timeout=PATIENCE)
    return worker


def is_delivered(count: int):
    return lambda: len(deliveries(StatusChoices.DELIVERED)) == count


def is_idle(worker: Worker) -> bool:
    """Whether it waits for a job, and has no process beside it but RQ's scheduler and the standby."""
    (known,) = RQWorker.all(queue=queue.get())
    return known.get_state() == 'idle' and len(children(worker)) == 2


def children(worker: Worker) -> set[int]:
    return {process.pid for process in descendants(worker.pid) if is_running(process.pid)}


def is_running(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def test_it_does_one_job_after_the_other(worker, receiver):
    before = children(worker)
    for count in (2, 3):
        receiver.answers(HOOK, Answer(delay=1))
        site()
        receiver.wait_for(count, timeout=PATIENCE)
        assert children(worker) <= before
        assert wait_until(is_delivered(count), timeout=PATIENCE)
        assert wait_until(lambda: is_idle(worker), timeout=PATIENCE)
    assert children(worker) == before


def test_after_a_job_that_failed_there_is_another(worker):
    before = children(worker)
    queue.get().enqueue_call('webhooks.worker.redeliver', ('no delivery has it',))
    assert wait_until(lambda: is_idle(worker) and children(worker) != before, timeout=PATIENCE)
    site()
    assert wait_until(is_delivered(2), timeout=PATIENCE)


def test_where_it_dies_in_a_job_the_job_has_failed_and_the_next_is_done(worker, receiver):
    receiver.answers(HOOK, Answer(manner=Manner.HANG), 200)
    site()
    receiver.wait_for(2, timeout=PATIENCE)
    for process in descendants(worker.pid):
        process.kill()
    failed = FailedJobRegistry(queue=queue.get())
    assert wait_until(lambda: failed.count == 1, timeout=PATIENCE)
    site()
    assert wait_until(is_delivered(2), timeout=PATIENCE)


def test_where_it_was_killed_the_job_is_done_all_the_same(worker):
    for process in descendants(worker.pid):
        process.kill()
    site()
    assert wait_until(is_delivered(2), timeout=PATIENCE)


def test_where_its_connection_was_cut_the_job_is_done_all_the_same(worker):
    with connection.cursor() as cursor:
        cursor.execute(OTHERS)
    site()
    assert wait_until(is_delivered(2), timeout=PATIENCE)


def test_it_ends_with_its_worker(worker):
    left = children(worker)
    worker.kill()
    # RQ's scheduler looks after itself.
    assert wait_until(lambda: sum(map(is_running, left)) <= 1, timeout=PATIENCE)


def test_a_worker_of_other_queues_has_none_and_no_timer(webhook, rqworker):
    others, ours = rqworker('high'), rqworker('low')
    known = RQWorker.all(queue.get().connection)
    assert wait_until(lambda: {one.get_state() for one in known} == {'idle'}, timeout=PATIENCE)
    assert wait_until(lambda: len(children(ours)) == 2, timeout=PATIENCE)
    # RQ's scheduler is a process of its own.
    assert len(children(others)) == 1
    assert count_threads(others) == count_threads(ours) - 1


def count_threads(worker: Worker) -> int:
    return len(list(Path(f'/proc/{worker.pid}/task').iterdir()))


@pytest.fixture
def dual_stack() -> Device:
    """A device whose payload shows a setting: which of its two addresses is the primary one."""
    place = device()
    interface = place.interfaces.create(name='eth0', type='virtual')
    place.primary_ip4 = IPAddress.objects.create(address='192.0.2.1/24', assigned_object=interface)
    place.primary_ip6 = IPAddress.objects.create(address='2001:db8::1/64', assigned_object=interface)
    place.save()
    return place


def has_rehearsed() -> bool:
    """Whether the newest backend, the standby's, has had nothing to do for a while."""
    with connection.cursor() as cursor:
        cursor.execute(NEWEST_IS_IDLE)
        return cursor.fetchone()[0]


# The device is there first: the standby renders it when it rehearses.
def test_it_sees_the_configuration_as_it_is_now(dual_stack, worker, receiver):
    assert wait_until(has_rehearsed, timeout=PATIENCE)
    ConfigRevision.objects.create(active=True, data={'PREFER_IPV4': True}).activate()
    dual_stack.save()
    last = receiver.wait_for(2, timeout=PATIENCE)[-1].json()
    assert last['data']['primary_ip']['address'] == '192.0.2.1/24'


Behaviour = Callable[[socket.socket], None]
# The test's process has threads; what is forked here needs nothing of them.
forks = pytest.mark.filterwarnings('ignore:.*use of fork')


@forks
class TestAlarms:
    """RQ's alarm strikes while the worker waits, at any line: what it was told then is not lost."""

    @pytest.fixture
    def stand_by(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Behaviour], Standby]]:
        made: list[Standby] = []

        def fork(behave: Behaviour) -> Standby:
            """Return one that does not work but behaves so."""

            def serve(worker: object, channel: socket.socket, parent: int) -> NoReturn:
                try:
                    behave(channel)
                finally:
                    os._exit(7)

            monkeypatch.setattr(standby, '_serve', serve)
            made.append(Standby(None))
            made[-1]._channel.settimeout(PATIENCE)
            return made[-1]

        yield fork
        for one in made:
            one._channel.close()

    def test_that_a_job_is_done_can_be_asked_twice(self, stand_by):
        def do_two(channel: socket.socket) -> None:
            for _ in range(2):
                channel.recv(1000)
                channel.sendall(standby.GOES_ON)
            channel.recv(1000)

        waiting = stand_by(do_two)
        for _ in range(2):
            assert waiting.hand_over(ASSIGNMENT, ASSIGNMENT, ASSIGNMENT)
            assert [waiting.wait(), waiting.wait()] == [(waiting.pid, os.EX_OK, None)] * 2

    @pytest.mark.parametrize(('last_words', 'status'), [(standby.ENDS, os.EX_OK), (b'', 7 << 8)])
    def test_that_it_ended_can_be_asked_twice(self, stand_by, last_words, status):
        ended = stand_by(lambda channel: channel.sendall(last_words))
        first, second = ended.wait(), ended.wait()
        assert first[:2] == second[:2] == (ended.pid, status)
        assert not ended.is_there
        assert not ended.hand_over(ASSIGNMENT, ASSIGNMENT, ASSIGNMENT)

    def test_an_alarm_just_as_it_ends_loses_nothing(self, stand_by, monkeypatch):
        """Between the end of the process and the line that notes it."""
        wait4 = os.wait4

        def struck(*args: int) -> Any:
            result = wait4(*args)
            signal.raise_signal(signal.SIGALRM)
            return result

        monkeypatch.setattr(standby.os, 'wait4', struck)
        previous = signal.signal(signal.SIGALRM, strike)
        try:
            ended = stand_by(lambda channel: None)
            assert ended.wait()[:2] == (ended.pid, 7 << 8)
        finally:
            signal.signal(signal.SIGALRM, previous)


ASSIGNMENT = SimpleNamespace(id='1', name='low')


def strike(*args: object) -> NoReturn:
    raise HorseMonitorTimeoutException


@forks
def test_what_goes_wrong_before_a_job_is_logged(monkeypatch, capfd):
    """RQ knows nothing but that the process ended."""

    def fail(*args: object) -> None:
        raise RuntimeError('no such execution')

    monkeypatch.setattr(standby, '_refresh', fail)
    monkeypatch.setattr(standby.logger, 'exception', lambda *args: os.write(2, f'{args} {sys.exc_info()}'.encode()))
    Standby(SimpleNamespace(setup_work_horse_signals=lambda: None)).wait()
    assert 'RuntimeError' in capfd.readouterr().err


def test_where_no_process_is_to_be_had_the_worker_goes_on(monkeypatch, caplog):
    def fail() -> int:
        raise BlockingIOError('Resource temporarily unavailable')

    monkeypatch.setattr(standby.os, 'fork', fail)
    worker = WebhooksWorker([queue.get()], connection=queue.get().connection)
    worker._stand_by()
    assert worker._standby is None
    assert 'Resource temporarily unavailable' in caplog.text
