"""The supervisor: the process that an operator has started. It starts the others, and starts anew what dies.

    supervisor ── dispatcher     RQ's worker of our queue
              ├── sender
              ├── suspects       only while there are any
              └── other queues   RQ's worker of these, if it serves others

It has one thread, and does nothing else: so it can fork at any time, and tells at once what a dead process had in hand.
The kernel ends the others where it dies itself.
"""

import gc
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from django.db import DatabaseError, InterfaceError, connection
from django.urls import get_resolver
from django_rq import get_worker
from django_rq.utils import reset_db_connections
from netbox.config import clear_config
from rq import Worker
from utilities.rqworker import NetBoxRQWorker

from ...templating.process import fork
from .. import registry, transactions
from . import dispatcher, sender
from .inline import name
from .suspects import Suspects

logger = logging.getLogger('webhooks.worker')

# Seconds between two starts of a process, doubled with each that lived for less than the longest.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
# Seconds between two looks at everything.
INTERVAL = 1.0


class Child:
    """A process that is started again when it dies."""

    def __init__(self, what: str, work: Callable[[str], object]) -> None:
        self.what = what
        self._work = work
        self.handle: int | None = None
        self._started = -math.inf
        self._pause = PAUSE
        self._name = ''
        self.was_killed = False

    def start(self) -> None:
        """Start it, unless it is there, or was started a moment ago."""
        if self.handle is not None or time.monotonic() < self._started + self._pause:
            return
        self._started = time.monotonic()
        self._name = name(self.what)
        try:
            channel, self.handle = fork(lambda _channel: self._work(self._name))
        except OSError as error:
            logger.warning('process=%s failed reason="%s" (it is tried again)', self.what, error)
            return
        channel.close()

    def has_ended(self) -> bool:
        """Note its end. What it had in hand is a suspect from now on."""
        ended = os.waitid(os.P_PIDFD, self.handle, os.WEXITED | os.WNOHANG)
        if ended is None:
            return False
        self.was_killed = ended.si_code != os.CLD_EXITED
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if time.monotonic() < self._started + LONGEST_PAUSE else PAUSE
        handle, self.handle = self.handle, None
        os.close(handle)
        _rescue(self._name)
        return True

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self.handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, number)


class Supervisor:
    """`worker`: the one that was to be started. `others`: names of queues that it serves beside ours.

    `publish` puts new failures on the status page.
    """

    def __init__(self, worker: Worker, others: Sequence[str], publish: Callable[[], None]) -> None:
        self._worker = worker
        self._others = others
        self._publish = publish
        self._stops = 0
        self._suspects: Suspects | None = None
        self._children: list[Child] = []

    def run(self, *args, **options) -> bool:
        """Work until told to stop. Returns True, as a worker that has done something."""
        # Once for all processes: it takes half a second. A connection or a setting would be shared by all.
        get_resolver().url_patterns  # noqa: B018
        reset_db_connections()
        clear_config()
        gc.collect()
        gc.freeze()
        look, wake = os.pipe()
        os.set_blocking(wake, False)
        wanted, want = os.pipe()
        os.set_blocking(wanted, False)
        os.set_blocking(want, False)
        self._children = [
            Child('dispatch', partial(dispatcher.serve, self._worker, options, partial(_poke, wake), self._publish)),
            Child('send', partial(sender.serve, look, partial(_poke, want))),
        ]
        if self._others:
            self._children.append(Child('others', partial(self._serve_others, args, options)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while self._goes_on():
            self._look(wanted)
        return True

    def _goes_on(self) -> bool:
        return (
            not self._stops or any(child.handle is not None for child in self._children) or self._suspects is not None
        )

    def _look(self, wanted: int) -> None:
        if not self._stops:
            for child in self._children:
                child.start()
        handles = [child.handle for child in self._children if child.handle is not None]
        if self._suspects and not self._suspects.has_ended:
            handles.append(self._suspects.handle)
        readable, *_ = select.select([*handles, wanted], [], [], INTERVAL)
        for child in self._children:
            if child.handle in readable and child.has_ended():
                logger.warning('process=%s ended', child.what)
                if child.what == 'others' and not child.was_killed and not self._stops:
                    self._stop()  # it was told to stop, as any worker can be
        if wanted in readable:
            os.read(wanted, 4096)
            self._try_suspects()
        if self._suspects and not _persist(self._suspects.look, otherwise=True):
            self._suspects = None

    def _try_suspects(self) -> None:
        if self._suspects or self._stops:
            return
        try:
            self._suspects = Suspects(name('suspects'))
        except OSError as error:
            logger.warning('suspects=failed reason="%s" (they wait)', error)

    def _stop(self, *_signal: object) -> None:
        """Tell all to stop. Told twice, they end at once."""
        self._stops += 1
        for child in self._children:
            child.signal(signal.SIGTERM if self._stops == 1 or child.what == 'others' else signal.SIGKILL)
        if self._suspects:
            self._suspects.signal(signal.SIGTERM)

    def _serve_others(self, args: Sequence[object], options: dict[str, object], _name: str) -> None:
        worker = get_worker(
            *self._others,
            worker_class=NetBoxRQWorker,
            queue_class=self._worker.queue_class,
            job_class=self._worker.job_class,
            name=self._worker.name,
            worker_ttl=self._worker.worker_ttl,
            serializer=self._worker.serializer,
        )
        worker.work(*args, **options)


def _poke(pipe: int) -> None:
    """Let the other end look. One that is full has been told."""
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, b'+')


def _rescue(worker: str) -> None:
    _persist(lambda: registry.rescue(worker), otherwise=False)


def _persist[T](step: Callable[[], T], otherwise: T) -> T:
    """Do what needs PostgreSQL, whose connection no process that is forked later may share.

    Returns `otherwise` where PostgreSQL is away: what a process had in hand is found when its time is over.
    """
    try:
        return step()
    except (DatabaseError, InterfaceError) as error:
        transactions.recover(error)
        return otherwise
    finally:
        connection.close()
