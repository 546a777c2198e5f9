"""One job: events are dispatched and deliveries sent until nothing is due, or the time is up.

The main thread does the engine's work in the database; others send, and two build what has a template. Claims follow
the answers, so that a slow endpoint holds no more than its webhook's `concurrency` of the threads. Each round records,
claims and dispatches a little, so that no backlog of the one holds up the other.
"""

import itertools
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from functools import partial

from django.db import DataError

from ..choices import StatusChoices
from ..constants import GONE, LEASE_MARGIN
from ..interruptions import BROKEN_OFF, INTERRUPTIONS
from ..outbox import wakeup
from . import backfill, claims, crew, expiry, gone, lanes, memory, outcomes, purge, rescue, shutdown
from .building import Built
from .claimed import Claimed
from .claims import Claim
from .crew import Crew
from .definitions import Definitions
from .dispatch import Dispatcher
from .job_time import Pace, Span
from .ledger import Ledger
from .outcomes import Judge, Tally
from .senders import LONGEST_QUEUED, SPARE, THREADS
from .share import Share

logger = logging.getLogger('webhooks.drain')

# Deliveries that a job holds at most.
MOST_HELD = 4 * (THREADS - SPARE)
# Of the threads, those that no backfill is sent by, beside the spare ones: a change may come at any time.
KEPT_FREE = 16
# Seconds to wait for more answers to record together with the first: a turn costs as much as ten deliveries. As long as
# the last turn took, within these bounds, so that turns take half of the time at most.
SHORTEST_WAIT, LONGEST_WAIT = 0.01, 0.05
# Seconds until the next look where a lane is busy, or a rate limit holds back what is due.
PAUSE = 0.05
# Seconds without anything to do after which a job ends, although something is due: a token comes once a second.
STANDSTILL = 1.5
# Seconds between two calls for another worker, while all threads are taken or more events wait.
CALL_INTERVAL = 1.0
# Longest wait for an answer before the loop looks for new work, in seconds.
POLL = 0.1
# Seconds for which a transaction that PostgreSQL broke off is tried again, and between two tries.
PATIENCE, RETRY_PAUSE = 60.0, 0.2
# Of a turn, those that claim.
MOST_TRIES = 2


def run(lease: uuid.UUID | None = None) -> Tally:
    """Do what there is to do, under the lease if one is given, and return what was done."""
    wakeup.accept()
    with crew.opened() as helpers:
        drain = Drain(lease or uuid.uuid4(), helpers)
        finished = drain.work()
    if not finished:
        wakeup.wake(patient=True)
    return drain.tally


class Drain:
    def __init__(self, lease: uuid.UUID, helpers: Crew) -> None:
        self.tally = Tally()
        self._crew = helpers
        self._senders = helpers.senders
        self._building = helpers.building
        self._quarantine = helpers.quarantine
        self._lease = lease
        self._dispatcher = Dispatcher(self._lease, self._call)
        self._backfills = backfill.Backfills()
        self._share = Share(claims.is_backfill_due)
        self._ledger = Ledger()
        # Answered, or not to be sent: to be recorded once their lane is free.
        self._answered: list[Claimed] = []
        # {id: id of its webhook} of what was claimed and not begun in time: it goes back.
        self._unbegun: dict[int, int] = {}
        self._room = memory.Room()
        self._definitions = Definitions()
        self._called_at = 0.0
        self._moved_at = time.monotonic()
        self._gathers_for = SHORTEST_WAIT
        # Whether a transaction was broken off that may have been committed all the same.
        self._is_unsure = False
        self._to_tidy = [gone.disable, rescue.rescue, expiry.expire, backfill.take_back, purge.purge]

    def work(self) -> bool:
        """Work until nothing is left or the time is up. Returns whether nothing is left."""
        # First of all: somebody has just saved something. A new process is slow at it: the job's time begins after.
        self._dispatcher.batch()
        lanes.ensure()
        self._pace = Pace(time.monotonic())
        finished, patience = False, 0.0
        while not finished and (self._has_begun() or self._quarantine.is_there or not self._is_over()):
            self._make_use_of_waiting()
            is_over = self._is_over()
            self._answered += self._collect(patience)
            self._withdraw(time.monotonic() - (0 if is_over else LONGEST_QUEUED))
            # What it does is found in this round at the latest.
            is_quarantined = self._persist(lambda: self._quarantine.look(self._pace, self.tally))
            more = self._turn(may_claim=not is_over)
            if not is_over:
                more = bool(self._dispatcher.batch()) + self._tidy() + self._backfills.cut() + more > 0
                finished = not (more or self._has_begun() or is_quarantined or self._wait_for_room())
            if more or self._has_begun():
                self._moved_at = time.monotonic()
            patience = 0.0 if more else PAUSE if self._has_kept() else POLL
        self._flush()
        if finished and self._persist(self._quarantine.is_needed):
            return False
        return finished and not self._persist(lambda: claims.is_held_by_time(lanes.now(), self._span()))

    def _has_begun(self) -> bool:
        """Whether something is held that has to be recorded or given back."""
        return bool(self._senders.under_way or self._building or self._has_kept())

    def _has_kept(self) -> bool:
        return bool(self._answered or self._unbegun)

    def _tidy(self) -> bool:
        """Do a little of what is left to tidy. Returns whether there may be more: not all at once, others wait.

        What PostgreSQL breaks off is left to the next job: nothing of it is known only here.
        """
        for tidy in list(self._to_tidy):
            try:
                if tidy():
                    return True
            except BROKEN_OFF as error:
                lanes.recover(error)
            except INTERRUPTIONS:
                raise
            except Exception:
                logger.exception('%s=failed', tidy.__name__)
            self._to_tidy.remove(tidy)
        return False

    def _is_over(self) -> bool:
        return shutdown.is_requested() or self._pace.is_over(time.monotonic())

    def _make_use_of_waiting(self) -> None:
        """Go on for others where the time is up, and what is left waits for a lane that somebody holds."""
        if self._has_kept() and not (self._senders.under_way or self._building) and self._is_over():
            self._pace.prolong(time.monotonic())

    def _span(self) -> Span:
        return replace(self._pace.span(time.monotonic()), closed=self._room.waiting.union(self._crew.closed))

    def _call(self) -> None:
        """Wake another worker: there is more to do than this one can."""
        if time.monotonic() - self._called_at > CALL_INTERVAL:
            self._called_at = time.monotonic()
            wakeup.wake(patient=True)

    #
    # Turns
    #

    def _turn(self, *, may_claim: bool) -> bool:
        """Record what is answered and begin what is due, as far as lanes and threads are free.

        Returns whether there is more to do at once.
        """
        claimed_at = time.monotonic()
        tries = itertools.count(1)
        try:
            # What is answered is recorded, whatever breaks off the claim beside it.
            claim = self._persist(
                lambda: self._record_and_claim(self._answered, may_claim=may_claim and next(tries) <= MOST_TRIES)
            )
        except DataError:
            self._record_singly()
            claim = self._persist(lambda: self._record_and_claim([], may_claim=may_claim))
        is_waiting = self._has_kept()  # for lanes that are busy
        refused = self._room.take(claim.held)
        self._unbegun |= refused
        self._begin([pk for pk in claim.pks if pk not in refused], claimed_at)
        self._gathers_for = min(max(time.monotonic() - claimed_at, SHORTEST_WAIT), LONGEST_WAIT)
        if refused or (may_claim and self._crew.is_full):
            self._call()
        has_room_again = self._room.keep(self._in_hand())
        return claim.more or has_room_again or (self._has_kept() and not is_waiting)

    def _record_and_claim(
        self, answered: list[Claimed], judge: Judge = outcomes.judge, *, may_claim: bool = False
    ) -> Claim:
        # Copies: if the turn is broken off and done again, nothing is counted twice.
        ledger, unbegun = self._ledger.copy(), self._unbegun | self._strays()
        with lanes.turn() as now:
            held = lanes.take({one.delivery.webhook_id for one in answered} | set(unbegun.values()))
            ended = [one for one in answered if one.delivery.webhook_id in held]
            tally = outcomes.record(self._lease, [judge(one, now) for one in ended], ledger, held, now)
            back = {pk for pk, webhook_id in unbegun.items() if webhook_id in held}
            claims.give_back(self._lease, back, now)
            claim = self._claim(held, ended, now) if may_claim else Claim()
        self._ledger, self._is_unsure = ledger, False
        self._unbegun = {pk: webhook_id for pk, webhook_id in unbegun.items() if pk not in back}
        self._answered = [one for one in self._answered if one not in ended]
        if any(one.outcome.status == GONE for one in ended):
            self._to_tidy.append(gone.disable)
        self.tally.counts.update(tally.counts)
        # Without a zero: a job that did nothing counts nothing.
        self.tally.counts += Counter({StatusChoices.SUPERSEDED: claim.superseded})
        return claim

    def _claim(self, held: Collection[int], ended: list[Claimed], now: datetime) -> Claim:
        """Claim changes first, and of backfills what fits beside them."""
        free, span, slow = self._crew.free, self._span(), self._building.slow
        room = MOST_HELD - len(self._senders.under_way)
        # Whatever is ahead of its webhook's concurrency needs no thread.
        answered = Counter(one.delivery.webhook_id for one in ended)
        limit = min(free + answered.total(), room)
        yields = self._quarantine.goes_first
        claim_some = partial(claims.claim, self._lease, held, now=now, span=span, one_each=slow, yields=yields)
        claim = claim_some(limit=limit, answered=answered, backfill=False)
        self._share.earn(len(claim.held), now)
        answered = Counter(one.delivery.webhook_id for one in ended if one.delivery.backfill)
        left = min(max(free - len(claim.held) - KEPT_FREE, 0) + answered.total(), room - len(claim.held))
        if left <= 0 or not self._share.is_wanted(now):
            return claim
        if claims.do_others_wait(now, span):
            left = min(left, self._share.room)
        more = claim_some(limit=left, answered=answered, backfill=True)
        self._share.spend(len(more.held))
        return Claim(claim.held + more.held, claim.more or more.more, claim.superseded + more.superseded)

    def _strays(self) -> dict[int, int]:
        """Return what is ours by a commit that this worker has not heard of."""
        if not self._is_unsure:
            return {}
        return claims.strays(self._lease, self._in_hand())

    def _in_hand(self) -> list[int]:
        held = [one.delivery for one in (*self._senders.under_way.values(), *self._answered)]
        return [one.pk for one in (*held, *self._building.deliveries)]

    def _record_singly(self) -> None:
        """Record outcomes of which PostgreSQL did not take one. Each is taken, or it is the one to blame."""
        for one in self._answered:
            try:
                self._persist(lambda one=one: self._record_and_claim([one]))
            except DataError as error:
                logger.exception('delivery=%s its outcome cannot be recorded', one.delivery.uuid)
                judge = partial(outcomes.judge_failed, error)
                self._persist(lambda one=one, judge=judge: self._record_and_claim([one], judge))

    def _flush(self) -> None:
        """Write what is left of the ledger."""
        for webhook_id in self._ledger.webhook_ids:
            try:
                self._persist(lambda pk=webhook_id: self._flush_lane(pk))
            except BROKEN_OFF:
                logger.warning('webhook=%s its health is not recorded: its lane is busy', webhook_id)

    def _flush_lane(self, webhook_id: int) -> None:
        ledger = self._ledger.copy()
        with lanes.hold(webhook_id) as now:
            ledger.flush(now, [webhook_id], force=True)
        self._ledger = ledger

    def _persist(self, transaction: Callable):
        """Do a transaction again that PostgreSQL broke off, for what it was about to record is known only here."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return transaction()
            except BROKEN_OFF as error:
                lanes.recover(error)
                self._is_unsure = True
                if time.monotonic() > end:
                    raise
            time.sleep(RETRY_PAUSE)

    def _wait_for_room(self) -> bool:
        """Wait a moment where something is due that could go: with a rate limit's next token, or from a busy lane.

        Not for ever: a lane that stays busy is left to the timer.
        """
        if time.monotonic() - self._moved_at > STANDSTILL:
            return False
        claimable = self._persist(lambda: claims.is_claimable(lanes.now(), self._span()))
        if claimable:
            time.sleep(PAUSE)
        return claimable

    #
    # Requests
    #

    def _begin(self, claimed: list[int], claimed_at: float) -> None:
        """Build and send what was claimed."""
        found = self._persist(lambda: claims.fetch(claimed))
        builders = self._persist(lambda: self._definitions.of(found))
        there = [one for one in found if one.webhook_id in builders]  # the others were deleted since
        for built in self._building.begin(there, builders, claimed_at):
            self._send(built)
        self._unbegun |= self._building.take_left()

    def _send(self, built: Built) -> None:
        one = built.one
        if one.request is None:
            self._answered.append(one)
            return
        self._pace.begin(one.delivery.pk, one.request.timeout, time.monotonic())
        self._senders.begin(one, built.claimed_at + LEASE_MARGIN)

    def _withdraw(self, since: float) -> None:
        """Give back what waits for its turn since then: others may have it."""
        for one in self._senders.withdraw(since):
            self._pace.forget(one.delivery.pk)
            self._unbegun[one.delivery.pk] = one.delivery.webhook_id

    def _collect(self, patience: float) -> list[Claimed]:
        """Wait for answers and return the deliveries that have got theirs. What is built meanwhile is sent."""
        if not (self._senders.under_way or self._building):
            time.sleep(patience if self._has_kept() or self._quarantine.is_there else 0)
            return []
        # What a lane was busy for is tried again soon.
        ended = []
        for what in self._senders.wait(patience, SHORTEST_WAIT if self._has_kept() else self._gathers_for):
            if isinstance(what, Future):
                if built := self._building.end(what):
                    self._send(built)
            elif what.outcome is None:
                self._note_late(what)
            else:
                self._pace.end(what.delivery.pk, what.delivery.webhook_id, what.outcome.duration)
                ended.append(what)
        self._unbegun |= self._building.take_left()
        return ended

    def _note_late(self, one: Claimed) -> None:
        logger.warning('delivery=%s lease=lapsed (it is not sent from here)', one.delivery.uuid)
        self._pace.forget(one.delivery.pk)
        self._unbegun[one.delivery.pk] = one.delivery.webhook_id
