"""Random faults in workers, PostgreSQL's sessions, Redis and the endpoint."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from django.db import OperationalError, connection
from django.utils import timezone

from devstack.receiver import Answer, Manner, Receiver
from support.chaos.servers import kill_redis
from support.chaos.victims import Children, toil
from support.engine import pass_alive
from support.fixtures.servers import TasksRedis
from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Health, Webhook

WORKERS = 3
# Seconds between two faults.
INTERVAL = 0.25
# Frozen for at most so many faults, longer than PostgreSQL bears an idle transaction.
THAWED_AFTER = 30

MOODS: dict[str, list[Answer]] = {
    'well': [Answer(delay=0.005)],
    'fails': [Answer(500), Answer(503, headers={'Retry-After': '1'}), Answer(302), Answer(429)],
    'hangs': [Answer(manner=Manner.HANG)],
    'resets': [Answer(200, b'x' * 100, manner=Manner.CUT)],
    'drips': [Answer(200, b'x' * 20, delay=0.02, manner=Manner.DRIP)],
}

END_SESSION = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    ORDER BY md5(pid::text || %s) LIMIT 1"""


class Faults:
    def __init__(
        self,
        chance: random.Random,
        children: Children,
        receiver: Receiver,
        redis: TasksRedis,
        paths: list[str],
        paused_id: int,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._chance, self._children, self._receiver, self._redis = chance, children, receiver, redis
        self._paths, self._paused_id = paths, paused_id
        self._workers = [self._start() for _ in range(WORKERS)]
        # {process: number of the fault that thaws it}
        self._frozen: dict[int, int] = {}

    def inject(self, count: int) -> None:
        for number in range(count):
            self._tend(number)
            fault = self._chance.choice(
                (
                    self._kill, self._kill, self._freeze, self._freeze, self._end_session, self._end_session,
                    self._forget_redis, self._change_mood, self._change_mood, self._change_mood, self._pause,
                    self._pass_time, self._lose_all_workers,
                )
            )  # fmt: skip
            if number % 25 == 24:
                fault = self._kill_redis
            self._do(fault)
            time.sleep(INTERVAL * 2 * self._chance.random())

    def end(self) -> None:
        """Stop all workers, and repair everything."""
        for pid in self._workers:
            self._children.kill(pid)
        self._redis.start()
        for path in self._paths:
            self._receiver.answers(path, *MOODS['well'])
        Webhook.objects.filter(pk=self._paused_id).update(paused=False)

    def _do(self, fault: Callable[[], None]) -> None:
        self.done[fault.__name__.strip('_')] += 1
        fault()

    def _start(self) -> int:
        return self._children.fork(toil)

    def _tend(self, number: int) -> None:
        """Replace ended workers, and thaw frozen ones."""
        for pid, until in list(self._frozen.items()):
            if number >= until:
                del self._frozen[pid]
                self._children.thaw(pid)
        for pid in [pid for pid in self._workers if not self._children.is_running(pid)]:
            self._children.wait(pid)
            self._replace(pid)

    def _replace(self, pid: int) -> None:
        self._frozen.pop(pid, None)
        self._workers[self._workers.index(pid)] = self._start()

    def _kill(self) -> None:
        pid = self._chance.choice(self._workers)
        self._children.kill(pid)
        self._replace(pid)

    def _lose_all_workers(self) -> None:
        for pid in list(self._workers):
            self._children.kill(pid)
        pass_alive()
        for pid in list(self._workers):
            self._replace(pid)

    def _freeze(self) -> None:
        pid = self._chance.choice(self._workers)
        self._children.freeze(pid)
        self._frozen[pid] = self.done.total() + self._chance.randrange(1, THAWED_AFTER)

    def _end_session(self) -> None:
        """It belongs to a worker, a writer or an editor."""
        with connection.cursor() as cursor:
            cursor.execute(END_SESSION, [str(self._chance.random())])

    def _forget_redis(self) -> None:
        with self._redis.server.address.client() as client:
            client.flushall()

    def _kill_redis(self) -> None:
        kill_redis(self._redis.server.address)
        self._redis.start()

    def _change_mood(self) -> None:
        bad = self._chance.choice(list(MOODS.values()))
        answers = [self._chance.choice(bad) for _ in range(self._chance.randrange(1, 15))]
        self._receiver.answers(self._chance.choice(self._paths), *answers, *MOODS['well'])

    def _pause(self) -> None:
        webhook = Webhook.objects.get(pk=self._paused_id)
        webhook.paused = not webhook.paused
        webhook.save()

    def _pass_time(self) -> None:
        """Make retries and probes due. Workers lock these rows in another order."""
        retried = Delivery.objects.filter(status=StatusChoices.PENDING, due_at__isnull=False).exclude(error='')
        with suppress(OperationalError):
            now = timezone.now()
            retried.update(due_at=now)
            Health.objects.filter(suspended_since__isnull=False).update(probe_at=now)
