"""The supervisor starts all other processes, and replaces dead ones. It has one thread, so it can fork at any time."""

import gc
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from django.db import DatabaseError, InterfaceError, connection
from django.urls import get_resolver
from netbox.config import clear_config
from rq import Worker

from .. import rescue, transactions
from . import dispatcher, sender, suspects
from .child import Child, Work, begin, is_stopping

logger = logging.getLogger('webhooks.worker')

# Seconds between two starts, doubled after each short life.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
INTERVAL = 1.0


class Post:
    def __init__(self, what: str, work: Work) -> None:
        self.what = what
        self._work = work
        self.child: Child | None = None
        self._started = float('-inf')
        self._pause = PAUSE

    def fill(self) -> None:
        since = time.monotonic() - self._started
        if self.child or since < self._pause:
            return
        self._pause = PAUSE if since > 2 * self._pause else min(2 * self._pause, LONGEST_PAUSE)
        self._started = time.monotonic()
        self.child = begin(self.what, self._work)

    def lose(self) -> Child | None:
        if self.child is None or not self.child.has_ended():
            return None
        child, self.child = self.child, None
        if child.cause:
            logger.warning('process=%s ended reason="%s"', self.what, child.cause)
        return child


class Supervisor:
    """`worker`: as the operator started it. `others`: its queues beside ours."""

    def __init__(self, worker: Worker, others: Sequence[str], publish: Callable[[], None]) -> None:
        self._worker = worker
        self._others = others
        self._publish = publish
        self._stops = 0
        self._posts: list[Post] = []
        self._ended: list[Child] = []
        self._suspects = Post('suspects', suspects.serve)

    def run(self, *args, **options) -> bool:
        """Returns True, as RQ does."""
        # Once for all processes: it takes half a second. They share no connection or setting.
        get_resolver().url_patterns  # noqa: B018
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
        while not self._stops or self._present:
            self._look()
        return True

    @property
    def _present(self) -> list[Post]:
        return [post for post in (*self._posts, self._suspects) if post.child]

    def _look(self) -> None:
        if not self._stops:
            for post in self._posts:
                self._fill(post)
        # Until a process has ended or said something.
        heard = [one for post in self._present for one in (post.child.handle, post.child.channel)]
        select.select(heard, [], [], INTERVAL)
        for post in self._present:
            if child := post.lose():
                self._ended.append(child)
                if post.what == 'others' and not self._stops and child.cause is None:
                    self._stop()  # any worker can be told to stop
            elif post.child.has_found_suspects() and not self._stops:
                self._fill(self._suspects)
        self._rescue()
        connection.close()  # a fork must not share it

    def _fill(self, post: Post) -> None:
        post.fill()
        if self._stops:
            self._tell()  # it came before the new process was known; RQ ignores a second signal within a second

    def _rescue(self) -> None:
        """Until PostgreSQL is away, or somebody holds a suspect's lane: next time the others come first."""
        while self._ended:
            child = self._ended.pop(0)
            try:
                rescue.rescue(child.name, None if self._stops else child.cause)
            except (DatabaseError, InterfaceError) as error:
                transactions.recover(error)
                self._ended.append(child)
                return

    def _stop(self, *_signal: object) -> None:
        """Told twice, they end at once."""
        self._stops += 1
        self._tell()

    def _tell(self) -> None:
        for post in self._present:
            post.child.signal(signal.SIGTERM if self._stops == 1 or post.what == 'others' else signal.SIGKILL)

    def _serve_others(self, args: Sequence[object], options: dict[str, object], *_child: object) -> None:
        own = dispatcher.make_like(self._worker, dispatcher.OthersWorker, self._others)
        own.work(*args, **options)
        if not is_stopping():
            os._exit(os.EX_TEMPFAIL)  # RQ gave up


def _poke(pipe: int) -> None:
    """A full pipe wakes the sender already."""
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, b'+')
