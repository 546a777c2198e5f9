"""Runs the dispatcher: RQ's worker of our queue, whose jobs are wake-ups. It also looks every two seconds."""

import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.db import DatabaseError, InterfaceError
from django_rq import get_worker
from netbox.config import clear_config
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import SimpleWorker, Worker
from rq.exceptions import StopRequested
from rq.worker import BaseWorker, WorkerStatus
from utilities.rqworker import NetBoxRQWorker

from ... import conf
from ...constants import JOB_SECONDS
from ...default_database import pinned
from ...interruptions import INTERRUPTIONS
from ...models import sequence
from ...outbox import redis_queue
from ...outbox.scope import is_migrated, look_again
from ...templating import renderer
from .. import sql
from ..dispatch.loop import Dispatcher
from ..registry import DISPATCH, Registration, may_begin
from ..tidy import loop as tidy
from ..walks.backfills import BackfillWalk
from ..walks.config_contexts import ConfigContextWalk
from ..walks.lists import WalkOfList
from ..walks.loop import Walks
from . import child

# Between two looks if no wake-up comes, as when Redis is away.
LOOK_SECONDS = 2.0
# Between two looks for something to tidy, or for failures to list.
TIDY_SECONDS = 1.0
# Without progress for this time it hangs, in C code or on a connection whose packets vanish: the kernel ends it.
HANG_SECONDS = 30.0


class DispatcherRole:
    """Dispatches, tidies, walks and lists failures: all that a worker in this role does.

    `poke` wakes the sender, `publish` puts new failures on the status page. `keep_alive` is called whenever it makes
    progress.
    """

    def __init__(
        self,
        registration: Registration,
        poke: Callable[[], None],
        publish: Callable[[], None],
        keep_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._registration = registration
        self._keep_alive = keep_alive
        self._dispatcher = Dispatcher(registration, keep_alive)
        self._walks = Walks([BackfillWalk, ConfigContextWalk, WalkOfList])
        self._poke = poke
        self._publish = publish
        self._tidied_at = self._looked_at = self._listed_at = 0.0
        self._has_more = False
        # In this session the sequence was moved up to the clock.
        self._session: object = None

    def look(self) -> None:
        """Work, if the last look is LOOK_SECONDS ago. As soon as the tables are there, it adds the worker's row.

        If PostgreSQL or Redis is away, that is logged, and the next look is as usual.
        """
        self._keep_alive()
        if time.monotonic() < self._looked_at + LOOK_SECONDS:
            return
        try:
            if self._registration.pk is None and may_begin():
                self._registration.begin()
            if is_migrated():  # the tables may not be there yet
                self.work()
        except (DatabaseError, InterfaceError, RedisError) as error:
            sql.recover(error)
            look_again()  # somebody may have removed the tables: the next look asks
        self._looked_at = time.monotonic()

    def work(self) -> int:
        """Dispatch until nothing is left, or JOB_SECONDS is over, then list failures. Returns the number of events.

        Wake-ups call it too. Before the tables are there it does nothing.
        """
        if self._registration.pk is None:
            return 0
        clear_config()  # somebody may have changed it
        self._advance()
        total, end = 0, time.monotonic() + JOB_SECONDS
        while time.monotonic() < end and not child.is_stopping() and (count := self.step()) is not None:
            total += count
        self._looked_at = time.monotonic()
        self._list_failures()
        return total

    def _advance(self) -> None:
        """Move the sequence up to the clock in each new session: a standby that lagged may have taken over."""
        if self._session is None or sql.session() is not self._session:
            with sql.may_break_off(DatabaseError):
                sequence.advance()
                self._session = sql.session()

    def step(self) -> int | None:
        """Dispatch a batch, and tidy. Without events, also go on with a walk.

        Returns the number of events and decided deliveries, None if nothing is left. It tidies even while there are
        events: otherwise event rules would learn of a suspension only after an import.
        """
        self._keep_alive()
        count = self._dispatcher.batch()
        self._poke()
        self._keep_alive()
        with sql.may_break_off(*INTERRUPTIONS, RedisError):
            if count:
                self._tidy(is_busy=True)
                return count
            return 0 if any([self._walks.next_slice(), self._tidy(is_busy=False)]) else None
        return count or None

    def _list_failures(self) -> None:
        if time.monotonic() < self._listed_at + TIDY_SECONDS:
            return
        self._keep_alive()
        with sql.may_break_off(DatabaseError, RedisError):
            self._publish()
        self._listed_at = time.monotonic()

    def _tidy(self, *, is_busy: bool) -> bool:
        """Tidy, mostly once a second. Returns whether there may be more: without events that follows at once."""
        goes_on = self._has_more and not is_busy
        if not goes_on and time.monotonic() < self._tidied_at + TIDY_SECONDS:
            return False
        try:
            self._has_more = tidy.step()
        finally:
            self._tidied_at = time.monotonic()
        return self._has_more


# The dispatching of this process, for RQ's jobs in it. None: this process is no dispatcher.
here: DispatcherRole | None = None


class PromptWorker(BaseWorker):
    """RQ's worker in a process of ours. While it waits for a job, the dispatcher looks, and it stops when asked to.

    If the signal comes at the end of a job, RQ itself would wait for another job first.
    """

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """Let the dispatcher look, after RQ's own heartbeat: RQ calls it while it waits for a job.

        Raises StopRequested if the worker is to stop, and is idle.
        """
        try:
            super().heartbeat(*args, **kwargs)
        finally:
            if here:
                here.look()
        if child.is_stopping() and self.get_state() == WorkerStatus.IDLE:
            raise StopRequested

    @property
    def dequeue_timeout(self) -> int:
        """Return for how many seconds RQ waits for a job, before it calls heartbeat()."""
        return int(LOOK_SECONDS)

    def handle_warm_shutdown_request(self) -> None:
        """Note also here that this process stops: RQ calls it when the signal comes."""
        super().handle_warm_shutdown_request()
        child.stop()


class QueueWorker(PromptWorker, SimpleWorker):
    """RQ's worker for our queue. It runs jobs in its own process, and notices soon that Redis is away."""

    # Seconds between two tries to connect, and for an answer.
    max_connection_wait_time = LOOK_SECONDS
    connection_timeout = int(LOOK_SECONDS) + 1


class OthersWorker(PromptWorker, NetBoxRQWorker):
    """RQ's worker, as NetBox has it, for queues that are not ours."""


@pinned()
def serve(
    worker: Worker,
    options: dict[str, Any],
    poke: Callable[[], None],
    publish: Callable[[], None],
    name: str,
    _channel: socket.socket,
) -> None:
    """Run the dispatcher until a signal stops it: the supervisor forks a process for it. At the end delete its row.

    `worker`: as the operator started it, with RQ's `options`. `poke` and `publish`: as in DispatcherRole. While Redis
    is away, it goes on without jobs.
    """
    global here  # noqa: PLW0603  (it belongs to the process)
    child.listen(HANG_SECONDS)
    registration = Registration(name, DISPATCH)
    here = DispatcherRole(registration, poke, publish, partial(child.kill_after, HANG_SECONDS))
    with renderer.shared():
        while not child.is_stopping():
            here.look()
            # If Redis hangs or takes no writes, RQ gives up. Then the dispatcher looks, and begins again.
            with sql.may_break_off(RedisError, StopRequested):
                _serve_queue(worker, options)
            child.listen(HANG_SECONDS)
            if not child.is_stopping():
                time.sleep(LOOK_SECONDS)
    registration.end()


def _serve_queue(worker: Worker, options: dict[str, Any]) -> None:
    redis_queue.connection().ping()
    own = make_like(worker, QueueWorker, [conf.get().queue])
    own.connection.set_retry(Retry(NoBackoff(), 0))
    try:
        # The worker for NetBox's queues has the scheduler.
        own.work(**options | {'with_scheduler': False})
    finally:
        if own.pubsub_thread:  # RQ may leave it running
            own.pubsub_thread.stop()


def make_like(worker: Worker, worker_class: type[Worker], queues: Sequence[str]) -> Worker:
    """Return an RQ worker of this class for these queues, otherwise like the operator's.

    It has a new name: RQ keeps the name of a dead worker for minutes.
    """
    return get_worker(
        *queues,
        worker_class=worker_class,
        queue_class=worker.queue_class,
        job_class=worker.job_class,
        name=f'{worker.name}-{time.time_ns()}',
        worker_ttl=worker.worker_ttl,
        serializer=worker.serializer,
    )
