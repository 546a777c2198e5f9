"""The supervisor: the process that an operator starts. It starts all others, and replaces dead ones.

Its only thread does nothing else, so it can fork at any time.
"""

import gc
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from django.db import DatabaseError, InterfaceError, connection
from django.urls import get_resolver
from django_rq.utils import reset_db_connections
from netbox.config import clear_config
from rq import Worker
from utilities.rqworker import NetBoxRQWorker

from .. import rescue, transactions
from . import dispatcher, sender
from .child import Child, begin
from .suspects import Suspects

logger = logging.getLogger('webhooks.worker')

# Seconds between two starts, doubled after each life shorter than LONGEST_PAUSE.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
INTERVAL = 1.0


class Post:
    """Has one process at a time."""

    def __init__(self, what: str, work: Callable[[str, socket.socket], object]) -> None:
        self.what = what
        self._work = work
        self.child: Child | None = None
        self._started = float('-inf')
        self._pause = PAUSE

    def fill(self) -> None:
        """Start a process, unless there is one or the last start was a moment ago."""
        if self.child or time.monotonic() < self._started + self._pause:
            return
        self._started = time.monotonic()
        self.child = begin(self.what, partial(Child, self.what, self._work))

    def lose(self) -> Child | None:
        """Return its process if that has ended."""
        if self.child is None or not self.child.has_ended():
            return None
        child, self.child = self.child, None
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if time.monotonic() < self._started + LONGEST_PAUSE else PAUSE
        logger.warning('process=%s ended reason="%s"', self.what, child.cause or '')
        return child


class Supervisor:
    """`worker`: as the operator started it. `others`: its queues beside ours.

    `publish` puts new failures on the status page.
    """

    def __init__(self, worker: Worker, others: Sequence[str], publish: Callable[[], None]) -> None:
        self._worker = worker
        self._others = others
        self._publish = publish
        self._stops = 0
        self._suspects: Suspects | None = None
        self._posts: list[Post] = []

    def run(self, *args, **options) -> bool:
        """Work until told to stop. Returns True, as RQ does."""
        # Once for all processes: it takes half a second. They share no connection or setting.
        get_resolver().url_patterns  # noqa: B018
        reset_db_connections()
        clear_config()
        gc.collect()
        gc.freeze()
        look, wake = os.pipe()
        os.set_blocking(wake, False)
        self._posts = [
            Post('dispatch', partial(dispatcher.serve, self._worker, options, partial(_poke, wake), self._publish)),
            Post('send', partial(sender.serve, look)),
        ]
        if self._others:
            self._posts.append(Post('others', partial(self._serve_others, args, options)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stops or self._suspects or any(post.child for post in self._posts):
            self._look()
        return True

    def _look(self) -> None:
        if not self._stops:
            for post in self._posts:
                post.fill()
        self._wait()
        for post in self._posts:
            if child := post.lose():
                _rescue(child.name)
                if post.what == 'others' and not self._stops and child.cause is None:
                    self._stop()  # any worker can be told to stop
            elif post.child and post.child.has_found_suspects:
                post.child.has_found_suspects = False
                if not self._suspects and not self._stops:
                    self._suspects = begin('suspects', Suspects)
        if self._suspects and not self._suspects.look():
            self._suspects = None
        connection.close()  # a fork must not share it

    def _wait(self) -> None:
        """Wait until a process has ended or said something."""
        children: list[Child] = [post.child for post in self._posts if post.child]
        if self._suspects and self._suspects.is_there:
            children.append(self._suspects)
        select.select([one for child in children for one in (child.handle, child.channel)], [], [], INTERVAL)

    def _stop(self, *_signal: object) -> None:
        """Tell all to stop. Told twice, they end at once."""
        self._stops += 1
        for post in self._posts:
            if post.child:
                post.child.signal(signal.SIGTERM if self._stops == 1 or post.what == 'others' else signal.SIGKILL)
        if self._suspects:
            self._suspects.signal(signal.SIGTERM)

    def _serve_others(self, args: Sequence[object], options: dict[str, object], *_child: object) -> None:
        own = dispatcher.make_like(self._worker, NetBoxRQWorker, self._others, self._worker.name)
        own.work(*args, **options)


def _poke(pipe: int) -> None:
    """Wake the sender. A full pipe does that already."""
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, b'+')


def _rescue(name: str) -> None:
    """Rescue a process's work. If PostgreSQL is away, others do it later."""
    try:
        rescue.rescue(name)
    except (DatabaseError, InterfaceError) as error:
        transactions.recover(error)
