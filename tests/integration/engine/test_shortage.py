"""This machine may have no descriptor, process or thread left. That is no fault of the endpoint or the template."""

import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from queue import SimpleQueue
from typing import Any, NoReturn
from unittest.mock import patch

import pytest
from dcim.models import Site
from extras.conditions import InvalidCondition
from support.builders import site, subscribe
from support.descriptors import left
from support.engine import (
    arrivals,
    deliveries,
    dispatch_all,
    dispatch_batch,
    health,
    pass_retry_waits,
    sender,
    suspect,
    take_turns,
    try_suspects,
    work,
)
from tenancy.models import Tenant

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.deliver import lane, loop
from webhooks.engine.deliver.build import Call, Threads
from webhooks.exceptions import DefinitionError
from webhooks.interruptions import Shortage
from webhooks.models import Attempt, Delivery, Event, Webhook
from webhooks.templating import process, renderer
from webhooks.templating.errors import RenderError
from webhooks.validation.templates import check_template

pytestmark = pytest.mark.usefixtures('committed')

PENDING, DELIVERED = StatusChoices.PENDING, StatusChoices.DELIVERED


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site, max_attempts=1)


def fail(number: int = errno.EAGAIN) -> NoReturn:
    raise OSError(number, os.strerror(number))


@pytest.fixture(params=['no descriptors', 'too many processes'])
def no_process(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager]:
    if request.param == 'no descriptors':
        return lambda: left(0)
    return lambda: patch.object(os, 'fork', fail)


def test_deliveries_wait_in_order_and_spend_no_attempt(webhook, receiver, caplog, monkeypatch):
    monkeypatch.setattr(loop, 'TRY_AGAIN_SECONDS', 3600)
    first, second = site(), site()
    for one in (first, second, first):
        one.save()
    dispatch_all()
    with sender() as (_pk, opened):
        with left(0):
            assert take_turns(opened, lambda: 'Too many open files' in caplog.text)
            for _ in range(5):
                opened.turn()
                assert not opened.lanes.in_hand, 'it rests'
        assert caplog.text.count('Too many open files') == 1
        assert f'webhook={webhook.pk} name={webhook.name!r} waits' in caplog.text
        assert [(one.status, one.attempt_count) for one in deliveries()] == [(PENDING, 0)] * 5
        assert not Attempt.objects.exists()
        assert (health(webhook).unreachable, health(webhook).last_error) == (0, '')
        opened.lanes.owned[webhook.pk].rests_until = 0
        assert take_turns(opened, lambda: len(deliveries(DELIVERED)) == 5)
    assert {one.attempt_count for one in deliveries()} == {1}
    sequences = [[sequence for pk, sequence in arrivals(receiver) if pk == one.pk] for one in (first, second)]
    assert [len(one) for one in sequences] == [3, 2]
    assert sequences == [sorted(one) for one in sequences]


def test_fewer_requests_go_at_once(webhook, receiver, caplog, monkeypatch):
    monkeypatch.setattr(loop, 'TRY_AGAIN_SECONDS', 3600)
    # A busy machine may take longer to the next turn. The worker would leave its lane, and take it as a new one.
    monkeypatch.setattr(lane, 'IDLE_SECONDS', 3600)
    site()
    dispatch_all()
    with sender() as (_pk, opened):
        assert take_turns(opened, lambda: deliveries(DELIVERED))
        owned = opened.lanes.owned[webhook.pk]
        owned.window = 8
        site()
        dispatch_all()
        opened.poke()
        with left(0):
            assert take_turns(opened, lambda: 'Too many open files' in caplog.text)
        assert owned.window == 4


def test_a_suspect_waits_too(webhook, receiver):
    site()
    dispatch_all()
    suspect(*deliveries())
    pass_retry_waits()
    (before,) = deliveries()
    with left(0):
        try_suspects()
    (after,) = deliveries()
    assert (after.status, after.attempt_count, after.lapses) == (PENDING, before.attempt_count, before.lapses)
    assert after.due_at > before.due_at
    pass_retry_waits()
    work()
    assert deliveries(DELIVERED)


@contextmanager
def no_new_thread() -> Iterator[None]:
    """There is no room for such a stack. Where a container has too many threads, the error is the same."""
    before = threading.stack_size(2**45)
    try:
        yield
    finally:
        threading.stack_size(before)


class TestThreads:
    def test_a_request_waits_for_a_thread_that_is_busy(self, webhook, receiver):
        receiver.answers('/hook', Answer(delay=150))
        subscribe(receiver.url('/other'), Tenant)
        site()
        dispatch_all()
        with sender() as (_pk, opened):
            opened.turn()
            receiver.wait_for(1)
            Tenant.objects.create(name='Tenant', slug='tenant')
            dispatch_all()
            opened.poke()
            with no_new_thread():
                assert take_turns(opened, lambda: len(opened.lanes.in_hand) == 2)
            receiver.closing.set()
            assert take_turns(opened, lambda: len(deliveries(DELIVERED)) == 2)
        assert [one.attempt_count for one in deliveries()] == [1, 1]

    def test_a_request_finds_a_thread_though_none_is_busy(self):
        done = SimpleQueue()
        threads = Threads(2, 'test', done.put, done.put)
        call = Call(Delivery(webhook_id=1), None, lane=lane.Lane(1, used_at=0.0))
        try:
            with no_new_thread():
                threads.submit(call)
                assert done.get(timeout=60) is call
        finally:
            threads.close()

    def test_changes_are_rendered_all_the_same(self, webhook):
        site()
        with no_new_thread():
            dispatch_all()
        assert [(one.error, one.lapses) for one in Event.objects.all()] == [('', 0)]


class TestRenderer:
    """A template or a regular expression needs a process."""

    @pytest.fixture
    def templated(self, receiver: Receiver, settings: Any) -> Webhook:
        # Spawners are forked anew, by a thread that lives on. They end with their thread.
        settings.JINJA_FILTERS = {'unused': lambda value: value}
        return subscribe(receiver.url('/hook'), Site, max_attempts=1, body_template='{{ data.name }}')

    @pytest.mark.parametrize('count', [0, 1])
    def test_deliveries_wait_and_spend_no_attempt(self, templated, caplog, monkeypatch, count):
        monkeypatch.setattr(loop, 'TRY_AGAIN_SECONDS', 3600)
        site()
        dispatch_all()
        with sender() as (_pk, opened):
            with left(count):
                assert take_turns(opened, lambda: 'Too many open files' in caplog.text)
                for _ in range(5):
                    opened.turn()
                    assert not opened.lanes.in_hand, 'it rests'
            assert caplog.text.count('Too many open files') == 1
            assert [(one.status, one.attempt_count) for one in deliveries()] == [(PENDING, 0)]
            assert (health(templated).unreachable, health(templated).last_error) == (0, '')
            opened.lanes.owned[templated.pk].rests_until = 0
            assert take_turns(opened, lambda: deliveries(DELIVERED))
        assert Attempt.objects.count() == 1

    def test_it_is_no_slow_template(self, templated, caplog, monkeypatch):
        monkeypatch.setattr(lane, 'ENDLESS_BUILD_SECONDS', 0)
        site()
        dispatch_all()
        with sender() as (_pk, opened), left(0):
            assert take_turns(opened, lambda: caplog.text.count('Too many open files') == 2)
        assert 'template too slow' not in caplog.text

    def test_a_suspect_waits_too(self, templated, no_process):
        site()
        dispatch_all()
        suspect(*deliveries())
        pass_retry_waits()
        (before,) = deliveries()
        with no_process():
            try_suspects()
        (after,) = deliveries()
        assert (after.status, after.attempt_count, after.lapses) == (PENDING, before.attempt_count, before.lapses)
        assert after.due_at > before.due_at
        pass_retry_waits()
        work()
        assert deliveries(DELIVERED)

    def test_changes_wait_until_their_conditions_can_be_evaluated(self, receiver, no_process):
        subscribe(receiver.url('/hook'), Site, conditions={'attr': 'name', 'op': 'regex', 'value': '^B'})
        site(name='Aarau')
        dispatch_all()  # what rendering imports
        site(name='Bern')
        with no_process():
            for _ in range(4):
                dispatch_batch()
        assert [(one.status, one.lapses, one.error) for one in deliveries()] == [('undecided', 0, '')]
        assert work() == '1 delivered'

    def test_meanwhile_other_changes_go(self, receiver, no_process):
        subscribe(receiver.url('/hook'), Site, conditions={'attr': 'name', 'op': 'regex', 'value': '^B'})
        subscribe(receiver.url('/other'), Site)
        site(name='Aarau')
        dispatch_all()  # what rendering imports
        Delivery.objects.all().delete()
        site(name='Bern')
        with no_process():
            dispatch_all()
        assert sorted(one.status for one in deliveries()) == ['pending', 'undecided']

    @pytest.mark.parametrize('count', [1, 2, 3, 4])
    def test_a_renderer_that_can_be_forked_has_the_descriptors_that_it_needs(self, count):
        renderer.are_met('{"attr": "a", "op": "regex", "value": "b"}', '{"a": "b"}')  # what it imports
        with left(count), suppress(Shortage):
            assert renderer.are_met('{"attr": "a", "op": "regex", "value": "b"}', '{"a": "b"}')

    def test_the_conditions_of_a_suspect_event_are_evaluated_later_too(self, receiver, no_process):
        subscribe(receiver.url('/hook'), Site, conditions={'attr': 'name', 'op': 'regex', 'value': '^B'})
        site(name='Bern')
        suspect(*Event.objects.all())
        pass_retry_waits()
        with no_process():
            try_suspects()
            assert [one.status for one in deliveries()] == ['undecided']
        work()
        assert deliveries(DELIVERED)

    def test_a_spawner_that_cannot_be_replaced_is_replaced_later(self, settings, no_process):
        def die(_value: object) -> None:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # it dies with its spawner

        settings.JINJA_FILTERS = {'die': die}
        with renderer.kept(lambda: True):
            with pytest.raises(RenderError, match='stopped the process'):
                renderer.render('{{ 1|die }}', '{}')
            with no_process():
                for _ in range(2):
                    with pytest.raises(Shortage):
                        renderer.render('{{ 1 }}', '{}')
            assert renderer.render('{{ 1 }}', '{}') == '1'

    def test_a_spawner_that_cannot_fork_goes_on(self, monkeypatch, tmp_path):
        is_short, reap = tmp_path / 'short', process._reap

        def reap_if_possible() -> None:
            if is_short.exists():
                fail(errno.EAGAIN)
            reap()

        monkeypatch.setattr(process, '_reap', reap_if_possible)
        with renderer.kept(lambda: True), patch.object(os, 'fork', side_effect=fail) as fork:
            is_short.touch()
            with pytest.raises(Shortage):
                renderer.render('{{ 1 }}', '{}')
            is_short.unlink()
            assert renderer.render('{{ 1 }}', '{}') == '1'
        fork.assert_not_called()

    def test_the_author_of_a_template_reads_that_no_process_can_be_started(self, no_process):
        with no_process(), pytest.raises(InvalidCondition, match='no process can be started'):
            renderer.check_patterns(['a'])
        with no_process(), pytest.raises(DefinitionError, match='no process can be started'):
            check_template('body_template', '{{ 1 }}')

    @pytest.mark.parametrize('number', [errno.ENOSYS, errno.EPERM])
    def test_an_error_that_stays_is_no_shortage(self, monkeypatch, number):
        """An old kernel, or a seccomp filter."""
        monkeypatch.setattr(os, 'pidfd_open', lambda _pid: fail(number))
        with pytest.raises(RenderError, match='no process can be started'):
            renderer.render('{{ 1 }}', '{}')


@pytest.mark.parametrize(('most', 'expected'), [(2**20, lambda hard: hard), (500, lambda hard: 500)])
def test_a_sender_raises_the_soft_limit_within_reason(monkeypatch, most, expected):
    monkeypatch.setattr(loop, 'MAX_OPEN_FILES', most)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with left(100), sender():
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (expected(hard), hard)


def test_a_sender_lowers_no_limit(monkeypatch):
    monkeypatch.setattr(loop, 'MAX_OPEN_FILES', 500)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with sender():
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
