"""Senders: threads that make requests, of a webhook as many at a time as its `concurrency` allows.

What a worker holds beyond that waits here for a thread that has just had its answer: so an endpoint is never idle while
the worker records answers and claims more. The thread takes what is next of the webhook with the fewest requests under
way, so that no webhook waits for another one's queue.
"""

import threading
import time
from collections import Counter, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from ..transport.client import Client
from .claimed import Claimed

THREADS = 128
# Of these, those that a webhook gets for its first request only: so many may hang, and a change of another one can go.
SPARE = 64
# Seconds for which what was claimed waits here at most. Its webhook may be paused meanwhile, or its endpoint may hang.
LONGEST_QUEUED = 1.0
# Seconds after which a request may hang, and seconds without an answer after which nobody waits for more then.
LONG, QUIET = 0.25, 0.005


@dataclass
class _Queued:
    one: Claimed
    latest: float
    since: float


class Senders:
    """Requests under way and in the queue. All times are those of time.monotonic().

    Used by one thread, which hears of answers, and of anything else that is told to `tell`, by `wait`.
    """

    def __init__(self, client: Client, pool: ThreadPoolExecutor) -> None:
        self._client = client
        self._pool = pool
        self._changed = threading.Lock()
        # By webhook: what waits, how many requests are under way, and how many may be.
        self._queues: dict[int, deque[_Queued]] = defaultdict(deque)
        self._requests: Counter[int] = Counter()
        self._concurrency: dict[int, int] = {}
        self._threads = 0
        # By thread: when its request began.
        self._began: dict[int, float] = {}
        self._heard: SimpleQueue = SimpleQueue()
        self._is_idle = threading.Event()
        self._is_idle.set()
        # Held here: {id of the delivery: what was claimed}.
        self.under_way: dict[int, Claimed] = {}

    @property
    def free(self) -> int:
        """How many threads have nothing to do."""
        return THREADS - self._threads

    @property
    def webhooks(self) -> set[int]:
        """Ids of the webhooks with requests under way."""
        with self._changed:
            return {pk for pk, count in self._requests.items() if count}

    def begin(self, one: Claimed, latest: float) -> None:
        """Send a request as soon as its webhook has room for it, and not later than `latest`."""
        webhook = one.delivery.webhook
        self.under_way[one.delivery.pk] = one
        with self._changed:
            self._queues[webhook.pk].append(_Queued(one, latest, time.monotonic()))
            self._concurrency[webhook.pk] = webhook.concurrency
            if self._threads == THREADS or not self._has_room(webhook.pk, self._threads + 1):
                return
            self._threads += 1
            self._is_idle.clear()
        self._pool.submit(self._serve)

    def withdraw(self, since: float) -> list[Claimed]:
        """Take back what has been in the queue since then or longer."""
        with self._changed:
            late = [queued for queue in self._queues.values() for queued in queue if queued.since <= since]
            for queued in late:
                self._queues[queued.one.delivery.webhook_id].remove(queued)
            self._queues = defaultdict(deque, {pk: queue for pk, queue in self._queues.items() if queue})
        for queued in late:
            del self.under_way[queued.one.delivery.pk]
        return [queued.one for queued in late]

    def tell(self, what: Any) -> None:
        """Let the next `wait` return it."""
        self._heard.put(what)

    def wait(self, patience: float, gather: float) -> list[Any]:
        """Wait for the first answer for `patience` seconds, and for more for `gather` at most. Return all that came.

        Of an answer its Claimed, with the outcome; without one if it was too late to send it.
        """
        try:
            heard = [self._heard.get(timeout=patience) if patience else self._heard.get_nowait()]
        except Empty:
            return []
        self._gather(gather)
        while True:
            try:
                heard.append(self._heard.get_nowait())
            except Empty:
                return [self._taken(what) for what in heard]

    def _gather(self, seconds: float) -> None:
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

    def _taken(self, what: Any) -> Any:
        if isinstance(what, BaseException):
            raise what
        if isinstance(what, Claimed):
            del self.under_way[what.delivery.pk]
        return what

    def _serve(self) -> None:
        """Send one after the other, until nothing waits that may be sent now."""
        webhook_id = None
        try:
            while queued := self._next(webhook_id):
                webhook_id = queued.one.delivery.webhook_id
                # Whoever was frozen has lost the lease to others: it could end before the request does.
                if time.monotonic() < queued.latest:
                    queued.one.outcome = self._client.send(queued.one.request)
                self._heard.put(queued.one)
        except BaseException as error:
            self._heard.put(error)

    def _next(self, ended: int | None) -> _Queued | None:
        """Take what is next, after a request of that webhook has ended."""
        with self._changed:
            if ended is not None:
                self._requests[ended] -= 1
            ready = [pk for pk in self._queues if self._has_room(pk, self._threads)]
            if not ready:
                self._began.pop(threading.get_ident(), None)
                self._threads -= 1
                if not self._threads:
                    self._is_idle.set()
                return None
            webhook_id = min(ready, key=self._requests.__getitem__)
            self._requests[webhook_id] += 1
            self._began[threading.get_ident()] = time.monotonic()
            queued = self._queues[webhook_id].popleft()
            if not self._queues[webhook_id]:
                del self._queues[webhook_id]
            return queued

    def _has_room(self, webhook_id: int, threads: int) -> bool:
        """Whether another request of the webhook may be under way in so many threads."""
        under_way = self._requests[webhook_id]
        return under_way < self._concurrency[webhook_id] and (not under_way or threads <= THREADS - SPARE)
