"""support/chaos/audit.py lists the promises that hold."""

import ctypes
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rq
from dcim.models import Site
from django_rq import get_connection, get_worker
from support.builders import subscribe
from support.chaos.audit import Ledger, check_order, is_whole
from support.chaos.victims import strike_before
from support.others_code import proxy_router

from devstack.ports import LOOPBACK
from devstack.process import descendants, wait_until
from devstack.receiver import Answer, Receiver
from webhooks.engine.deliver import loop
from webhooks.engine.process import sender
from webhooks.engine.registry import DISPATCH, SEND
from webhooks.models import Health, Webhook, Worker
from webhooks.worker import WebhooksWorker

pytestmark = pytest.mark.usefixtures('committed')

# Seconds until a frozen worker counts as dead, and another has sent its deliveries.
PATIENCE = 60
ROLES = (DISPATCH, SEND)


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site, timeout=5)


def pid_of(role: str, worker: int) -> int:
    """The process may serve other queues as well."""

    def found() -> list[int]:
        own = sorted(one.pid for one in descendants(worker) if one.parent == worker)
        served = {one.pid: one.queue_names() for one in rq.Worker.all(get_connection()) if one.pid in own}
        if len(served) < 2 or not Worker.objects.filter(role=role).exists():
            return []
        if role == DISPATCH:
            return [pid for pid, names in served.items() if names == ['low']]
        return [pid for pid in own if pid not in served]

    assert wait_until(found, PATIENCE)
    return found()[0]


def is_alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def change_all(ledger: Ledger, times: int = 3) -> None:
    pks = [ledger.create() for _ in range(10)]
    for _ in range(times):
        for pk in pks:
            ledger.change(pk)


def all_arrived(ledger: Ledger, receiver: Receiver) -> Callable[[], bool]:
    def look() -> bool:
        got = {int(request.json()['data']['description']) for request in receiver.matching(is_whole)}
        return {number for _pk, number in ledger.committed} <= got

    return look


def assert_whole(ledger: Ledger, receiver: Receiver) -> None:
    assert wait_until(all_arrived(ledger, receiver), PATIENCE), 'lost'
    got = {int(request.json()['data']['description']) for request in receiver.matching(is_whole)}
    assert not got - {number for _pk, number in ledger.committed}, 'made up'
    check_order(receiver.matching(is_whole))


@pytest.mark.parametrize('role', ROLES)
def test_a_process_that_is_killed_is_started_again_and_nothing_is_lost(webhook, receiver, rqworker, role):
    receiver.answers('/hook', *[Answer(200, delay=0.02)] * 2)
    worker = rqworker('high', 'default', 'low')
    ledger = Ledger()
    for _ in range(3):
        change_all(ledger)
        os.kill(pid_of(role, worker.pid), signal.SIGKILL)
    assert_whole(ledger, receiver)


def test_where_rq_gives_up_on_other_queues_nobody_notices(webhook, receiver, rqworker, stack):
    worker = rqworker('high', 'default', 'low')
    dispatcher = pid_of(DISPATCH, worker.pid)
    family = {one.pid for one in descendants(worker.pid)}
    with stack.tasks.client() as client:
        client.set('rq:queue:high', 'no list, which RQ does not expect')
        assert wait_until(lambda: not all(map(is_alive, family)), PATIENCE)
        client.delete('rq:queue:high')
    ledger = Ledger()
    change_all(ledger)
    assert_whole(ledger, receiver)
    assert is_alive(dispatcher)


def test_one_process_evaluates_all_regular_expressions_of_conditions(receiver, rqworker):
    subscribe(receiver.url('/hook'), Site, conditions={'attr': 'slug', 'op': 'regex', 'value': '^[a-z]'})
    worker = rqworker('high', 'default', 'low')
    ledger = Ledger()
    change_all(ledger)
    assert_whole(ledger, receiver)
    assert len(descendants(pid_of(DISPATCH, worker.pid))) == 1


def test_where_the_supervisor_is_killed_all_of_its_processes_end_and_another_worker_goes_on(
    webhook, receiver, rqworker
):
    first, second = rqworker('low'), rqworker('low')
    ledger = Ledger()
    change_all(ledger)
    family = [one.pid for one in descendants(first.pid)]
    first.kill()
    change_all(ledger)
    assert wait_until(lambda: not any(is_alive(pid) for pid in family), PATIENCE)
    assert_whole(ledger, receiver)
    assert descendants(second.pid)


def test_all_that_a_frozen_worker_held_arrives_by_another_one(webhook, receiver, rqworker):
    receiver.answers('/hook', Answer(200, delay=0.3))
    workers = [rqworker('low'), rqworker('low')]
    ledger = Ledger()
    Webhook.objects.update(paused=True)
    change_all(ledger, times=10)
    Webhook.objects.update(paused=False)
    receiver.wait_for(20)
    assert not all_arrived(ledger, receiver)()
    owner = Health.objects.get(webhook=webhook).owner.name
    (first,) = (one.pid for one in workers if f'.{one.pid}.' in owner)
    family = [first, *(one.pid for one in descendants(first))]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    try:
        assert wait_until(all_arrived(ledger, receiver), PATIENCE), 'lost'
        print(f'all arrived {time.monotonic() - frozen_at:.1f} s after it was frozen')
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)
    assert_whole(ledger, receiver)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_a_sender_that_hangs_is_killed_and_another_one_goes_on(
    webhook, receiver, children, monkeypatch, settings, tmp_path
):
    monkeypatch.setattr(sender, 'HANG_SECONDS', 5.0)
    note = tmp_path / 'pid'

    def hang(_webhook: Webhook) -> None:
        if not note.exists():
            note.write_text(str(os.getpid()))
            ctypes.PyDLL(None).sleep(1000)  # nothing else in this process goes on

    settings.PROXY_ROUTERS = [proxy_router(hang)]
    children.fork(get_worker('high', 'default', 'low', worker_class=WebhooksWorker).work)
    ledger = Ledger()
    change_all(ledger)
    assert_whole(ledger, receiver)
    assert not is_alive(int(note.read_text()))


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_a_sender_that_fails_says_so_and_another_one_goes_on(webhook, receiver, children, tmp_path):
    note, log = tmp_path / 'pid', tmp_path / 'log'

    def fail() -> None:
        if not note.exists():
            note.write_text(str(os.getpid()))
            raise RuntimeError('a mistake of ours')

    def work_and_fail() -> None:
        logging.getLogger('webhooks').addHandler(logging.FileHandler(log))
        strike_before('webhooks.engine.deliver.loop.Sender.turn', 1, fail)
        get_worker('high', 'default', 'low', worker_class=WebhooksWorker).work()

    children.fork(work_and_fail)
    ledger = Ledger()
    change_all(ledger)
    assert_whole(ledger, receiver)
    assert not is_alive(int(note.read_text()))
    assert 'sender=failed' in log.read_text() and 'a mistake of ours' in log.read_text()


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
@pytest.mark.parametrize('is_to_stop', [False, True])
def test_a_sender_whose_thread_hangs_is_killed_and_another_one_goes_on(
    webhook, receiver, children, monkeypatch, settings, tmp_path, is_to_stop
):
    """Requests with a template are built in threads."""
    monkeypatch.setattr(sender, 'HANG_SECONDS', 5.0)
    webhook.additional_headers = 'X-Name: {{ data.name }}'
    webhook.save()
    note = tmp_path / 'pid'

    def hang(_webhook: Webhook) -> None:
        if not note.exists():
            note.write_text(str(os.getpid()))
            time.sleep(1000)  # all else in this process goes on

    settings.PROXY_ROUTERS = [proxy_router(hang)]
    work = get_worker('high', 'default', 'low', worker_class=WebhooksWorker).work
    worker = children.fork(work)
    ledger = Ledger()
    change_all(ledger)
    assert wait_until(note.exists, PATIENCE)
    if is_to_stop:
        os.kill(worker, signal.SIGTERM)
        assert wait_until(lambda: not children.is_running(worker), PATIENCE)
        children.fork(work)
    assert_whole(ledger, receiver)
    assert not is_alive(int(note.read_text()))


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_a_sender_with_an_error_ends_although_a_request_hangs(webhook, receiver, children, monkeypatch, tmp_path):
    note, turn = tmp_path / 'pid', loop.Sender.turn

    def fail_once(its: loop.Sender, *args: float, **kwargs: bool) -> bool:
        if not note.exists() and hanging.pk in its.lanes.owned and its.lanes.owned[hanging.pk].in_hand:
            note.write_text(str(os.getpid()))
            raise RuntimeError('nobody expected it')
        return turn(its, *args, **kwargs)

    monkeypatch.setattr(loop.Sender, 'turn', fail_once)
    monkeypatch.setattr(sender, 'HANG_SECONDS', 600.0)
    with socket.create_server((LOOPBACK, 0)) as silent:
        hanging = subscribe(f'http://{LOOPBACK}:{silent.getsockname()[1]}/', Site, timeout=200)
        children.fork(get_worker('high', 'default', 'low', worker_class=WebhooksWorker).work)
        ledger = Ledger()
        change_all(ledger)
        assert wait_until(note.exists, PATIENCE)
        change_all(ledger)
        assert_whole(ledger, receiver)
    assert not is_alive(int(note.read_text()))


def test_a_worker_that_is_stopped_leaves_nothing_in_hand(webhook, receiver, rqworker):
    worker = rqworker('high', 'default', 'low')
    ledger = Ledger()
    change_all(ledger)
    receiver.wait_for(5)
    os.kill(worker.pid, signal.SIGTERM)
    assert wait_until(lambda: not worker.child.running, PATIENCE)
    assert not Worker.objects.exists()
    rqworker('low')
    assert_whole(ledger, receiver)
