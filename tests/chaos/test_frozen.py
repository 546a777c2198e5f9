"""SIGSTOP, as where a machine pauses or a host is cut off: other workers go on.

PostgreSQL ends the frozen transaction and its locks. A thawed worker repeats that step, and sends nothing that others
may have sent.
"""

import random
import time
from collections.abc import Callable

import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.cases import named
from support.chaos.audit import Ledger, check, finish
from support.chaos.seeds import seeds
from support.chaos.victims import Children, freeze, strike_after, strike_at_statement, strike_before
from support.engine import pass_alive, work

from devstack.process import descendants, wait_until
from devstack.receiver import Receiver
from webhooks.models import Webhook
from webhooks.templating import renderer

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

# A job with work to do executes more.
STATEMENTS = 60

ENGINE = 'webhooks.engine'
STAGES = {
    'after events were taken, before the commit': (strike_after, f'{ENGINE}.dispatch.claim.Reading.take', 1),
    'before events are rendered': (strike_before, f'{ENGINE}.dispatch.render.Renderer.render', 1),
    'after deliveries were made, before the commit': (strike_after, f'{ENGINE}.dispatch.loop.make_deliveries', 1),
    'after lanes were taken, before the commit': (strike_after, f'{ENGINE}.deliver.lanes.take', 2),
    'after it said what is in hand, before the commit': (strike_after, f'{ENGINE}.registry.Registration.beat', 4),
    'after that was committed': (strike_before, f'{ENGINE}.deliver.build.Call.build', 1),
    'before the first POST': (strike_before, f'{ENGINE}.deliver.build.Call.send', 1),
    'after the fifth POST': (strike_after, 'webhooks.transport.client.Client.send', 5),
    'after the record, before the commit': (strike_after, f'{ENGINE}.deliver.record.record', 2),
}


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site)


def check_others_go_on(receiver: Receiver, children: Children, strike: Callable[[], None]) -> None:
    ledger = Ledger()
    pks = [ledger.create() for _ in range(8)]
    for pk in pks:
        ledger.change(pk)

    def frozen() -> None:
        strike()
        work()

    pid = children.fork(frozen)
    assert wait_until(lambda: children.is_frozen(pid), timeout=60)
    ledger.note_interrupted()
    new = ledger.create()
    pass_alive()

    def arrives() -> bool:
        work()
        return new in {request.json()['data']['id'] for request in receiver.matching()}

    assert wait_until(arrives, timeout=60), 'others were stopped'
    children.thaw(pid)
    assert children.ends_well(pid)
    finish()
    check(ledger, receiver)


# `--long`: all of them.
ALWAYS = (
    'after deliveries were made, before the commit',
    'after lanes were taken, before the commit',
    'before the first POST',
    'after the record, before the commit',
)


@pytest.mark.parametrize('stage', named(ALWAYS, STAGES))
def test_other_workers_go_on_where_one_is_frozen(webhook, receiver, children: Children, stage):
    strike, target, call = stage
    check_others_go_on(receiver, children, lambda: strike(target, call, freeze))


@pytest.mark.parametrize('seed', seeds(20))
def test_other_workers_go_on_after_whichever_statement_one_is_frozen(webhook, receiver, children: Children, seed):
    number = random.Random(seed).randrange(STATEMENTS)
    check_others_go_on(receiver, children, lambda: strike_at_statement(number, freeze))


def test_a_template_that_is_rendered_when_all_is_frozen_has_its_time_afterwards(
    receiver, children: Children, settings, tmp_path, monkeypatch
):
    """As where a container is paused. It must not fail for good."""
    is_reached, is_open = tmp_path / 'reached', tmp_path / 'open'
    monkeypatch.setattr(renderer, 'TEMPLATE_SECONDS', 6.0)

    def wait(text: str) -> str:
        is_reached.touch()
        assert wait_until(is_open.exists, timeout=60)
        return text

    settings.JINJA_FILTERS = {'wait': wait}
    subscribe(receiver.url('/hook'), Site, body_template='{{ data.name|wait }}')
    site(name='Bern')
    pid = children.fork(work)
    assert wait_until(is_reached.exists, timeout=60)
    everyone = [pid, *(one.pid for one in descendants(pid))]
    for one in everyone:
        children.freeze(one)
    thawed_at = time.monotonic() + renderer.TEMPLATE_SECONDS + renderer.KILL_MARGIN_SECONDS
    assert wait_until(lambda: time.monotonic() > thawed_at, timeout=60)
    is_open.touch()
    for one in everyone:
        children.thaw(one)
    assert children.ends_well(pid)
    assert [request.body for request in receiver.requests] == [b'Bern']
