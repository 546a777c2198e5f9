import json
import signal
from collections.abc import Callable

import pytest
from dcim.models import Site
from django.db import transaction
from support.builders import site, subscribe
from support.cases import named
from support.chaos.audit import Ledger, check, finish, is_anything_left
from support.chaos.victims import Children, strike_after, strike_before
from support.engine import work

from devstack.receiver import Receiver
from webhooks.engine.deliver import lane
from webhooks.models import Event, Webhook
from webhooks.outbox import redis_queue, wakeup

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

ENGINE = 'webhooks.engine'
POST = 'webhooks.transport.client.Client.send'
BEAT = f'{ENGINE}.registry.Registration.beat'
SAVE = f'{ENGINE}.deliver.record.record'

# The number is the call at which it strikes: later calls find some deliveries sent.
STAGES = {
    'before events are rendered': (strike_before, f'{ENGINE}.dispatch.render.Renderer.render', 1),
    'after events were taken, before the commit': (strike_after, f'{ENGINE}.dispatch.claim.Reading.take', 1),
    'before deliveries are made': (strike_before, f'{ENGINE}.dispatch.loop.make_deliveries', 1),
    'after deliveries were made, before the commit': (strike_after, f'{ENGINE}.dispatch.loop.make_deliveries', 1),
    'after the dispatch was committed': (strike_after, f'{ENGINE}.dispatch.loop.Dispatcher.batch', 1),
    'before lanes are taken': (strike_before, f'{ENGINE}.deliver.lanes.take', 1),
    'after lanes were taken, before the commit': (strike_after, f'{ENGINE}.deliver.lanes.take', 2),
    'after the look, before it says what is in hand': (strike_after, f'{ENGINE}.deliver.queue.read', 1),
    'after it said what is in hand, before the commit': (strike_after, BEAT, 4),
    'after that was committed': (strike_before, f'{ENGINE}.deliver.loop.Sender._begin', 1),
    'before the first request is built': (strike_before, f'{ENGINE}.deliver.build.Call.build', 1),
    'before the first POST': (strike_before, POST, 1),
    'before the fifth POST': (strike_before, POST, 5),
    'after the first POST': (strike_after, POST, 1),
    'after the fifth POST': (strike_after, POST, 5),
    'before the record': (strike_before, SAVE, 1),
    'before the third record': (strike_before, SAVE, 3),
    'after the record, before the commit': (strike_after, SAVE, 2),
    'before the next of the object may go': (strike_before, f'{ENGINE}.deliver.order.release_next', 2),
    'after the counters, before the commit': (strike_after, f'{ENGINE}.deliver.endpoint.write', 2),
    'before the status page': (strike_before, 'webhooks.services.failed_jobs.publish', 1),
}


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site)


@pytest.fixture
def ledger(webhook: Webhook) -> Ledger:
    """One change is rolled back."""
    ledger = Ledger()
    pks = [ledger.create() for _ in range(8)]
    for turn in range(3):
        for pk in pks:
            ledger.change(pk, regret=turn == 1 and pk == pks[0])
    return ledger


# In each step: dispatch, taking, sending, recording. `--long`: all stages, each alone.
ALWAYS = (
    'after deliveries were made, before the commit',
    'after lanes were taken, before the commit',
    'after it said what is in hand, before the commit',
    'after the first POST',
    'before the third record',
    'after the record, before the commit',
)


@pytest.mark.parametrize('stage', named(ALWAYS, STAGES))
def test_everything_arrives_although_a_worker_is_killed(ledger, receiver, children: Children, stage):
    how, target, call = stage

    def doomed() -> None:
        how(target, call)
        work()

    assert children.wait(children.fork(doomed)) == signal.SIGKILL
    ledger.note_interrupted()
    finish()
    check(ledger, receiver)


def test_everything_arrives_although_one_worker_after_the_other_is_killed(ledger, receiver, children: Children):
    for how, target, call in STAGES.values():

        def doomed(how: Callable = how, target: str = target, call: int = call) -> None:
            how(target, call)
            work()

        children.wait(children.fork(doomed))
        ledger.note_interrupted()
    finish()
    check(ledger, receiver)


FORM = f'{ENGINE}.deliver.change_sets._form'
SET_STAGES = {
    'before the parts are made': (strike_before, FORM, 1),
    'after the parts were made, before the commit': (strike_after, FORM, 1),
    'after the first part was sent': (strike_after, POST, 1),
    'before the second part may go': (strike_before, f'{ENGINE}.deliver.order.release_next', 2),
    'after the second record, before the commit': (strike_after, SAVE, 3),
}


ALWAYS_OF_SETS = ('after the parts were made, before the commit', 'after the first part was sent')


@pytest.mark.parametrize('stage', named(ALWAYS_OF_SETS, SET_STAGES))
def test_a_change_set_arrives_in_its_parts_although_a_worker_is_killed(receiver, children, monkeypatch, stage):
    how, target, call = stage
    monkeypatch.setattr(lane, 'PART_DELIVERIES', 3)
    subscribe(receiver.url('/hook'), Site, change_set=True)
    with transaction.atomic():
        made = [site().pk for _ in range(8)]

    def doomed() -> None:
        how(target, call)
        work()

    assert children.wait(children.fork(doomed)) == signal.SIGKILL
    finish()
    by_id = {request.header('webhook-id'): request.body for request in receiver.requests}
    assert all(request.body == by_id[request.header('webhook-id')] for request in receiver.requests)
    bodies = [json.loads(body) for body in by_id.values()]
    assert [(body['part'], body['parts']) for body in bodies] == [(1, 3), (2, 3), (3, 3)]
    assert [change['data']['id'] for body in bodies for change in body['changes']] == made


class TestSaves:
    def test_a_save_killed_after_its_commit_is_delivered(self, webhook, receiver, children: Children):
        """Nobody was told of the event: the timer finds it."""
        pk = Ledger().create()
        finish()
        receiver.clear()
        ledger = Ledger(_number=100)
        redis_queue.get().empty()
        wakeup.accept()

        def doomed() -> None:
            strike_before('webhooks.outbox.wakeup.wake')
            ledger.change(pk)

        assert children.wait(children.fork(doomed)) == signal.SIGKILL
        ledger.committed.append((pk, 101))
        assert redis_queue.get().count == 0
        assert is_anything_left()
        finish()
        check(ledger, receiver)

    def test_a_save_killed_before_its_commit_sends_nothing(self, webhook, receiver, children: Children):
        """The event is rolled back with the change."""
        pk = Ledger().create()
        finish()
        receiver.clear()
        ledger = Ledger(_number=100, rolled_back={101})

        def doomed() -> None:
            strike_after('webhooks.outbox.recording._execute')
            ledger.change(pk)

        assert children.wait(children.fork(doomed)) == signal.SIGKILL
        assert not Event.objects.filter(dispatched_at=None).exists()
        assert Site.objects.get(pk=pk).description != '101'
        finish()
        check(ledger, receiver)
