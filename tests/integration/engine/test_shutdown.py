"""Service managers send SIGTERM, and later SIGKILL."""

import os
import signal
import time
from contextlib import suppress

import pytest
from dcim.models import Site
from django.db import transaction
from rq.registry import FailedJobRegistry
from support.builders import site, subscribe
from support.engine import deliveries, die, dispatch_all, in_hand, pass_retry_waits, sender, take_turns

from devstack.netbox import Worker
from devstack.process import descendants, wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.engine.process import supervisor
from webhooks.engine.registry import SEND
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.models import Worker as WorkerRow
from webhooks.outbox import redis_queue
from webhooks.templating import renderer

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
PATIENCE = 60
BACKLOG = 20
# Seconds: `stop` lets the answer come before.
DELAY, TIMEOUT = 150, 200


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    receiver.answers(HOOK, Answer(delay=DELAY), 200)
    return subscribe(receiver.url(HOOK), Site, concurrency=1, timeout=TIMEOUT)


def make_backlog() -> None:
    with transaction.atomic():
        for _number in range(BACKLOG):
            site()


def stop(worker: Worker, receiver: Receiver, *, each: bool = False) -> None:
    """Answers come once the sender knows that it has to stop: until then it would begin another request."""
    family = descendants(worker.pid)
    for pid in (*(one.pid for one in family if each), worker.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: not WorkerRow.objects.filter(role=SEND).exists(), timeout=PATIENCE)
    receiver.closing.set()
    assert wait_until(lambda: not worker.child.running, timeout=PATIENCE)


def failed_jobs() -> int:
    return FailedJobRegistry(queue=redis_queue.get()).count


def test_with_a_backlog_it_finishes_what_is_under_way_and_begins_nothing_more(webhook, receiver, rqworker):
    worker = rqworker()
    make_backlog()
    receiver.wait_for(1, timeout=PATIENCE)
    stop(worker, receiver)
    assert worker.child.log_tail().rstrip().endswith('has ended')

    assert len(receiver.requests) == 1
    assert (len(deliveries(DELIVERED)), len(deliveries(PENDING)), len(deliveries())) == (1, BACKLOG - 1, BACKLOG)
    assert [attempt.response_status for attempt in Attempt.objects.all()] == [200]
    assert failed_jobs() == 0


def test_another_worker_goes_on_with_what_it_left(webhook, receiver, rqworker):
    worker = rqworker()
    make_backlog()
    receiver.wait_for(1, timeout=PATIENCE)
    stop(worker, receiver)
    assert len(deliveries(PENDING)) == BACKLOG - 1

    rqworker()
    assert wait_until(lambda: len(deliveries(DELIVERED)) == BACKLOG, timeout=PATIENCE)
    assert len(receiver.requests) == BACKLOG


def test_where_all_of_its_processes_are_asked_it_is_the_same(webhook, receiver, rqworker):
    """As systemd does without KillMode=mixed."""
    worker = rqworker()
    make_backlog()
    receiver.wait_for(1, timeout=PATIENCE)
    stop(worker, receiver, each=True)

    assert len(receiver.requests) == 1
    assert (len(deliveries(DELIVERED)), len(deliveries(PENDING))) == (1, BACKLOG - 1)
    assert failed_jobs() == 0


def test_a_worker_that_stops_finishes_the_suspect_under_way_and_begins_no_other(webhook, receiver, rqworker):
    """A separate process sends suspects one by one."""
    receiver.answers(HOOK, Answer(delay=DELAY), 200)
    Webhook.objects.update(paused=True)
    worker = rqworker()
    make_backlog()
    assert wait_until(lambda: len(deliveries(PENDING)) == BACKLOG, timeout=PATIENCE)
    Delivery.objects.update(lapses=1, state=DeliveryState.SUSPECT)
    Webhook.objects.update(paused=False)
    receiver.wait_for(1, timeout=PATIENCE)
    stop(worker, receiver)

    assert len(receiver.requests) == 1
    assert (len(deliveries(DELIVERED)), len(deliveries(PENDING))) == (1, BACKLOG - 1)
    assert failed_jobs() == 0


def test_without_anything_to_do_it_ends_with_all_of_its_processes(receiver, rqworker):
    subscribe(receiver.url(HOOK), Site)
    worker = rqworker()
    site()
    assert wait_until(lambda: len(deliveries(DELIVERED)) == 1, timeout=PATIENCE)
    family = descendants(worker.pid)
    assert family
    stop(worker, receiver)
    assert wait_until(lambda: not any(one.is_alive for one in family), timeout=PATIENCE)
    assert 'Traceback' not in worker.child.log_tail(100)


def test_a_signal_to_all_processes_fails_no_delivery_whose_template_is_rendered(
    receiver, settings, tmp_path, monkeypatch
):
    """As supervisord sends it with `stopasgroup`, and a terminal."""
    # A busy machine may take longer to the signals than a template has.
    monkeypatch.setattr(renderer, 'TEMPLATE_SECONDS', 60)
    begun, goes_on = tmp_path / 'begun', tmp_path / 'goes on'

    def wait(value: str) -> str:
        begun.touch()
        while not goes_on.exists():
            time.sleep(0.01)
        return value

    settings.JINJA_FILTERS = {'wait': wait}
    subscribe(receiver.url(HOOK), Site, max_attempts=1, body_template='{{ data.name | wait }}')
    site()
    dispatch_all()
    before = {one.pid for one in descendants(os.getpid())}
    with sender() as (_pk, opened):
        opened.turn()
        assert wait_until(begun.exists, timeout=PATIENCE)
        for one in descendants(os.getpid()):
            if one.pid not in before:
                os.kill(one.pid, signal.SIGTERM)
        goes_on.touch()
        assert take_turns(opened, lambda: not deliveries(PENDING))
    assert [(one.status, one.error) for one in deliveries()] == [(DELIVERED, '')]


def test_a_signal_while_a_process_is_started_reaches_it(monkeypatch):
    one = supervisor.Supervisor(None, [], lambda: None)
    one._children = [supervisor.Child('sleeper', lambda name, channel: time.sleep(PATIENCE))]

    pidfd_open, once = os.pidfd_open, [one._stop]

    def hear(*process: int) -> int:
        if once:
            once.pop()()
        return pidfd_open(*process)

    monkeypatch.setattr(os, 'pidfd_open', hear)

    def has_ended() -> bool:
        one._look()
        return not one._running

    assert wait_until(has_ended, timeout=PATIENCE / 2)


def test_one_that_hangs_comes_back_where_the_period_is_too_short(receiver, rqworker):
    receiver.answers(HOOK, Answer(manner=Manner.HANG))
    subscribe(receiver.url(HOOK), Site, timeout=60)
    worker = rqworker()
    site()
    receiver.wait_for(1, timeout=PATIENCE)
    os.kill(worker.pid, signal.SIGTERM)
    family = descendants(worker.pid)
    worker.kill()
    for process in family:
        process.kill()
    assert len(in_hand()) == 1

    receiver.answers(HOOK, 200)
    die()
    pass_retry_waits()
    rqworker()
    assert wait_until(lambda: deliveries(DELIVERED), timeout=PATIENCE)
    first, second = receiver.requests
    assert first.header('webhook-id') == second.header('webhook-id')
    # The interrupted request is in the log, and spends no allowed attempt.
    assert [attempt.response_status for attempt in Attempt.objects.order_by('pk')] == [None, 200]
