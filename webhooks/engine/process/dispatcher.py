"""The dispatcher: RQ's worker of our queue, in a process of its own. A wake-up is a job that lets it dispatch.

It looks for work every two seconds as well, and does what is left to do beside: backfills, and what is to be tidied.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self

from django.db import DatabaseError, InterfaceError
from django_rq import get_worker
from netbox.config import clear_config
from redis import RedisError
from rq import SimpleWorker, Worker
from rq.exceptions import StopRequested
from rq.worker import WorkerStatus

from ... import conf
from ...constants import JOB_TIME
from ...models import sequence
from ...outbox.scope import is_migrated, look_again
from .. import shutdown, transactions
from ..dispatch.loop import Dispatcher
from ..dispatch.warmup import warm_up
from ..registry import DISPATCH, Member
from .beside import Beside

logger = logging.getLogger('webhooks.worker')

# Seconds between two looks for what no wake-up has told of.
INTERVAL = 2.0


class Dispatching:
    """What this process dispatches.

    `poke` lets the sender beside it look, `publish` puts new failures on the status page.
    """

    _here: ClassVar[Self | None] = None

    def __init__(self, member: Member, poke: Callable[[], None], publish: Callable[[], None]) -> None:
        self._dispatcher = Dispatcher(member)
        self._beside = Beside()
        self._poke = poke
        self._publish = publish
        self._looked_at = 0.0

    @classmethod
    def here(cls) -> Self | None:
        """Return that of this process, None where it is no dispatcher."""
        return cls._here

    def begin(self) -> None:
        """From now on jobs of this process dispatch."""
        type(self)._here = self

    def look(self) -> None:
        """Work, if nothing has been done for a while. Whatever stands in the way is tried again at the next look."""
        if time.monotonic() < self._looked_at + INTERVAL:
            return
        try:
            if is_migrated():  # a worker may be started before the tables are there
                self.work()
                self._publish()
        except (DatabaseError, InterfaceError, RedisError) as error:
            transactions.recover(error)
            look_again()  # the tables may have been removed
        finally:
            self._looked_at = time.monotonic()

    def work(self) -> int:
        """Dispatch until nothing is left, or the job's time is over. Returns how many events were dispatched."""
        clear_config()  # somebody may have changed it since the last time
        total, end = 0, time.monotonic() + JOB_TIME
        while time.monotonic() < end and not shutdown.is_requested():
            count = self._dispatcher.batch()
            self._poke()
            total += count
            if not count and not self._beside.step():
                break
        self._looked_at = time.monotonic()
        return total


class QueueWorker(SimpleWorker):
    """RQ's worker that does its jobs in this process, and looks beside for what no job tells of.

    If RQ calls `heartbeat` no more while it waits, a change whose wake-up was lost waits for the next one.
    """

    # Seconds between two looks for a Redis that is away.
    max_connection_wait_time = INTERVAL

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().heartbeat(*args, **kwargs)
        finally:
            # Also where Redis is away.
            if here := Dispatching.here():
                here.look()
        if shutdown.is_requested() and self.get_state() == WorkerStatus.IDLE:
            # The signal came just after a job, before RQ had noted its end: RQ would wait for another one for ever.
            raise StopRequested

    @property
    def dequeue_timeout(self) -> int:
        """Seconds after which RQ beats and waits anew."""
        return int(INTERVAL)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        shutdown.request()


def serve(
    worker: Worker, options: dict[str, Any], poke: Callable[[], None], publish: Callable[[], None], name: str
) -> None:
    """Do the jobs of our queue until told to stop, as the `worker` would that was to be started."""
    member = Member(name, DISPATCH)
    if is_migrated():
        sequence.advance()
        member.begin()
        warm_up()
    Dispatching(member, poke, publish).begin()
    own = get_worker(
        conf.get().queue,
        worker_class=QueueWorker,
        queue_class=worker.queue_class,
        job_class=worker.job_class,
        name=f'{worker.name}-{name.rpartition(".")[0][-12:]}',
        worker_ttl=worker.worker_ttl,
        serializer=worker.serializer,
    )
    # One scheduler is enough, and that of the other queues is for all.
    own.work(**options | {'with_scheduler': False})
    member.end()
