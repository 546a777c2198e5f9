"""Drain: one stretch of work. Events are dispatched and deliveries sent until nothing is due, or the time is up.

The main thread does all database work; the others only send. Claims follow the answers, so that a webhook whose
endpoint is slow holds no more than its own `concurrency` of the threads.
"""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from . import delivery, dispatch, queue
from .delivery import Sent, Tally
from .health import Ledger
from .models import Delivery, Webhook
from .pace import Pace
from .transport import Client

THREADS = 64
# Seconds to wait for more answers to record together with the first: a turn costs as much as ten deliveries.
GATHER = 0.01
# Seconds between two looks at a lock that another worker holds.
BUSY_PAUSE = 0.05
# Seconds to wait where a rate limit holds back what is due.
TOKEN_PAUSE = 0.05
# Seconds for which a webhook's definition is used without looking at it again.
DEFINITION_AGE = 1.0
# Longest wait for an answer before the loop looks for new work, in seconds.
POLL = 0.1


def run() -> Tally:
    """Do what there is to do, and return what was done."""
    queue.accept()
    with _drain() as drain:
        finished = drain.work()
    if not finished:
        queue.wake()
    return drain.tally


@contextmanager
def _drain() -> Iterator['Drain']:
    client = Client(THREADS)
    try:
        with ThreadPoolExecutor(THREADS, thread_name_prefix='webhooks-send') as pool:
            yield Drain(client, pool)
    finally:
        client.close()


class Drain:
    def __init__(self, client: Client, pool: ThreadPoolExecutor):
        self.tally = Tally()
        self._client = client
        self._pool = pool
        self._lease = uuid.uuid4()
        self._pace = Pace(time.monotonic())
        self._ledger = Ledger()
        self._under_way: dict[Future, Sent] = {}
        self._webhooks: dict[int, Webhook] = {}
        self._webhooks_at = 0.0

    def work(self) -> bool:
        """Work until nothing is left or the time is up. Returns whether nothing is left."""
        # First of all: somebody has just saved something.
        self._dispatch()
        while not self._pace.is_over(time.monotonic()) and delivery.tidy():
            pass
        finished, patience = False, 0.0
        while not finished and not self._pace.is_over(time.monotonic()):
            claimed = self._turn(self._collect(patience), THREADS - len(self._under_way))
            dispatched = not claimed and self._dispatch()
            finished = not (claimed or dispatched or self._under_way or self._wait_for_tokens())
            patience = 0.0 if dispatched else POLL
        while self._under_way:
            self._turn(self._collect(None), 0)
        with delivery.turn() as now:
            self._ledger.flush(now, force=True)
        return finished and not delivery.is_held_by_time(self._pace.span(time.monotonic()))

    def _dispatch(self) -> bool:
        """Dispatch a batch. Returns whether it is worth looking on."""
        progress = dispatch.batch()
        if progress is dispatch.Progress.BUSY:
            # Whoever holds the lock may have looked before our event was there.
            time.sleep(BUSY_PAUSE)
        return progress is not dispatch.Progress.NOTHING

    def _wait_for_tokens(self) -> bool:
        """Wait a moment where a rate limit holds something back. Returns whether one does."""
        held = delivery.is_held_by_rate(self._pace.span(time.monotonic()))
        if held:
            time.sleep(TOKEN_PAUSE)
        return held

    def _turn(self, ended: list[Sent], free: int) -> bool:
        """Record what has ended and claim what is due, as far as threads are free. Returns whether anything was."""
        with delivery.turn() as now:
            self.tally.counts.update(delivery.record(self._lease, ended, self._ledger, now).counts)
            claimed = delivery.claim(self._lease, free, self._pace.span(time.monotonic())) if free > 0 else []
        if not claimed:
            return False
        unsent = []
        for sent in delivery.prepare(claimed, self._definitions(claimed), time.time()):
            if sent.request is None:
                unsent.append(sent)
            else:
                self._send(sent)
        if unsent:
            self._turn(unsent, 0)
        return True

    def _send(self, sent: Sent) -> None:
        self._pace.begin(sent.delivery.pk, sent.request.timeout, time.monotonic())
        self._under_way[self._pool.submit(self._client.send, sent.request)] = sent

    def _collect(self, patience: float | None) -> list[Sent]:
        """Wait for answers and return the deliveries that have got theirs."""
        if not self._under_way:
            return []
        done, rest = wait(self._under_way, patience, FIRST_COMPLETED)
        if done and rest:
            done |= wait(rest, GATHER).done
        return [self._ended(future) for future in done]

    def _ended(self, future: Future) -> Sent:
        sent = self._under_way.pop(future)
        outcome = sent.outcome = future.result()
        self._pace.end(sent.delivery.pk, sent.delivery.webhook_id, outcome.duration)
        return sent

    def _definitions(self, claimed: list[Delivery]) -> dict[int, Webhook]:
        """Return the webhooks of the deliveries as they are defined now."""
        wanted = {one.webhook_id for one in claimed}
        if time.monotonic() - self._webhooks_at > DEFINITION_AGE or wanted - self._webhooks.keys():
            self._webhooks = Webhook.objects.select_related('health').in_bulk(wanted | self._webhooks.keys())
            self._webhooks_at = time.monotonic()
        return self._webhooks
