"""Starts all other processes of a worker, and replaces dead ones. It has one thread, so it can fork at any time."""

import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from django.db import DatabaseError, InterfaceError, connection
from django.urls import get_resolver
from netbox.config import clear_config
from rq import Worker

from ... import patience
from ...default_database import pinned
from .. import rescue, sql
from . import dispatcher, sender, suspects
from .child import Child, is_stopping

# It looks at its processes this often, even if none has reported anything.
LOOK_SECONDS = 1.0
# A rescue's connection may fall silent. After this time it is tried with a new one.
RESCUE_SECONDS = 15.0


class Supervisor:
    """The process that the operator started, if it serves our queue. It only watches the processes that work.

    `worker`: RQ's worker, as the operator started it. `others`: its queues beside ours. `publish` puts new failures on
    the status page.
    """

    def __init__(self, worker: Worker, others: Sequence[str], publish: Callable[[], None]) -> None:
        self._worker = worker
        self._others = others
        self._publish = publish
        self._stops = 0
        self._children: list[Child] = []
        self._suspects = Child('suspects', suspects.serve)
        # Name and cause of each process whose work is still to be rescued.
        self._ended: list[tuple[str, str | None]] = []

    def run(self, *args, **options) -> bool:
        """Run all processes until a signal (SIGTERM, SIGINT) has stopped them. Returns True, as RQ does.

        It gets the arguments of RQ's Worker.work(). A second signal kills the processes that are ours.
        """
        sql.bound_connections()
        # Loading the pages and their names takes a second. So it is done before all forks. These share no connection or
        # setting.
        get_resolver().reverse_dict  # noqa: B018
        clear_config()
        look, wake = os.pipe()
        os.set_blocking(wake, False)
        self._children = [
            Child('dispatch', partial(dispatcher.serve, self._worker, options, partial(_poke, wake), self._publish)),
            Child('send', partial(sender.serve, look)),
        ]
        if self._others:
            self._children.append(Child('others', partial(self._serve_others, args, options)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stops or self._running:
            self._look()
        self._worker.log.info('Worker %s: has ended', self._worker.name)
        return True

    @property
    def _running(self) -> list[Child]:
        return [child for child in (*self._children, self._suspects) if child.is_running]

    def _look(self) -> None:
        for child in self._children:
            self._start(child)
        # Wait until a process has ended or reported something.
        heard = [one for child in self._running for one in (child.handle, child.channel)]
        select.select(heard, [], [], LOOK_SECONDS)
        for child in self._running:
            if child.has_ended():
                self._ended.append((child.name, child.cause))
                if child.what == 'others' and not self._stops and child.cause is None:
                    self._stop()  # somebody has stopped that worker
            elif child.has_found_suspects():
                self._start(self._suspects)
        self._rescue()
        connection.close()  # a fork must not share it

    def _start(self, child: Child) -> None:
        if self._stops:
            return
        child.start()
        if self._stops:
            # The signal came before the new process was known, and RQ ignores a second signal within a second.
            self._signal_all()

    def _rescue(self) -> None:
        """Rescue the work of processes that have ended, until PostgreSQL is away or a suspect's lane stays locked.

        Then that process comes last in the next call.
        """
        while self._ended:
            name, cause = self._ended.pop(0)
            try:
                with patience.within(RESCUE_SECONDS), pinned():
                    rescue.rescue(name, None if self._stops else cause)
            except (DatabaseError, InterfaceError, patience.TooSlow) as error:
                sql.recover(error)
                self._ended.append((name, cause))
                return

    def _stop(self, *_signal: object) -> None:
        """Stop the processes: it is the handler of signals. The second one ends them at once."""
        self._stops += 1
        self._signal_all()

    def _signal_all(self) -> None:
        for child in self._running:
            child.signal(signal.SIGTERM if self._stops == 1 or child.what == 'others' else signal.SIGKILL)

    def _serve_others(self, args: Sequence[object], options: dict[str, object], *_child: object) -> None:
        own = dispatcher.make_like(self._worker, dispatcher.OthersWorker, self._others)
        own.work(*args, **options)
        if not is_stopping():
            os._exit(os.EX_TEMPFAIL)  # RQ gave up


def _poke(pipe: int) -> None:
    """Wake the sender. If the pipe is full, it is awake, or will be."""
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, b'+')
