"""Threads that make requests, of a webhook as many at a time as its window allows.

What is in hand beyond that waits here for a thread that has just had its answer: so an endpoint is not idle while the
worker records answers. All times are those of time.monotonic().
"""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from ...transport.client import Client
from .sent import Sent

# Requests under way, beside one of each webhook that has no other.
MOST = 128
# Threads at most: a webhook without any request under way gets one more.
LIMIT = 2000
# Seconds after which a request may hang, and without an answer after which nobody waits for more then.
LONG, QUIET = 0.25, 0.005


class Threads:
    """Requests under way and in the queue.

    Used by one thread, which hears by `wait` of answers, and of anything else that is told. `until` says when nothing
    more may begin.
    """

    def __init__(self, client: Client, until: Callable[[], float]) -> None:
        self._client = client
        self._until = until
        self._pool = ThreadPoolExecutor(LIMIT, thread_name_prefix='webhooks-send')
        self._changed = threading.Lock()
        # By webhook: what waits, how many requests are under way, and how many may be.
        self._queues: dict[int, deque[Sent]] = defaultdict(deque)
        self._requests: Counter[int] = Counter()
        self._windows: dict[int, int] = {}
        self._total = 0
        # By thread: when its request began.
        self._began: dict[int, float] = {}
        self._heard: SimpleQueue = SimpleQueue()
        self._is_idle = threading.Event()
        self._is_idle.set()

    @property
    def free(self) -> int:
        """How many more requests may be under way."""
        return MOST - self._total

    def close(self) -> None:
        """Let what is in the queue go nowhere, and wait for what is under way."""
        with self._changed:
            self._queues.clear()
        self._pool.shutdown()

    def begin(self, webhook_id: int, sent: Sent, window: int) -> None:
        """Send a request as soon as its webhook has room for it."""
        with self._changed:
            self._queues[webhook_id].append(sent)
            self._windows[webhook_id] = window
            if not self._has_room(webhook_id):
                return
        self._pool.submit(self._serve, webhook_id)

    def withdraw(self) -> list[Sent]:
        """Take back what is in the queue."""
        with self._changed:
            late = [sent for queue in self._queues.values() for sent in queue]
            self._queues.clear()
        return late

    def tell(self, what: Any) -> None:
        """Let the next `wait` return it."""
        self._heard.put(what)

    def wait(self, patience: float, gather: float) -> list[Any]:
        """Wait so long for the first that is told, and for more at most as `gather` says. Return all that came."""
        try:
            heard = [self._heard.get(timeout=patience) if patience > 0 else self._heard.get_nowait()]
        except Empty:
            return []
        self._gather(gather)
        while True:
            try:
                heard.append(self._heard.get_nowait())
            except Empty:
                break
        for what in heard:
            if isinstance(what, BaseException):
                raise what
        return heard

    def _gather(self, seconds: float) -> None:
        """Wait for more answers to record together. Where requests hang, not for these."""
        if not self._may_any_hang():
            self._is_idle.wait(seconds)
            return
        end, count = time.monotonic() + seconds, -1
        while count < self._heard.qsize() and (left := end - time.monotonic()) > 0:
            count = self._heard.qsize()
            if self._is_idle.wait(min(left, QUIET)):
                return

    def _may_any_hang(self) -> bool:
        latest = time.monotonic() - LONG
        with self._changed:
            return any(began < latest for began in self._began.values())

    def _serve(self, webhook_id: int) -> None:
        """Send one after the other, until nothing waits that may be sent now."""
        sent = None
        try:
            while sent := self._next(webhook_id):
                # After the worker's time others may have it: its outcome could not be recorded.
                if time.monotonic() < self._until():
                    sent.outcome = self._client.send(sent.request)
                self._heard.put(sent)
                self._end(webhook_id)
        except BaseException as error:
            self._heard.put(error)

    def _next(self, webhook_id: int) -> Sent | None:
        with self._changed:
            if not self._queues[webhook_id] or not self._has_room(webhook_id):
                return None
            self._requests[webhook_id] += 1
            self._total += 1
            self._is_idle.clear()
            self._began[threading.get_ident()] = time.monotonic()
            return self._queues[webhook_id].popleft()

    def _end(self, webhook_id: int) -> None:
        with self._changed:
            self._requests[webhook_id] -= 1
            self._total -= 1
            if not self._total:
                self._is_idle.set()
            del self._began[threading.get_ident()]

    def _has_room(self, webhook_id: int) -> bool:
        """Whether another request of the webhook may be under way."""
        under_way = self._requests[webhook_id]
        return under_way < self._windows[webhook_id] and (not under_way or self._total < MOST)
