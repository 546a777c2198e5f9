"""Runs requests in threads, to build or send them: for each webhook as many at a time as its window allows."""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .build import Sent


class Threads:
    """A pool of `most` threads that call `do` with each request, and `fail` with an exception that it raises.

    `is_idle` is set while nothing is under way. Webhooks have their turns: a thread goes on with another webhook after
    each request.
    """

    def __init__(self, most: int, name: str, do: Callable[[Sent], None], fail: Callable[[BaseException], None]) -> None:
        self.is_idle = threading.Event()
        self.is_idle.set()
        self._do = do
        self._fail = fail
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._lock = threading.Lock()
        # By webhook: requests that wait for a thread, and the number of busy threads.
        self._queues: defaultdict[int, deque[Sent]] = defaultdict(deque)
        self._busy: Counter[int] = Counter()
        # {request under way: since when}
        self._begun: dict[Sent, float] = {}

    @property
    def shared(self) -> int:
        """Return the number of busy threads, not counting one of each webhook."""
        with self._lock:
            return sum(count - 1 for count in self._busy.values() if count)

    @property
    def since(self) -> float:
        """Return when the oldest request under way began, by time.monotonic(). Without any, that is now."""
        with self._lock:
            return min(self._begun.values(), default=time.monotonic())

    def submit(self, sent: Sent, window: int = 1) -> None:
        """Let a thread do the request, as soon as fewer than `window` are busy for its webhook."""
        webhook_id = sent.delivery.webhook_id
        with self._lock:
            self._queues[webhook_id].append(sent)
            if self._busy[webhook_id] >= window:
                return
            self._busy[webhook_id] += 1
            self.is_idle.clear()
        self._pool.submit(self._serve, webhook_id)

    def withdraw(self) -> list[Sent]:
        """Take back all requests that wait for a thread, and return them."""
        with self._lock:
            return [queue.popleft() for queue in self._queues.values() for _ in range(len(queue))]

    def close(self) -> None:
        """Wait for requests under way, and drop the rest: no thread can go on, as submit() raises."""
        self._pool.shutdown()

    def _serve(self, webhook_id: int) -> None:
        with self._lock:
            queue = self._queues[webhook_id]
            if not queue or self._busy[webhook_id] > queue[0].lane.window:  # it has become smaller
                self._busy[webhook_id] -= 1
                if not self._busy.total():
                    self.is_idle.set()
                return
            sent = queue.popleft()
            self._begun[sent] = time.monotonic()
        try:
            self._do(sent)
        except BaseException as error:
            self._fail(error)
        with self._lock:
            del self._begun[sent]
        self._pool.submit(self._serve, webhook_id)  # behind other webhooks
