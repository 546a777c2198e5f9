"""Builds the request of a delivery, sends it, and keeps the outcome. Threads do it, or the sender itself."""

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

from ...exceptions import DefinitionError
from ...interruptions import Shortage
from ...models import Delivery
from ...payload.authorization import TokenPending, TokenRequest
from ...payload.http_request import Builder
from ...security.references import SecretUnavailable
from ...storable import storable
from ...transport.exchange import MAX_ERROR_CHARS, Outcome, Request
from .. import sql
from . import change_sets
from .lane import Lane

logger = logging.getLogger('webhooks.delivery')


@dataclass(eq=False)
class Call:
    """A call of the receiver for a delivery: it is built, sent once, and then has its outcome.

    `others` go out in the same request, under its id.

    Without a `request` it is still to be built, or the outcome says why it cannot be. A request may ask for an access
    token.
    """

    delivery: Delivery
    builder: Builder
    others: Sequence[Delivery] = ()
    request: Request | None = None
    outcome: Outcome | None = None
    # The worker's lane. None: it is sent without one, as suspects and tests are.
    lane: Lane | None = None
    # Time that the last build took.
    seconds: float = 0.0

    @property
    def deliveries(self) -> list[Delivery]:
        """Return all deliveries of the request. The first gives the request its id."""
        return [self.delivery, *self.others]

    @property
    def pks(self) -> list[int]:
        """Return the ids of all deliveries of the request, as in `deliveries`."""
        return [one.pk for one in self.deliveries]

    @property
    def goes_again(self) -> bool:
        """Whether this attempt does not count: it has no outcome, or this machine was short of processes or memory."""
        return self.outcome is None or self.outcome.starved

    def build(self) -> bool:
        """Build the request from the builder's definition. Returns whether there is one to send.

        If not, the outcome says why it fails. Without an outcome it goes again: another worker gets the access token.
        Raises INTERRUPTIONS, but not Shortage.
        """
        began = time.monotonic()
        try:
            self.request = self._build(time.time())
        finally:
            self.seconds = time.monotonic() - began
        return self.request is not None

    def send(self, send: Callable[[Request], Outcome]) -> None:
        """Send the request with this function, and keep its outcome. It touches no database."""
        self.outcome = send(self.request)

    def update_token(self) -> None:
        """Keep a new access token, or forget one that was refused (401). To be called once after send().

        Then there is no outcome: the deliveries go again, with the next token. The same happens if PostgreSQL
        interrupts it.
        """
        outcome, self.outcome = self.outcome, None
        with sql.may_break_off():
            if isinstance(self.request, TokenRequest) and outcome:
                outcome = self.request.grant.store(outcome)
            elif self.request and outcome and outcome.status == HTTPStatus.UNAUTHORIZED:
                outcome = None if self.builder.forget_token(self.request) else outcome
            self.outcome = outcome

    def _build(self, now: float) -> Request | None:
        for one in self.deliveries:
            one.webhook = self.builder.webhook
        before = sql.session()
        try:
            together = change_sets.in_order(self.deliveries)
            return self.builder.build(self.delivery, now, [one.event_as_sent for one in together])
        except TokenPending:
            return None
        except Shortage as error:
            self.outcome = Outcome(started_at=now, duration=0, error=str(error), starved=True)
            return None
        except SecretUnavailable as error:
            self.outcome = Outcome(started_at=now, duration=0, error=storable(str(error)), withheld=True)
            return None
        except DefinitionError as error:
            reason = self.delivery.event.error or f'not sent: {error.field}: {error}'
        except Exception as error:
            if sql.is_broken_off(error, before):
                raise
            # A plugin's callback may raise anything. So any error fails the deliveries of this request only.
            logger.exception('delivery=%s cannot be built', self.delivery.uuid)
            reason = f'not sent: {type(error).__name__}: {error}'
        self.outcome = Outcome(started_at=now, duration=0, error=storable(reason)[:MAX_ERROR_CHARS], unsendable=True)
        return None


class Threads:
    """A pool of `most` threads that build or send requests: for each webhook as many at a time as its window allows.

    They call `do` with each request, and `fail` with an exception that it raises. `is_idle` is set while nothing is
    under way. Webhooks take turns: a thread goes on with another webhook after each request.
    """

    def __init__(self, most: int, name: str, do: Callable[[Call], None], fail: Callable[[BaseException], None]) -> None:
        self.is_idle = threading.Event()
        self.is_idle.set()
        self._do = do
        self._fail = fail
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._pool.submit(bool)  # starts a thread, which stays
        self._lock = threading.Lock()
        # By webhook: requests that wait for a thread, and the number of busy threads.
        self._queues: defaultdict[int, deque[Call]] = defaultdict(deque)
        self._busy: Counter[int] = Counter()
        # {request under way: since when}
        self._begun: dict[Call, float] = {}

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

    def submit(self, call: Call, window: int = 1) -> None:
        """Let a thread do the request, as soon as fewer than `window` are busy for its webhook."""
        webhook_id = call.delivery.webhook_id
        with self._lock:
            self._queues[webhook_id].append(call)
            if self._busy[webhook_id] >= window:
                return
            self._busy[webhook_id] += 1
            self.is_idle.clear()
        try:
            self._pool.submit(self._serve, webhook_id)
        except RuntimeError as error:
            # This machine can start no thread now. But the pool has queued the work for those that it has.
            logger.warning('webhook=%s waits for a thread reason="%s"', webhook_id, error)

    def withdraw(self) -> list[Call]:
        """Take back all requests that wait for a thread, and return them."""
        with self._lock:
            return [queue.popleft() for queue in self._queues.values() for _ in range(len(queue))]

    def close(self) -> None:
        """Wait for requests under way, and drop the rest: no thread can go on, as submit() raises."""
        self._pool.shutdown()

    def _serve(self, webhook_id: int) -> None:
        with self._lock:
            if self._leave_if_done(webhook_id):
                return
            call = self._queues[webhook_id].popleft()
            self._begun[call] = time.monotonic()
        try:
            self._do(call)
        except BaseException as error:
            self._fail(error)
        with self._lock:
            del self._begun[call]
            if self._leave_if_done(webhook_id):
                return
        self._pool.submit(self._serve, webhook_id)  # behind other webhooks

    def _leave_if_done(self, webhook_id: int) -> bool:
        """Let this thread leave the webhook if it has no request for it, or a smaller window. Returns whether it left.

        The caller has the lock.
        """
        queue = self._queues[webhook_id]
        if queue and self._busy[webhook_id] <= queue[0].lane.window:
            return False
        self._busy[webhook_id] -= 1
        if not self._busy.total():
            self.is_idle.set()
        return True
