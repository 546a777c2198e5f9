import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from dcim.models import Site
from django.conf import settings
from django.db import transaction
from support.builders import NOWHERE, changes, site, subscribe
from tenancy.models import Tenant

from webhooks import conf
from webhooks.constants import JOB_SECONDS, MAX_TIMEOUT_SECONDS
from webhooks.outbox import redis_queue, wakeup

pytestmark = pytest.mark.usefixtures('committed')

SITES = '/api/dcim/sites/'
# In seconds: slow, and still an answer.
LATE = 0.2


class RolledBack(Exception):
    """Raised to roll back."""


@pytest.fixture
def webhook(committed: None):
    return subscribe(NOWHERE, Site)


def waiting() -> int:
    return redis_queue.get().count


@pytest.mark.usefixtures('webhook')
class TestWakeUp:
    def test_a_worker_is_woken_after_the_commit_and_not_before(self):
        with transaction.atomic():
            site()
            assert waiting() == 0
        assert waiting() == 1
        (job,) = redis_queue.get().jobs
        assert (job.func_name, job.args, job.kwargs) == ('webhooks.worker.drain', (), {})

    def test_a_save_outside_a_transaction_wakes_a_worker(self):
        site()
        assert waiting() == 1

    @pytest.mark.parametrize(
        ('setting', 'longest'), [(300, 300), ('10m', 600), (9000, MAX_TIMEOUT_SECONDS), (-1, MAX_TIMEOUT_SECONDS)]
    )
    def test_its_job_may_take_as_long_as_the_longest_requests(self, setting: int | str, longest: int, monkeypatch):
        """A second request may begin to hang at the end of the first."""
        monkeypatch.setattr(settings, 'RQ_DEFAULT_TIMEOUT', setting)
        site()
        (job,) = redis_queue.get().jobs
        assert JOB_SECONDS + 2 * longest < job.timeout <= 2 * JOB_SECONDS + 2 * longest + 60

    @pytest.mark.parametrize(('setting', 'timeout'), [(60, 690), (90_000, 90_000), (-1, -1)])
    def test_the_queues_own_timeout_can_only_make_it_longer(self, setting: int, timeout: int, monkeypatch):
        """It is REDIS_DEFAULT_TIMEOUT, else RQ_DEFAULT_TIMEOUT."""
        name = conf.get().queue
        monkeypatch.setitem(settings.RQ_QUEUES, name, {**settings.RQ_QUEUES[name], 'DEFAULT_TIMEOUT': setting})
        site()
        (job,) = redis_queue.get().jobs
        assert job.timeout == timeout

    def test_many_events_wake_a_worker_once(self):
        with transaction.atomic():
            for _ in range(5):
                site()
        assert waiting() == 1

    def test_many_transactions_wake_a_worker_once_while_it_has_not_looked(self):
        for _ in range(3):
            site()
        assert waiting() == 1

    def test_a_worker_is_woken_again_once_it_has_looked(self):
        site()
        wakeup.accept()
        site()
        assert waiting() == 2

    def test_a_deletion_wakes_a_worker(self):
        created = site()
        wakeup.accept()
        redis_queue.get().empty()
        created.delete()
        assert waiting() == 1

    def test_a_rollback_wakes_nobody(self):
        with pytest.raises(RolledBack), transaction.atomic():
            site()
            raise RolledBack
        assert waiting() == 0

    def test_nobody_is_woken_where_the_savepoint_with_all_events_was_rolled_back(self):
        with transaction.atomic(), pytest.raises(RolledBack), transaction.atomic():
            site()
            raise RolledBack
        assert waiting() == 0

    def test_a_worker_is_woken_where_the_first_savepoint_was_rolled_back(self):
        with transaction.atomic():
            with pytest.raises(RolledBack), transaction.atomic():
                site()
                raise RolledBack
            site()
        assert waiting() == 1

    def test_a_worker_is_woken_where_a_later_savepoint_was_rolled_back(self):
        with transaction.atomic():
            site()
            with pytest.raises(RolledBack), transaction.atomic():
                site()
                raise RolledBack
        assert waiting() == 1

    def test_a_worker_is_woken_where_only_the_inner_savepoint_wrote(self):
        with transaction.atomic():
            Tenant.objects.create(name='Tenant', slug='tenant')
            with transaction.atomic():
                site()
        assert waiting() == 1

    def test_a_worker_is_woken_where_savepoints_are_nested(self):
        with transaction.atomic():
            with pytest.raises(RolledBack), transaction.atomic():
                with transaction.atomic():
                    site()
                raise RolledBack
            with transaction.atomic(), transaction.atomic():
                site()
        assert waiting() == 1

    def test_a_worker_is_woken_although_another_hook_fails(self):
        """After an error Django drops only later hooks."""
        with pytest.raises(RolledBack), transaction.atomic():
            site()
            transaction.on_commit(_fail)
        assert waiting() == 1


def _fail() -> None:
    raise RolledBack


class TestWithoutSubscription:
    @pytest.fixture
    def calls(self, stack: Any) -> Callable[[], dict[str, int]]:
        """NetBox and clients look at Redis too."""
        looks = ('cmdstat_info', 'cmdstat_hello', 'cmdstat_client', 'cmdstat_select', 'cmdstat_smembers')

        def count() -> dict[str, int]:
            with stack.tasks.client() as client:
                stats = client.info('commandstats')
            return {name: found['calls'] for name, found in stats.items() if not name.startswith(looks)}

        return count

    def test_redis_is_not_called(self, calls):
        subscribe(NOWHERE, Tenant)
        place = site()
        before = calls()
        with transaction.atomic():
            site()
            place.delete()
        site()
        assert calls() == before
        Tenant.objects.create(name='Tenant', slug='tenant')
        assert calls() != before

    def test_with_a_subscription_redis_is_called(self, calls, webhook):
        before = calls()
        site()
        assert calls() != before


class FalseRedis:
    """Hangs up at once, or stays silent."""

    def __init__(self, port: int, *, hangs_up: bool) -> None:
        self.connections: list[socket.socket] = []
        self._hangs_up = hangs_up
        self._server = socket.create_server(('127.0.0.1', port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._server.accept()
            except OSError:
                return
            self.connections.append(connection)
            if self._hangs_up:
                connection.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self.connections:
            connection.close()


class SlowRedis:
    """Forwards to a real Redis, and delays answers to our wake-ups."""

    def __init__(self, port: int, target: int) -> None:
        self.delay = 0.0
        self.asked = 0
        self._target = target
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(('127.0.0.1', port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._server.accept()
            except OSError:
                return
            redis = socket.create_connection(('127.0.0.1', self._target))
            self._sockets += client, redis
            ours = threading.Event()
            threading.Thread(target=self._pass_on, args=(client, redis, ours), daemon=True).start()
            threading.Thread(target=self._answer, args=(redis, client, ours), daemon=True).start()

    def _pass_on(self, client: socket.socket, redis: socket.socket, ours: threading.Event) -> None:
        with suppress(OSError):
            while commands := client.recv(65536):
                if b'rq:webhooks:woken:' in commands:
                    self.asked += 1
                    ours.set()
                redis.sendall(commands)

    def _answer(self, redis: socket.socket, client: socket.socket, ours: threading.Event) -> None:
        with suppress(OSError):
            while answer := redis.recv(65536):
                if ours.is_set():
                    self._closing.wait(self.delay)
                client.sendall(answer)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class TestRedisSlow:
    @pytest.fixture
    def slow_redis(self, committed: None, tasks_redis: Any, other_redis: Any, monkeypatch) -> Iterator[SlowRedis]:
        monkeypatch.setattr(wakeup, 'REDIS_PAUSE_SECONDS', 3600)
        tasks_redis.stop()
        server = SlowRedis(tasks_redis.server.port, other_redis.port)
        yield server
        server.close()

    def test_only_the_first_of_several_commits_waits_for_it(self, webhook, slow_redis, caplog, monkeypatch):
        """The slow wake-up itself succeeds, and later commits skip theirs."""
        for asked in (1, 2):
            site()
            assert slow_redis.asked == asked
        wakeup.accept()
        asked = slow_redis.asked
        monkeypatch.setattr(wakeup, 'SLOW_WAKEUP_SECONDS', LATE)
        slow_redis.delay = LATE
        for _ in range(3):
            site()
        assert slow_redis.asked == asked + 1
        assert waiting() == 2
        assert len(changes(Site)) == 5
        (line,) = [record for record in caplog.records if record.name.startswith('webhooks')]
        assert (line.levelno, line.name) == (logging.WARNING, 'webhooks.queue')
        assert 'wake_up=slow' in line.getMessage()


class TestRedisDown:
    """NetBox itself asks Redis at each save. These tests count our requests."""

    @pytest.fixture
    def lines(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
        return lambda: [record for record in caplog.records if record.name.startswith('webhooks')]

    @pytest.fixture
    def long_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wakeup, 'REDIS_PAUSE_SECONDS', 3600)

    @pytest.fixture
    def no_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wakeup, 'REDIS_PAUSE_SECONDS', 0)

    @pytest.fixture(params=[True, False], ids=['hangs up', 'is silent'])
    def false_redis(self, request: pytest.FixtureRequest, committed: None, tasks_redis: Any) -> Iterator[FalseRedis]:
        tasks_redis.stop()
        server = FalseRedis(tasks_redis.server.port, hangs_up=request.param)
        yield server
        server.close()

    def test_saves_are_answered_and_it_is_logged_once_a_pause(
        self, long_pause, webhook, api_client, tasks_redis, lines
    ):
        tasks_redis.stop()
        bodies = [{'name': f'Site {number}', 'slug': f'site-{number}'} for number in range(2)]
        assert [api_client.post(SITES, body, format='json').status_code for body in bodies] == [201] * 2
        assert len(changes(Site)) == 2
        (line,) = lines()
        assert (line.levelno, line.name) == (logging.WARNING, 'webhooks.queue')

    def test_it_is_tried_once_a_pause(self, long_pause, false_redis, lines):
        assert [wakeup.wake() for _ in range(5)] == [False] * 5
        assert len(false_redis.connections) == 1
        assert len(lines()) == 1

    def test_after_the_pause_it_is_tried_again(self, no_pause, false_redis, lines):
        assert [wakeup.wake() for _ in range(2)] == [False] * 2
        assert len(false_redis.connections) == 2
        assert len(lines()) == 2

    def test_once_it_is_back_it_is_used(self, no_pause, tasks_redis):
        tasks_redis.stop()
        assert not wakeup.wake()
        tasks_redis.start()
        assert wakeup.wake()
        assert waiting() == 1

    def test_a_restart_between_two_saves_is_not_noticed(self, long_pause, tasks_redis):
        assert wakeup.wake()
        tasks_redis.stop()
        tasks_redis.start()
        assert wakeup.wake()
        assert waiting() == 1

    def test_one_that_wants_a_password_is_like_one_that_is_down(self, long_pause, stack, lines):
        with stack.tasks.client() as client:
            client.config_set('requirepass', 'another')
            client.client_kill_filter(_type='normal', skipme=True)
            try:
                assert not wakeup.wake()
                assert len(lines()) == 1
            finally:
                client.config_set('requirepass', '')
