from collections.abc import Callable

import pytest
from dcim.models import Site
from django_rq import get_queue, get_worker
from rq import Worker as RQWorker
from rq.exceptions import StopRequested
from rq.registry import FinishedJobRegistry
from support.builders import site, subscribe
from support.engine import arrivals, deliveries, die, disorder, health, in_hand, pass_retry_waits
from support.settings import change_settings

from devstack.netbox import Worker
from devstack.process import descendants, wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks import conf
from webhooks.choices import StatusChoices
from webhooks.engine.process import child
from webhooks.engine.process.dispatcher import OthersWorker, QueueWorker
from webhooks.models import Attempt, Webhook
from webhooks.outbox import redis_queue, wakeup

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
PATIENCE = 60
HANG = Answer(manner=Manner.HANG)


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, timeout=200)


def is_delivered(count: int) -> Callable[[], bool]:
    return lambda: len(deliveries(DELIVERED)) == count


def kill_with_its_job(worker: Worker) -> None:
    """As when a host dies."""
    jobs = descendants(worker.pid)
    worker.kill()
    for job in jobs:
        job.kill()


def results() -> list[str]:
    queue = get_queue('low')
    found = [queue.fetch_job(job_id) for job_id in FinishedJobRegistry(queue=queue).get_job_ids()]
    return [job.return_value() for job in found if job]


def test_a_change_is_delivered_and_the_job_says_so(webhook, receiver, rqworker):
    rqworker()

    def says_so() -> bool:
        site()  # a look between two jobs may process it
        return any(one.startswith('events processed: ') for one in results())

    assert wait_until(says_so, timeout=PATIENCE, interval=0.5)
    receiver.wait_for(1, timeout=PATIENCE)


def test_a_job_sends_nothing_while_webhooks_are_off(webhook, receiver, drain, monkeypatch):
    site()
    with monkeypatch.context() as off:
        change_settings(off, enabled=False)
        redis_queue.get().enqueue(wakeup.JOB)
        drain()
        assert not receiver.requests
    redis_queue.get().enqueue(wakeup.JOB)
    drain()
    receiver.wait_for(1)


class TestKilled:
    @pytest.fixture
    def sending(self, webhook, receiver, rqworker) -> Worker:
        receiver.answers(HOOK, HANG, 200)
        worker = rqworker('low')
        place = site()
        place.save()
        receiver.wait_for(1, timeout=PATIENCE)
        assert wait_until(lambda: len(in_hand()) == 1, timeout=PATIENCE)
        return worker

    def test_a_delivery_that_a_killed_worker_was_sending_is_sent_by_the_next_worker(self, sending, receiver, rqworker):
        kill_with_its_job(sending)
        die()
        pass_retry_waits()
        rqworker()
        assert wait_until(is_delivered(2), timeout=PATIENCE)
        first, second, _third = receiver.requests
        assert first.header('webhook-id') == second.header('webhook-id')
        assert disorder(arrivals(receiver)) == []
        # The delivery in hand at the kill has an extra attempt.
        assert [one.attempt_count for one in deliveries()] == [2, 1]

    def test_a_delivery_that_a_killed_process_was_sending_is_sent_by_the_next_process_at_once(self, sending):
        """The worker knows that its process is dead, so nobody waits for a timeout."""
        for process in descendants(sending.pid):
            process.kill()
        assert wait_until(is_delivered(2), timeout=PATIENCE)

    def test_while_its_request_may_be_under_way_nobody_else_sends_it(self, sending, receiver, rqworker, webhook):
        """The next worker does other work."""
        kill_with_its_job(sending)
        rqworker()
        site()
        receiver.wait_for(2, timeout=PATIENCE)
        assert wait_until(is_delivered(1), timeout=PATIENCE)
        assert len(receiver.requests) == 2


def test_a_job_of_others_that_cannot_be_read_does_not_end_it(webhook, receiver, rqworker):
    """As if a script or an argument's class were removed."""
    for name in ('default', conf.get().queue):
        job = get_queue(name).enqueue('time.time')
        job.connection.hset(job.key, 'data', b'no pickle')
    rqworker()
    site()
    assert wait_until(is_delivered(1), timeout=PATIENCE)


class TestRedis:
    def test_without_its_data_what_is_due_is_found(self, webhook, receiver, rqworker, stack):
        receiver.answers(HOOK, 500, 200)
        rqworker()
        site()
        assert wait_until(lambda: any(one.attempt_count for one in deliveries(PENDING)), timeout=PATIENCE)
        with stack.tasks.client() as client:
            client.flushall()
        pass_retry_waits()
        assert wait_until(is_delivered(1), timeout=PATIENCE)

    def test_changes_while_redis_is_down_are_delivered(self, webhook, receiver, rqworker, api_client, tasks_redis):
        """RQ's worker may end with its Redis; service managers start another."""
        tasks_redis.stop()
        for name in ('a', 'b', 'c'):
            assert api_client.post('/api/dcim/sites/', {'name': name, 'slug': name}).status_code == 201
        tasks_redis.start()
        rqworker()
        assert wait_until(is_delivered(3), timeout=PATIENCE)
        assert len(receiver.requests) == 3


def test_workers_beside_each_other_send_everything_once_and_in_order(webhook, receiver, rqworker):
    """Events, deliveries, requests, attempts and counters agree."""
    workers, objects, rounds = 3, 10, 5
    total = objects * (rounds + 1)
    for _ in range(workers):
        rqworker()
    assert len(RQWorker.all(queue=get_queue(conf.get().queue))) == workers
    receiver.answers(HOOK, Answer(delay=0.01))
    places = [site() for _ in range(objects)]
    for _ in range(rounds):
        for place in places:
            place.save()
    assert wait_until(is_delivered(total), timeout=2 * PATIENCE)
    assert len(receiver.requests) == len({request.header('webhook-id') for request in receiver.requests}) == total
    assert disorder(arrivals(receiver)) == []
    assert Attempt.objects.count() == total
    assert wait_until(lambda: health(webhook).delivered == total, timeout=PATIENCE)


@pytest.mark.parametrize('worker_class', [QueueWorker, OthersWorker])
def test_a_signal_right_after_a_job_ends_the_worker(monkeypatch, worker_class):
    worker = get_worker('high', worker_class=worker_class)
    worker.register_birth()
    monkeypatch.setattr(child, '_is_stopping', False)  # reset afterwards
    try:
        worker.handle_warm_shutdown_request()
        with pytest.raises(StopRequested):
            worker.dequeue_job_and_maintain_ttl(1, max_idle_time=1)
    finally:
        worker.register_death()
