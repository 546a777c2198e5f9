"""The standby: a process that waits for jobs of ours, and does them one after the other.

RQ forks a horse for each job. A new process opens its connections first, a new PostgreSQL backend looks up every table,
and until then nothing is sent. The standby has all that behind it when a job comes. It does jobs as RQ's SimpleWorker
does, but in a process of its own, which the worker watches like any horse, and which is replaced after a while, and
after a job that failed. Other jobs do not get it: they find their process as RQ makes it.
"""

import json
import logging
import os
import random
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from django.db import DatabaseError, InterfaceError, connection
from netbox.config import clear_config
from redis import RedisError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job

from ..outbox import queue
from . import shutdown
from .warmup import rehearse

logger = logging.getLogger('webhooks.standby')

# Seconds after which it takes no other job, so that whatever grows in it is given back.
LIFE = 600
# Seconds between two looks at the connections, and at whether the worker still lives.
INTERVAL = 30
# What it says after a job.
GOES_ON, ENDS = b'+', b'-'


class Standby:
    """The worker's end of it.

    While the worker waits, an alarm of RQ's strikes every half a minute, at any line, and it waits anew afterwards. So
    what the standby said is left where it is until the next job, and how it ended is kept.
    """

    def __init__(self, worker: Worker) -> None:
        self._channel, theirs = socket.socketpair()
        self._end: tuple[int, int, Any] | None = None
        parent = os.getpid()
        with theirs:
            self.pid = self._fork()
            if not self.pid:
                self._channel.close()
                _serve(worker, theirs, parent)

    @property
    def is_there(self) -> bool:
        return self._end is None

    def hand_over(self, job: Job, rq_queue: Queue, execution: Execution) -> bool:
        """Let it do the job. Returns False where it is no longer there."""
        if not self.is_there:
            return False
        try:
            self._forget_last()
            self._channel.sendall(json.dumps([job.id, rq_queue.name, execution.id]).encode())
        except OSError:
            self._reap(b'')
        return self.is_there

    def wait(self) -> tuple[int, int, Any]:
        """Wait until the job is done, or the process has died in it. Returns what os.wait4() says of a horse."""
        if self._end is None:
            said = self._listen()
            if said == GOES_ON:
                return self.pid, os.EX_OK, None
            self._reap(said)
        return self._end

    def _fork(self) -> int:
        try:
            return os.fork()
        except OSError:
            self._channel.close()
            raise

    def _listen(self) -> bytes:
        try:
            return self._channel.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            return b''

    def _forget_last(self) -> None:
        """Take away what it said of the job before this one."""
        if select.select([self._channel], [], [], 0)[0]:
            self._channel.recv(1)

    def _reap(self, said: bytes) -> None:
        with _undisturbed():
            self._channel.close()
            _pid, status, usage = os.wait4(self.pid, 0)
            self._end = self.pid, os.EX_OK if said else status, usage


@contextmanager
def _undisturbed() -> Iterator[None]:
    """An alarm that strikes inside is dropped: there is nothing left to wait for. Blocked, it would go to the timer."""
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


#
# The horse's end
#


def _serve(worker: Worker, channel: socket.socket, parent: int) -> NoReturn:
    try:
        os.setpgrp()
        worker.setup_work_horse_signals()
        shutdown.listen()
        random.seed()
        _refresh(worker)
        rehearse()
        end = time.monotonic() + LIFE
        while assignment := _next(worker, channel, parent):
            goes_on = _work(worker, *json.loads(assignment)) and time.monotonic() < end and not shutdown.is_requested()
            channel.sendall(GOES_ON if goes_on else ENDS)
            if not goes_on:
                break
    except Exception:
        # What RQ does with the job is logged by RQ. This happened outside, and nobody else would hear of it.
        logger.exception('standby=failed')
    finally:
        # Whatever happened: this process must not go on as a second worker.
        os._exit(1)


def _next(worker: Worker, channel: socket.socket, parent: int) -> bytes:
    """Return what the worker says next, nothing once it is gone."""
    while not select.select([channel], [], [], INTERVAL)[0]:
        if os.getppid() != parent:
            return b''
        _refresh(worker)
    try:
        return channel.recv(select.PIPE_BUF)
    except ConnectionResetError:
        return b''  # the worker went without reading what was said of the last job


def _work(worker: Worker, job_id: str, queue_name: str, execution_id: str) -> bool:
    """Do a job that is known by its ids, as RQ's SpawnWorker does. Returns whether it succeeded."""
    # The configuration may have been changed since the last one.
    clear_config()
    if not connection.is_usable():
        connection.close()
    shared = {'connection': worker.connection, 'serializer': worker.serializer}
    worker.execution = Execution.fetch(execution_id, job_id, worker.connection)
    job = worker.job_class.fetch(job_id, **shared)
    return worker.perform_job(job, worker.queue_class(queue_name, **shared))


def _refresh(worker: Worker) -> None:
    """Open the connections, anew those that were cut. What is not there now is tried again by the job."""
    try:
        if not connection.is_usable():
            connection.close()
            connection.ensure_connection()
        worker.connection.ping()
        queue.get().connection.ping()
    except (DatabaseError, InterfaceError, RedisError, OSError) as error:
        logger.warning('standby=waiting reason="%s"', str(error).strip())
