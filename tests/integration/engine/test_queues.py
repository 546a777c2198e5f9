"""NetBox's jobs and ours do not wait for each other."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from core.models import ConfigRevision
from dcim.models import Device, Site
from django.db import transaction
from django.utils import timezone
from django_rq import get_queue
from ipam.models import IPAddress
from rq import Worker as RQWorker
from rq.job import Job, JobStatus
from support.builders import device, site, subscribe
from support.engine import deliveries, in_hand

from devstack.netbox import Worker
from devstack.process import ProcessId, descendants, wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.process import inline, supervisor
from webhooks.models import Event, Webhook
from webhooks.outbox import redis_queue, wakeup

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
PATIENCE = 60
# Seconds: longer than any test waits.
LONG = 600


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def is_delivered(count: int) -> Callable[[], bool]:
    return lambda: len(deliveries(StatusChoices.DELIVERED)) == count


def dispatchers() -> list[RQWorker]:
    return [one for one in RQWorker.all(queue=get_queue('low')) if one.pid]


def workers_of(name: str) -> list[RQWorker]:
    """NetBox's own may start a moment later than ours."""
    queue = get_queue(name)
    assert wait_until(lambda: RQWorker.count(queue=queue), timeout=PATIENCE)
    return RQWorker.all(queue=queue)


def process_of(worker: Worker, pid: int) -> ProcessId:
    return next(process for process in descendants(worker.pid) if process.pid == pid)


def end(worker: Worker) -> None:
    jobs = descendants(worker.pid)
    worker.kill()
    for job in jobs:
        job.kill()


def begin_a_long_job() -> Job:
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
    worker = rqworker()
    site()
    receiver.wait_for(1, timeout=PATIENCE)
    job = get_queue('default').enqueue_call('time.sleep', (0,))
    assert wait_until(lambda: job.get_status() == JobStatus.FINISHED, timeout=PATIENCE)
    assert len(in_hand()) == 1
    end(worker)


def test_it_uses_no_connection_of_its_parents_pool(webhook, rqworker, make_netbox):
    rqworker(netbox=make_netbox("DATABASES['default'] |= {'CONN_MAX_AGE': 0, 'OPTIONS': {'pool': True}}"))
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)


def test_each_queue_has_one_worker(webhook, rqworker):
    worker = rqworker()
    pids = {name: [one.pid for one in workers_of(name)] for name in ('high', 'default', 'low')}
    assert pids['high'] == pids['default']
    assert len(pids['high']) == len(pids['low']) == redis_queue.count_workers() == 1
    assert pids['low'] != pids['high']
    assert {*pids['low'], *pids['high']} <= {process.pid for process in descendants(worker.pid)}


@pytest.mark.parametrize('busy', [False, True])
def test_one_that_was_killed_is_replaced(webhook, receiver, rqworker, busy):
    worker = rqworker()
    (first,) = dispatchers()
    if busy:
        begin_a_long_job()
    process_of(worker, first.pid).kill()
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)
    assert worker.child.running
    end(worker)


def test_netboxs_own_that_was_killed_is_replaced(webhook, rqworker):
    worker = rqworker()
    (first,) = workers_of('default')
    for process in (process_of(worker, first.pid), *descendants(first.pid)):  # RQ's scheduler outlives it
        process.kill()
    # RQ keeps the dead one for minutes.
    assert wait_until(lambda: {first.name} < {one.name for one in RQWorker.all(queue=get_queue('default'))}, PATIENCE)
    assert worker.child.running
    end(worker)


def test_a_sender_that_hangs_stops_no_dispatcher():
    listening, wake = os.pipe2(os.O_NONBLOCK)
    for _ in range(2**17):
        supervisor._poke(wake)
    assert 0 < len(os.read(listening, 2**17)) < 2**17
    os.close(listening)
    os.close(wake)


def test_it_ends_with_a_worker_that_is_killed(webhook, rqworker):
    worker = rqworker()
    process = process_of(worker, dispatchers()[0].pid)
    others = descendants(worker.pid)
    worker.kill()
    assert wait_until(lambda: not process.is_alive, timeout=PATIENCE)
    for other in others:
        other.kill()


def test_a_worker_that_is_stopped_waits_for_open_requests(webhook, receiver, rqworker):
    receiver.answers(HOOK, Answer(delay=3))
    worker = rqworker()
    site()
    receiver.wait_for(1, timeout=PATIENCE)
    os.kill(worker.pid, signal.SIGTERM)
    assert wait_until(lambda: not worker.child.running, timeout=PATIENCE)
    assert is_delivered(1)()
    assert not dispatchers()


def test_a_worker_that_is_stopped_twice_ends_at_once(webhook, receiver, rqworker):
    Webhook.objects.update(timeout=200)
    receiver.answers(HOOK, Answer(manner=Manner.HANG))
    worker = rqworker()
    process = process_of(worker, dispatchers()[0].pid)
    site()
    receiver.wait_for(1, timeout=PATIENCE)

    def is_gone() -> bool:
        """RQ ignores a second signal within a second."""
        if worker.child.running:
            os.kill(worker.pid, signal.SIGTERM)
        return not worker.child.running and not process.is_alive

    assert wait_until(is_gone, timeout=PATIENCE, interval=1.1)


def test_there_is_one_scheduler(webhook, rqworker):
    """The first scheduler has its queue's lock, so a second could not schedule its jobs."""
    rqworker()
    locks = [f'rq:scheduler-lock:{name}' for name in ('high', 'default')]
    connection = redis_queue.get().connection
    assert wait_until(lambda: None not in {connection.get(lock) for lock in locks}, timeout=PATIENCE)
    assert len({connection.get(lock) for lock in locks}) == 1


def test_a_worker_that_ends_by_itself_has_none(webhook, receiver, netbox):
    site()
    assert netbox.start_worker('--burst').child.popen.wait(PATIENCE) == 0
    assert is_delivered(1)()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize('is_told', [False, True], ids=['all is lost', 'the job is lost'])
def test_a_worker_that_ends_by_itself_sends_what_no_job_mentions(webhook, receiver, netbox, is_told):
    site()
    redis_queue.get().empty()
    if not is_told:
        wakeup.accept()
    assert netbox.start_worker('--burst').child.popen.wait(PATIENCE) == 0
    assert is_delivered(1)()


def test_a_worker_that_ends_by_itself_does_not_wait_for_the_rest_of_a_transaction(receiver):
    subscribe(receiver.url(), Site, change_set=True)
    with transaction.atomic():
        site()
        put_off = site()
    Event.objects.filter(object_id=put_off.pk).update(retry_at=timezone.now() + timedelta(hours=1))
    redis_queue.get().empty()
    wakeup.accept()
    inline.run(seconds=PATIENCE)
    assert not redis_queue.get().count, 'its time ran out: it left the rest to another job'
    assert deliveries(StatusChoices.PENDING)


@pytest.fixture
def dual_stack() -> Device:
    """A setting decides which of its two addresses is primary."""
    place = device()
    port = place.interfaces.create(name='eth0', type='virtual')
    place.primary_ip4 = IPAddress.objects.create(address='192.0.2.1/24', assigned_object=port)
    place.primary_ip6 = IPAddress.objects.create(address='2001:db8::1/64', assigned_object=port)
    place.save()
    return place


@pytest.fixture
def prefer_ipv4(committed: None) -> Iterator[Callable[[bool], None]]:
    """NetBox keeps its configuration in Redis, beyond the test."""

    def prefer(is_wanted: bool) -> None:
        ConfigRevision.objects.create(data={'PREFER_IPV4': is_wanted}).activate()

    prefer(False)
    yield prefer
    prefer(False)


def test_a_worker_sees_the_configuration_as_it_is_now(dual_stack, prefer_ipv4, receiver, rqworker):
    subscribe(receiver.url(HOOK), Device)
    rqworker('low')
    dual_stack.save()
    receiver.wait_for(1, timeout=PATIENCE)
    prefer_ipv4(True)
    dual_stack.save()
    first, second = [request.json()['data']['primary_ip'] for request in receiver.wait_for(2, timeout=PATIENCE)]
    assert (first['address'], second['address']) == ('2001:db8::1/64', '192.0.2.1/24')
