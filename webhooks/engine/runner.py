"""One job: events are dispatched and deliveries sent until nothing is due, or the time is up.

The main thread does all database work; the others only send. Claims follow the answers, so that a webhook whose
endpoint is slow holds no more than its own `concurrency` of the threads. Each round records, claims, builds and
dispatches a little, so that no backlog of the one holds up the other.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta

from django.db import DataError, connection

from ..constants import JOB_TIME, LEASE_MARGIN
from ..interruptions import BROKEN_OFF, INTERRUPTIONS
from ..models import Delivery, Webhook
from ..outbox import wakeup
from ..transport.client import Client
from ..transport.exchange import Outcome, Request
from . import claims, dispatch, expiry, locks, outcomes, rescue
from .claimed import Claimed, prepare
from .dispatch import Progress
from .job_time import Pace, Span
from .ledger import Ledger
from .outcomes import Judged, Tally

logger = logging.getLogger('webhooks.drain')

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
# Seconds that a round may spend on building requests, beyond the one that it is at.
BUILD_BUDGET = 0.1
# Seconds after which a request was slow to build, by a template for example: of its webhook one is claimed at a time.
SLOW_BUILD = 0.02
# Seconds for which a transaction that PostgreSQL broke off is tried again, and between two tries.
PATIENCE, RETRY_PAUSE = 60.0, 0.2
# Seconds for which dispatch rests after it was broken off, while sending goes on.
DISPATCH_REST = 5.0


def run() -> Tally:
    """Do what there is to do, and return what was done."""
    wakeup.accept()
    with _drain() as drain:
        finished = drain.work()
    if not finished:
        wakeup.wake(patient=True)
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
        self._ledger = Ledger()
        self._under_way: dict[Future, Claimed] = {}
        # Claimed and not begun in time: they go back.
        self._unbuilt: list[int] = []
        # Could not be built: to be recorded without a request.
        self._unsent: list[Claimed] = []
        self._slow_to_build: set[int] = set()
        self._webhooks: dict[int, Webhook] = {}
        self._webhooks_at = 0.0
        self._dispatch_from = 0.0
        self._to_tidy = [rescue.rescue, expiry.expire]

    def work(self) -> bool:
        """Work until nothing is left or the time is up. Returns whether nothing is left."""
        # First of all: somebody has just saved something. A new process is slow at it: the job's time begins after.
        self._dispatch()
        self._pace = Pace(time.monotonic())
        self._begin_lapsed(timedelta(seconds=JOB_TIME))
        finished, patience = False, 0.0
        while not finished and (self._has_begun() or not self._is_over()):
            is_over = self._is_over()
            claimed = self._turn(self._collect(patience), 0 if is_over else THREADS - len(self._under_way))
            patience = POLL
            if is_over:
                continue
            progress, tidied = self._dispatch(), self._tidy()
            goes_on = claimed or tidied or progress is not Progress.NOTHING or self._has_begun()
            finished = not (goes_on or self._begin_lapsed() or self._wait_for_tokens())
            if tidied or progress is Progress.DONE or self._unsent or self._unbuilt:
                patience = 0.0
        self._persist(self._flush)
        return finished and not self._persist(lambda: claims.is_held_by_time(self._span()))

    def _has_begun(self) -> bool:
        """Whether something is held that has to be recorded or given back."""
        return bool(self._under_way or self._unsent or self._unbuilt)

    def _tidy(self) -> bool:
        """Do a little of what is left to tidy. Returns whether there may be more: not all at once, others wait."""
        for tidy in list(self._to_tidy):
            try:
                if self._persist(tidy):
                    return True
            except INTERRUPTIONS:
                raise
            except Exception:
                logger.exception('%s=failed', tidy.__name__)
            self._to_tidy.remove(tidy)
        return False

    def _is_over(self) -> bool:
        return self._pace.is_over(time.monotonic())

    def _span(self) -> Span:
        return self._pace.span(time.monotonic())

    #
    # Events
    #

    def _dispatch(self) -> Progress:
        """Dispatch a batch. One that PostgreSQL breaks off is tried again after a while: what is due goes out first."""
        if time.monotonic() < self._dispatch_from:
            return Progress.NOTHING
        try:
            progress = dispatch.batch()
        except BROKEN_OFF as error:
            _broken_off(error)
            self._dispatch_from = time.monotonic() + DISPATCH_REST
            dispatch.be_more_patient()
            return Progress.NOTHING
        if progress is Progress.BUSY and not self._under_way:
            # Whoever holds the lock may have looked before our event was there.
            time.sleep(BUSY_PAUSE)
        return progress

    #
    # Turns
    #

    def _turn(self, ended: list[Claimed], free: int) -> bool:
        """Record what has ended and begin what is due, as far as threads are free. Returns whether anything was."""
        ended = ended + self._unsent
        unbuilt, self._unsent, self._unbuilt = self._unbuilt, [], []
        claimed_at = time.monotonic()
        try:
            claimed = self._persist(lambda: self._record_and_claim(ended, unbuilt, free))
        except DataError:
            for one in ended:
                self._record_alone(one)
            claimed = self._persist(lambda: self._record_and_claim([], unbuilt, free))
        self._begin(claimed, claimed_at)
        return bool(claimed)

    def _record_and_claim(self, ended: list[Claimed], unbuilt: list[int], free: int) -> list[int]:
        # A copy: if the turn is broken off and done again, nothing is counted twice.
        ledger = self._ledger.copy()
        with locks.turn() as now:
            tally = outcomes.record(self._lease, ended, ledger, now)
            claims.give_back(self._lease, unbuilt, now)
            claimed = []
            if free > 0:
                claimed = claims.claim(self._lease, free, now, self._span(), self._slow_to_build)
        self._ledger = ledger
        self.tally.counts.update(tally.counts)
        return claimed

    def _begin_lapsed(self, since: timedelta = timedelta()) -> bool:
        """Begin one that may have stopped a worker, and has been due `since` then. Returns whether there was one.

        Only while nothing else is under way. Where that never happens, each job begins with one.
        """
        claimed_at = time.monotonic()
        claimed = self._persist(lambda: self._claim_lapsed(since))
        self._begin(claimed, claimed_at)
        return bool(claimed)

    def _claim_lapsed(self, since: timedelta) -> list[int]:
        with locks.turn() as now:
            return claims.claim_lapsed(self._lease, now, self._span(), now - since)

    def _record_alone(self, one: Claimed) -> None:
        """Record an outcome beside others which PostgreSQL did not take. It is taken, or it is the one to blame."""
        try:
            self._persist(lambda: self._record_and_claim([one], [], 0))
        except DataError as error:
            logger.exception('delivery=%s its outcome cannot be recorded', one.delivery.uuid)
            failed = outcomes.fail(one, error)
            self._persist(lambda: self._record_failed(failed))

    def _record_failed(self, failed: Judged) -> None:
        with locks.turn() as now:
            tally = outcomes.record_judged(self._lease, [failed], self._ledger, now)
        self.tally.counts.update(tally.counts)

    def _flush(self) -> None:
        with locks.turn() as now:
            self._ledger.flush(now, force=True)

    def _persist(self, transaction: Callable):
        """Do a transaction again that PostgreSQL broke off, for what it was about to record is known only here."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return transaction()
            except BROKEN_OFF as error:
                _broken_off(error)
                if time.monotonic() > end:
                    raise
            time.sleep(RETRY_PAUSE)

    def _wait_for_tokens(self) -> bool:
        """Wait a moment where a rate limit holds something back. Returns whether one does."""
        held = self._persist(lambda: claims.is_held_by_rate(self._span()))
        if held:
            time.sleep(TOKEN_PAUSE)
        return held

    #
    # Requests
    #

    def _begin(self, claimed: list[int], claimed_at: float) -> None:
        """Build and send what was claimed, what is built soon first. What would keep the others waiting goes back."""
        found = self._persist(lambda: claims.fetch(claimed))
        webhooks = self._persist(lambda: self._definitions(found))
        # A webhook may have been deleted, and its deliveries with it, since they were claimed.
        there = [one for one in found if one.webhook_id in webhooks]
        there.sort(key=lambda each: each.webhook_id in self._slow_to_build)
        end = time.monotonic() + BUILD_BUDGET
        for position, delivery in enumerate(there):
            if position and time.monotonic() > end:
                self._unbuilt += [late.pk for late in there[position:]]
                return
            one = self._build(delivery, webhooks[delivery.webhook_id])
            if one.request is None:
                self._unsent.append(one)
            else:
                self._send(one, claimed_at + LEASE_MARGIN)

    def _build(self, delivery: Delivery, webhook: Webhook) -> Claimed:
        began = time.monotonic()
        one = prepare(delivery, webhook, time.time())
        if time.monotonic() - began > SLOW_BUILD:
            self._slow_to_build.add(webhook.pk)
        else:
            self._slow_to_build.discard(webhook.pk)
        return one

    def _send(self, one: Claimed, latest: float) -> None:
        self._pace.begin(one.delivery.pk, one.request.timeout, time.monotonic())
        self._under_way[self._pool.submit(self._ask, one.request, latest)] = one

    def _ask(self, request: Request, latest: float) -> Outcome | None:
        """Send the request, unless its lease could end before it does: whoever was frozen has lost it to others."""
        return self._client.send(request) if time.monotonic() < latest else None

    def _collect(self, patience: float | None) -> list[Claimed]:
        """Wait for answers and return the deliveries that have got theirs."""
        if not self._under_way:
            return []
        done, rest = wait(self._under_way, patience, FIRST_COMPLETED)
        if done and rest:
            done |= wait(rest, GATHER).done
        return [one for future in done if (one := self._ended(future))]

    def _ended(self, future: Future) -> Claimed | None:
        one = self._under_way.pop(future)
        one.outcome = future.result()
        if one.outcome is None:
            logger.warning('delivery=%s lease=lapsed (it is not sent from here)', one.delivery.uuid)
            self._unbuilt.append(one.delivery.pk)
            self._pace.end(one.delivery.pk, one.delivery.webhook_id, 0)
            return None
        self._pace.end(one.delivery.pk, one.delivery.webhook_id, one.outcome.duration)
        return one

    def _definitions(self, claimed: list[Delivery]) -> dict[int, Webhook]:
        """Return the webhooks of the deliveries as they are defined now."""
        wanted = {one.webhook_id for one in claimed}
        if time.monotonic() - self._webhooks_at > DEFINITION_AGE or wanted - self._webhooks.keys():
            self._webhooks = Webhook.objects.select_related('health').in_bulk(wanted | self._webhooks.keys())
            self._webhooks_at = time.monotonic()
        return self._webhooks


def _broken_off(error: Exception) -> None:
    logger.warning('transaction=broken off reason="%s" (it is done again)', str(error).strip())
    if not connection.is_usable():
        connection.close()
