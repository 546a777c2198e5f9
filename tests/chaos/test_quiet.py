"""While changes wait for quiet, workers are killed or freeze: nothing is lost, and one request goes."""

import signal
from collections.abc import Callable

import pytest
from dcim.models import Site
from django.utils import timezone
from support.builders import site, subscribe
from support.cases import named
from support.chaos.audit import finish
from support.chaos.victims import Children, freeze, strike_after, strike_before
from support.engine import deliveries, dispatch_all, pass_alive

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.choices import OPEN_STATUSES
from webhooks.delivery_states import TIMED_STATES
from webhooks.engine.process import inline
from webhooks.models import Delivery, Event, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

ENGINE = 'webhooks.engine'
POSTPONE = f'{ENGINE}.deliver.quiet.postpone'
SETTLE = f'{ENGINE}.deliver.superseding.supersede'
# No test takes so long.
QUIET = 1000
OBJECTS = 3


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site, quiet=QUIET)


@pytest.fixture
def places(webhook: Webhook) -> list[Site]:
    return [site(description='0') for _ in range(OBJECTS)]


def change(places: list[Site], *descriptions: str) -> None:
    for description in descriptions:
        for place in places:
            place.description = description
            place.save()


def first_comes_due() -> None:
    """Later changes still wait."""
    firsts = Delivery.objects.order_by('object_id', 'sequence').distinct('object_id')
    Delivery.objects.filter(pk__in=[one.pk for one in firsts]).update(due_at=timezone.now())


def all_comes_due() -> None:
    Delivery.objects.filter(state__in=TIMED_STATES).update(due_at=timezone.now())


def told(receiver: Receiver) -> list[tuple[int, str]]:
    shown = [request.json()['data'] for request in receiver.requests]
    return sorted((data['id'], data['description']) for data in shown)


def kill(children: Children, how: Callable[[str, int], None], target: str, call: int) -> None:
    """Let a worker work until it is killed."""

    def doomed() -> None:
        how(target, call)
        inline.run()

    assert children.wait(children.fork(doomed)) == signal.SIGKILL


def recover() -> None:
    """Let others do what the killed worker had in hand, before any more time passes."""

    def is_dispatched() -> bool:
        inline.run()
        return not Event.objects.filter(dispatched_at=None).exists()

    pass_alive()
    assert wait_until(is_dispatched, timeout=60)


# In each step, one kill and one frost. `--long`: all stages.
ALWAYS = (
    'after deliveries are made, before the commit',
    'before the commit',
    'after they became one, before the commit',
)
STAGES = {
    'before deliveries are made': (strike_before, f'{ENGINE}.dispatch.loop.make_deliveries', 1),
    'after deliveries are made, before the commit': (strike_after, f'{ENGINE}.dispatch.loop.make_deliveries', 1),
    'after the dispatch': (strike_after, f'{ENGINE}.dispatch.loop.Dispatcher.batch', 1),
}


@pytest.mark.parametrize('stage', named(ALWAYS, STAGES))
def test_one_request_goes_although_a_worker_is_killed_that_dispatches_in_the_quiet_time(
    places, receiver, children: Children, stage
):
    how, target, call = stage
    dispatch_all()
    change(places, '1', '2')
    kill(children, how, target, call)
    recover()
    assert not receiver.requests
    finish()
    assert told(receiver) == [(place.pk, '2') for place in places]
    assert not deliveries(*OPEN_STATUSES)


POSTPONE_STAGES = {'before it waits on': (strike_before, POSTPONE, 1), 'before the commit': (strike_after, POSTPONE, 1)}


@pytest.mark.parametrize('stage', named(ALWAYS, POSTPONE_STAGES))
def test_one_request_goes_although_a_worker_is_killed_as_the_first_change_waits_for_the_last(
    places, receiver, children: Children, stage
):
    how, target, call = stage
    change(places, '1', '2')
    dispatch_all()
    first_comes_due()
    kill(children, how, target, call)
    recover()
    assert not receiver.requests
    finish()
    assert told(receiver) == [(place.pk, '2') for place in places]
    assert not deliveries(*OPEN_STATUSES)


LAST_STAGES = {
    'before they become one': (strike_before, SETTLE, 1),
    'after they became one, before the commit': (strike_after, SETTLE, 1),
    'when the one is to be sent': (strike_before, 'webhooks.transport.client.Client.send', 1),
}


@pytest.mark.parametrize('stage', named(ALWAYS, LAST_STAGES))
def test_one_request_goes_although_a_worker_is_killed_when_the_time_is_over(
    places, receiver, children: Children, stage
):
    how, target, call = stage
    change(places, '1', '2')
    dispatch_all()
    all_comes_due()
    kill(children, how, target, call)
    finish()
    assert set(told(receiver)) == {(place.pk, '2') for place in places}
    assert not deliveries(*OPEN_STATUSES)


def check_others_go_on(places, receiver: Receiver, children: Children, strike: Callable[[], None]) -> None:
    def frozen() -> None:
        strike()
        inline.run()

    pid = children.fork(frozen)
    assert wait_until(lambda: children.is_frozen(pid), timeout=60)
    recover()
    last = [(place.pk, '2') for place in places]

    def arrives() -> bool:
        all_comes_due()
        inline.run()
        return told(receiver) == last

    assert wait_until(arrives, timeout=60), 'others were stopped'
    children.thaw(pid)
    assert children.ends_well(pid)
    finish()
    # It may freeze after it has asked whether it may still send. Then it sends a copy.
    assert set(told(receiver)) == set(last)
    assert not deliveries(*OPEN_STATUSES)


@pytest.mark.parametrize('stage', named(ALWAYS, STAGES))
def test_others_go_on_where_a_worker_freezes_that_dispatches_in_the_quiet_time(
    places, receiver, children: Children, stage
):
    how, target, call = stage
    dispatch_all()
    change(places, '1', '2')
    check_others_go_on(places, receiver, children, lambda: how(target, call, freeze))


@pytest.mark.parametrize('stage', named(ALWAYS, POSTPONE_STAGES))
def test_others_go_on_where_a_worker_freezes_as_the_first_change_waits_for_the_last(
    places, receiver, children: Children, stage
):
    how, target, call = stage
    change(places, '1', '2')
    dispatch_all()
    first_comes_due()
    check_others_go_on(places, receiver, children, lambda: how(target, call, freeze))


@pytest.mark.parametrize('stage', named(ALWAYS, LAST_STAGES))
def test_others_go_on_where_a_worker_freezes_when_the_time_is_over(places, receiver, children: Children, stage):
    how, target, call = stage
    change(places, '1', '2')
    dispatch_all()
    all_comes_due()
    check_others_go_on(places, receiver, children, lambda: how(target, call, freeze))
