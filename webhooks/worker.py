"""The door out: what RQ runs, and the worker that runs it."""

import gc
import logging
import os
import signal
import uuid
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from django.db import DatabaseError, InterfaceError, connection
from django_rq import get_worker
from django_rq.utils import reset_db_connections
from netbox.config import clear_config
from redis import RedisError
from rq import Queue, get_current_job
from rq.exceptions import StopRequested
from rq.job import Job
from rq.worker import WorkerStatus
from utilities.rqworker import NetBoxRQWorker

from . import conf
from .engine import rescue, runner, shutdown, sidecar
from .engine.sidecar import Sidecar
from .engine.standby import Standby
from .engine.timer import Timer
from .engine.warmup import warm_up
from .exceptions import DeliveryFailed
from .models import sequence
from .outbox import queue, wakeup
from .outbox.scope import is_migrated
from .services import failed_jobs, redelivery

logger = logging.getLogger('webhooks.worker')

# What a job says that was queued before webhooks were switched off, or by somebody who redelivers.
OFF = 'nothing is sent while WEBHOOKS_ENABLED is off'

# Options of a worker that is to end by itself: it does all of its queues' jobs alone.
ENDS = ('burst', 'max_jobs', 'max_idle_time')

# Seconds after a job's timeout when RQ's worker kills it.
KILL_MARGIN = 60

# What the job in this process holds events and deliveries by, so that its worker knows it as well.
_lease: ContextVar[uuid.UUID | None] = ContextVar('lease', default=None)


def drain() -> str:
    """Send what is due. The result is a sentence for the status page, which is not shown where there was nothing."""
    if not conf.get().enabled:
        wakeup.accept()
        get_current_job().result_ttl = 0
        return OFF
    tally = runner.run(_lease.get())
    failed_jobs.publish()
    if not tally.counts:
        get_current_job().result_ttl = 0
        return str(tally)
    return _tell(str(tally))


def redeliver(delivery_uuid: str) -> str:
    """Redeliver a failed delivery: what *Requeue* runs on RQ's status page.

    Raises DeliveryFailed where it fails again, so that RQ lists it as failed.
    """
    if not conf.get().enabled:
        raise DeliveryFailed(OFF)
    redelivery.redeliver_failed(delivery_uuid)
    runner.run(_lease.get())
    failed_jobs.publish(except_for=delivery_uuid)
    failed_jobs.renew(delivery_uuid)
    return _tell(redelivery.outcome(delivery_uuid))


def _tell(result: str) -> str:
    """Leave the result where the status page has it without unpickling more than NetBox's own pages of jobs do."""
    job = get_current_job()
    job.meta['result'] = result
    job.save_meta()
    return result


class WebhooksWorker(NetBoxRQWorker):
    """NetBox's worker, with a timer that wakes it for what no wake-up mentions, and a standby for our jobs.

    A worker that does not serve our queue has neither. One that serves others as well leaves ours to a sidecar, where
    the machine lets it.
    """

    has_webhooks_timer = True
    _standby: Standby | None = None
    _sidecar: Sidecar | None = None
    # Whether the job under way is one that listens to requests to stop.
    _listens = False

    def work(self, *args, **options) -> bool:
        others = [one for one in self.queues if one.name != conf.get().queue]
        if 0 < len(others) < len(self.queues) and not any(map(options.get, ENDS)) and sidecar.is_possible():
            # One scheduler is enough, and that of this worker is for all of its queues.
            work = partial(self._work_beside, options | {'with_scheduler': False})
            self._sidecar = Sidecar(work, patience=_patience(next(one for one in self.queues if one not in others)))
            self._ordered_queues = others
            self.job_monitoring_interval = min(self.job_monitoring_interval, sidecar.INTERVAL)
        return super().work(*args, **options)

    def _work_beside(self, options: dict[str, Any]) -> None:
        """In the sidecar: do the jobs of our queue."""
        worker = get_worker(
            conf.get().queue,
            worker_class=type(self),
            queue_class=self.queue_class,
            job_class=self.job_class,
            # Not the same each time: RQ takes none that may be in use.
            name=f'{self.name}-{uuid.uuid4().hex[:8]}',
            worker_ttl=self.worker_ttl,
            serializer=self.serializer,
        )
        worker.work(**options)

    def queue_names(self) -> list[str]:
        names = super().queue_names()
        return [name for name in names if name != conf.get().queue] if self._sidecar else names

    @property
    def dequeue_timeout(self) -> int:
        longest = super().dequeue_timeout
        return min(longest, sidecar.INTERVAL) if self._sidecar else longest

    def heartbeat(self, *args, **kwargs) -> None:
        super().heartbeat(*args, **kwargs)
        if self._stop_requested and self.get_state() == WorkerStatus.IDLE:
            # The signal came after the end of a job, before RQ had noted it: RQ would wait for another job for ever.
            raise StopRequested
        if self._sidecar:
            self._sidecar.keep()

    def bootstrap(self, *args, **kwargs) -> None:
        super().bootstrap(*args, **kwargs)
        try:
            if self._sidecar:
                _forget()
                self._sidecar.keep()
            elif conf.get().queue in self.queue_names():
                self._make_ready()
        except BaseException:
            # RQ does so only for one that has begun its work. This one would count as a live worker for minutes.
            with suppress(RedisError):
                self.register_death()
            raise

    def _make_ready(self) -> None:
        timer = Timer()
        migrated = is_migrated()
        if migrated:
            sequence.advance()
            failed_jobs.forget_wakeups()
            warm_up()
        timer.look()
        _forget()
        if migrated:
            self._stand_by()
        timer.start()

    def _stand_by(self) -> None:
        try:
            self._standby = Standby(self)
        except OSError as error:
            # No process or no file is to be had just now: the next job is done without one.
            logger.warning('standby=failed reason="%s"', error)

    def execute_job(self, job: Job, queue: Queue) -> None:
        super().execute_job(job, queue)
        if self._listens and not self._stop_requested and not (self._standby and self._standby.is_there):
            self._stand_by()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        self._listens = _is_ours(job)
        if self._listens and self._standby and self._standby.hand_over(job, queue, self.execution):
            self._horse_pid = self._standby.pid
        else:
            super().fork_work_horse(job, queue)
        if self._stop_requested:
            self._ask_horse_to_stop()

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        if self._listens:
            shutdown.listen()

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        if self._sidecar:
            self._sidecar.stop()
        self._ask_horse_to_stop()

    def request_force_stop(self, *args, **kwargs) -> None:
        if self._sidecar:
            self._sidecar.stop()
        super().request_force_stop(*args, **kwargs)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            # Also where Redis is away: what is under way is recorded in PostgreSQL.
            if self._sidecar:
                self._sidecar.end()

    def _ask_horse_to_stop(self) -> None:
        """Let a job of ours begin nothing more. Other jobs go on to their end, as with RQ's own worker."""
        if self._listens and self.horse_pid:
            with suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def perform_job(self, job: Job, queue: Queue) -> bool:
        """Called in the horse."""
        _lease.set(_lease_of(self))
        return super().perform_job(job, queue)

    def handle_work_horse_killed(self, job: Job, *how: Any) -> None:
        """Called in the worker: its horse is dead for certain, and what it held need not wait for the lease's end."""
        super().handle_work_horse_killed(job, *how)
        if _is_ours(job):
            _end_lease(_lease_of(self))

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        if self._standby and self._standby.pid == self.horse_pid:
            return self._standby.wait()
        return super().wait_for_horse()


def _patience(ours: Queue) -> int | None:
    """Return the seconds that a worker of our queue may take to stop: those of its job, and until RQ would kill it."""
    timeout = queue.job_timeout(ours)
    return None if timeout < 0 else timeout + 2 * KILL_MARGIN


def _is_ours(job: Job) -> bool:
    return job.origin == conf.get().queue and queue.function(job).startswith(f'{__name__}.')


def _lease_of(worker: NetBoxRQWorker) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, worker.execution.id)


def _end_lease(lease: uuid.UUID) -> None:
    try:
        rescue.end_lease(lease)
    except (DatabaseError, InterfaceError) as error:
        logger.warning('lease=%s goes on to its end reason="%s"', lease, str(error).strip())
    finally:
        # Jobs are forked from here.
        connection.close()
    wakeup.wake(patient=True)


def _forget() -> None:
    """What is left open or remembered in the worker would be shared by all jobs, which are forked from it."""
    reset_db_connections()
    clear_config()
    # What is there for good is no garbage: a job that looks through it would only get copies of its pages.
    gc.collect()
    gc.freeze()
