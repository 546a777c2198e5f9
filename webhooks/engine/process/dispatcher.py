"""The dispatcher: RQ's worker of our queue, whose jobs are wake-ups. It also looks every two seconds."""

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
from ...constants import JOB_TIME
from ...interruptions import INTERRUPTIONS
from ...models import sequence
from ...outbox import redis_queue
from ...outbox.scope import is_migrated, look_again
from ...templating import renderer
from .. import transactions
from ..backfill import Backfills
from ..dispatch.loop import Dispatcher
from ..registry import DISPATCH, Member, may_begin
from ..tidy import loop as tidy
from . import child

# Seconds between looks without a wake-up; between looks for something to tidy or to list.
LOOK_SECONDS, TIDY_SECONDS = 2.0, 1.0
# Seconds without progress that mean a hang: in C code, or of a connection whose packets vanish.
HANG_SECONDS = 30.0


class Dispatching:
    """`poke` wakes the sender, `publish` puts new failures on the status page. `stay` is called at each progress."""

    def __init__(
        self,
        member: Member,
        poke: Callable[[], None],
        publish: Callable[[], None],
        stay: Callable[[], None] = lambda: None,
    ) -> None:
        self._member = member
        self._stay = stay
        self._dispatcher = Dispatcher(member, stay)
        self._backfills = Backfills()
        self._poke = poke
        self._publish = publish
        self._tidied_at = self._looked_at = self._listed_at = 0.0
        self._has_more = False

    def look(self) -> None:
        self._stay()
        if time.monotonic() < self._looked_at + LOOK_SECONDS:
            return
        try:
            if self._member.pk is None and may_begin():
                sequence.advance()
                self._member.begin()
            if is_migrated():  # the tables may not be there yet
                self.work()
        except (DatabaseError, InterfaceError, RedisError) as error:
            transactions.recover(error)
            look_again()  # the tables may have been removed
        self._looked_at = time.monotonic()

    def work(self) -> int:
        """Dispatch until nothing is left, or JOB_TIME is over. Returns the number of events."""
        if self._member.pk is None:
            return 0
        clear_config()  # somebody may have changed it
        total, end = 0, time.monotonic() + JOB_TIME
        while time.monotonic() < end and not child.is_stopping() and (count := self.step()) is not None:
            total += count
        self._looked_at = time.monotonic()
        self._list_failures()
        return total

    def step(self) -> int | None:
        """Dispatch a batch, or record a backfill. Returns the number of events, None if nothing is left.

        It tidies beside events too: else event rules would hear of a suspension after an import only.
        """
        self._stay()
        count = self._dispatcher.batch()
        self._poke()
        self._stay()
        with transactions.may_break_off(*INTERRUPTIONS, RedisError):
            if count:
                self._tidy(is_busy=True)
                return count
            return 0 if any([self._backfills.cut(), self._tidy(is_busy=False)]) else None
        return count or None

    def _list_failures(self) -> None:
        if time.monotonic() < self._listed_at + TIDY_SECONDS:
            return
        self._stay()
        with transactions.may_break_off(DatabaseError, RedisError):
            self._publish()
        self._listed_at = time.monotonic()

    def _tidy(self, *, is_busy: bool) -> bool:
        """Goes on at once only without events: they come first."""
        goes_on = self._has_more and not is_busy
        if not goes_on and time.monotonic() < self._tidied_at + TIDY_SECONDS:
            return False
        try:
            self._has_more = tidy.step()
        finally:
            self._tidied_at = time.monotonic()
        return self._has_more


# Jobs find it here. Other processes have None.
here: Dispatching | None = None


class PromptWorker(BaseWorker):
    """Stops also if the signal comes at the end of a job: RQ would wait for another one first."""

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """RQ calls it while it waits: the dispatcher looks without a job too."""
        try:
            super().heartbeat(*args, **kwargs)
        finally:
            if here:
                here.look()
        if child.is_stopping() and self.get_state() == WorkerStatus.IDLE:
            raise StopRequested

    @property
    def dequeue_timeout(self) -> int:
        return int(LOOK_SECONDS)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        child.stop()


class QueueWorker(PromptWorker, SimpleWorker):
    # Seconds between two tries, and for an answer.
    max_connection_wait_time = LOOK_SECONDS
    connection_timeout = int(LOOK_SECONDS) + 1


class OthersWorker(PromptWorker, NetBoxRQWorker):
    """For the queues that are not ours."""


def serve(
    worker: Worker,
    options: dict[str, Any],
    poke: Callable[[], None],
    publish: Callable[[], None],
    name: str,
    _channel: socket.socket,
) -> None:
    global here  # noqa: PLW0603  (it belongs to the process)
    child.heed(HANG_SECONDS)
    member = Member(name, DISPATCH)
    here = Dispatching(member, poke, publish, partial(child.allow, HANG_SECONDS))
    with renderer.shared():
        while not child.is_stopping():
            here.look()
            # RQ gives up if Redis hangs or takes no writes.
            with transactions.may_break_off(RedisError, StopRequested):
                _serve_queue(worker, options)
            child.heed(HANG_SECONDS)
            if not child.is_stopping():
                time.sleep(LOOK_SECONDS)
    member.end()


def _serve_queue(worker: Worker, options: dict[str, Any]) -> None:
    redis_queue.connection().ping()
    own = make_like(worker, QueueWorker, [conf.get().queue])
    own.connection.set_retry(Retry(NoBackoff(), 0))
    try:
        # The worker for NetBox's queues has the scheduler.
        own.work(**options | {'with_scheduler': False})
    finally:
        if own.pubsub_thread:  # RQ may leave it
            own.pubsub_thread.stop()


def make_like(worker: Worker, worker_class: type[Worker], queues: Sequence[str]) -> Worker:
    """Under a new name: RQ keeps a dead worker's for minutes."""
    return get_worker(
        *queues,
        worker_class=worker_class,
        queue_class=worker.queue_class,
        job_class=worker.job_class,
        name=f'{worker.name}-{time.time_ns()}',
        worker_ttl=worker.worker_ttl,
        serializer=worker.serializer,
    )
