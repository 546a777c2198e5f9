"""Sends, turn after turn, for the lanes that this worker owns.

A turn is one transaction. Requests begin after its commit. If it is interrupted, nothing has happened, and it is done
again. If others have declared this worker dead, it begins anew: they have its deliveries.
"""

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from datetime import datetime
from queue import Empty, SimpleQueue

from django.db import connections

from ...interruptions import BROKEN_OFF
from ...models import Webhook
from ...templating import renderer
from ...transport.client import Client
from .. import sql
from ..registry import ENDING, Lost, Registration
from . import endpoint, record
from .build import Call, Threads
from .endpoint import Entry
from .lanes import Lanes
from .turn import Turn

logger = logging.getLogger('webhooks.sender')

# Each webhook may have one request under way. This many further requests share the rest of the threads.
MAX_SHARED_REQUESTS = 128
MAX_THREADS = 2000
# After an answer a turn waits for more answers as long as the last turn took, within these bounds.
MIN_GATHER_SECONDS = 0.005
MAX_GATHER_SECONDS = 0.05
# Counters of plain success are written this often, and may be behind by that.
COUNTERS_BEHIND_SECONDS = 1.0
# At its end a sender waits this long to record answers of locked lanes.
END_SECONDS = 5.0
# After this time an interrupted turn is done again, or a request that could not be built or begin.
TRY_AGAIN_SECONDS = 0.5
# A request needs two descriptors. So the limit of the process is raised to this, if the operator's limit allows.
MAX_OPEN_FILES = 65_536
# After this time the remaining requests are built in the next turn: answers must not wait to be recorded.
BUILD_SECONDS_PER_TURN = 0.1


class Sender:
    """A worker that sends: its lanes, its threads, and the answers that are still to be recorded.

    `contexts`: one for each thread that renders templates. `counts`: how many deliveries got which status so far.
    """

    def __init__(self, registration: Registration, client: Client, contexts: Sequence[Context]) -> None:
        self.counts: Counter[str] = Counter()
        self._registration = registration
        self._client = client
        self._contexts = list(contexts)
        self.lanes = Lanes(registration)
        # Threads report a request that has ended, or an exception. None: look now.
        self._mail: SimpleQueue[Call | BaseException | None] = SimpleQueue()
        self._threads = Threads(MAX_THREADS, 'webhooks-send', self._send, self._mail.put)
        self._builders = Threads(len(self._contexts), 'webhooks-build', self._build, self._mail.put)
        self._answered: list[Call] = []
        self._gather = MIN_GATHER_SECONDS
        # To be written to the endpoints' health.
        self._noted: list[Entry] = []
        self._written_at = time.monotonic()

    @property
    def builds_since(self) -> float:
        """Return when the oldest build in a thread began, by time.monotonic(). Without any, that is now."""
        return self._builders.since

    def poke(self) -> None:
        """Let a turn look for free lanes at once, even if it waits for answers. Any thread may call it."""
        self._mail.put(None)

    def turn(self, patience: float = 0.0, *, may_begin: bool = True) -> bool:
        """Do one turn, after waiting for an answer for `patience` seconds. Returns whether there is more to do at once.

        It records answers, and begins requests if it `may_begin`. If PostgreSQL interrupts it, nothing was recorded,
        and the next turn does it again. Raises the error of a thread that failed.
        """
        heard = self._hear(patience)
        began = time.monotonic()
        try:
            turn = self._turn(may_begin=may_begin)
        except BROKEN_OFF as error:
            sql.recover(error)
            self.lanes.forget()
            time.sleep(TRY_AGAIN_SECONDS)
            return True
        except Lost:
            logger.warning('worker=%s lost: it begins anew', self._registration.pk)
            self._begin_anew()
            return True
        self._gather = min(max(time.monotonic() - began, MIN_GATHER_SECONDS), MAX_GATHER_SECONDS)
        self._begin(turn.calls)
        return heard or bool(turn.chosen or turn.closed)

    def end(self, keep_alive: Callable[[], None] = lambda: None) -> None:
        """Give back requests that have not begun, wait for all under way and record them, then delete the worker's row.

        Other workers get each lane as soon as nothing in it is in hand. `keep_alive` is called in each turn: open
        requests may take long.
        """
        self._registration.role = ENDING
        for call in [*self._threads.withdraw(), *self._builders.withdraw()]:
            call.lane.put_back(call.delivery.pk)
        latest = time.monotonic() + END_SECONDS
        while (left := set(self.lanes.in_hand)) and (left > _pks(self._answered) or time.monotonic() < latest):
            self.turn(MAX_GATHER_SECONDS, may_begin=False)
            keep_alive()
        # If this is interrupted, the worker's row stays, and others rescue it soon.
        with sql.may_break_off(), sql.transaction() as now:
            endpoint.write(self._noted, now)
            if not self.lanes.in_hand:
                self._registration.end()

    def close(self) -> None:
        """End the threads, after the requests that are under way."""
        self._builders.close()
        self._threads.close()

    #
    # In a thread
    #

    def _build(self, call: Call) -> None:
        rests = time.monotonic() < call.lane.rests_until
        context = self._contexts.pop()
        try:
            is_built = self._may_go(call) and not rests and context.run(_build, call)
        finally:
            self._contexts.append(context)
            connections.close_all()
        if is_built:
            self._threads.submit(call, call.lane.window)
        else:
            self._mail.put(call)

    def _send(self, call: Call) -> None:
        # If this worker's heartbeat is overdue, others may have the delivery. So the request does not begin.
        if self._may_go(call) and time.monotonic() < self._registration.until:
            call.send(self._client.send)
        self._mail.put(call)

    def _may_go(self, call: Call) -> bool:
        """Whether a request that waited for a thread is still to go: by the same definition, and a probe alone."""
        lane = call.lane
        if not self._is_mine(call) or self._registration.role == ENDING:
            return False
        is_alone = len(lane.in_hand) == 1 or not lane.state.is_suspended
        return lane.state.is_active and call.builder is lane.builder and is_alone

    #
    # Answers
    #

    def _hear(self, patience: float) -> bool:
        """Note the requests that have ended, after waiting for the first. Returns whether there are any."""
        try:
            heard = [self._mail.get(timeout=patience) if patience > 0 else self._mail.get_nowait()]
        except Empty:
            return False
        self._threads.is_idle.wait(self._gather)
        while not self._mail.empty():
            heard.append(self._mail.get_nowait())
        for one in heard:
            if isinstance(one, BaseException):
                raise one  # the process ends: only that thread knew of its request
            if one is None:
                self.lanes.look_again()
            elif self._is_mine(one):
                self._note(one)
        return any(heard)

    def _is_mine(self, call: Call) -> bool:
        """Whether the request's lane is still this worker's: it was not declared dead meanwhile."""
        return self.lanes.owned.get(call.delivery.webhook_id) is call.lane

    def _note(self, call: Call) -> None:
        lane, now = call.lane, time.monotonic()
        call.update_token()
        if (call.request or not call.goes_again) and lane.note_built(call.seconds, now):
            logger.warning(
                'webhook=%s name=%r template too slow: it waits a minute', lane.webhook_id, call.builder.webhook.name
            )
        if call.goes_again:
            self._put_back(call, now)
            return
        if not (call.outcome.unsendable or call.outcome.withheld):
            lane.note_answer(reached=not call.outcome.unreachable)
        self._answered.append(call)

    def _put_back(self, call: Call, now: float) -> None:
        lane = call.lane
        if call.outcome:
            name = call.builder.webhook.name
            logger.warning('webhook=%s name=%r waits error="%s"', lane.webhook_id, name, call.outcome.error)
            lane.note_answer(reached=False)  # fewer at once
        if call.seconds and (call.outcome or not call.request):  # it was tried in vain
            lane.rests_until = max(lane.rests_until, now + TRY_AGAIN_SECONDS)
        lane.put_back(call.delivery.pk)

    #
    # The transaction
    #

    def _turn(self, *, may_begin: bool) -> Turn:
        """Do the turn's transaction, and take over in memory what it did. If it is interrupted, that is dropped."""
        with sql.transaction() as now:
            turn = self.lanes.open_turn(now)
            # Answers of locked lanes are recorded later.
            answered = [call for call in self._answered if call.delivery.webhook_id in turn.lanes]
            entries = record.conclude(answered, now)
            noted = self._write_health([*self._noted, *entries], now, at_once=not may_begin)
            if may_begin:
                self.lanes.choose_next(turn, MAX_SHARED_REQUESTS - self._threads.shared)
            else:
                self.lanes.leave_all(turn)
            in_hand = {*self.lanes.in_hand} - _pks(answered) | _pks(turn.calls)
            self._registration.beat(deliveries=sorted(in_hand))
        self._registration.confirm()
        self.lanes.apply(turn)
        self._noted = noted + turn.closed
        for one in (*entries, *turn.closed):
            self.counts[one.status] += one.count
        self._answered = [call for call in self._answered if call not in answered]
        for call in answered:
            call.lane.end(call.delivery.pk)
        return turn

    def _write_health(self, noted: list[Entry], now: datetime, *, at_once: bool) -> list[Entry]:
        """Write the entries, unless they can wait. Returns the entries that are to be written later."""
        clock = time.monotonic()
        at_once = at_once or any(one.is_urgent for one in noted)
        if not at_once and clock < self._written_at + COUNTERS_BEHIND_SECONDS:
            return noted
        self._written_at = clock
        return endpoint.write(noted, now)

    #
    # Requests
    #

    def _begin(self, chosen: Sequence[Call]) -> None:
        """Build and send the chosen requests, as many as the time allows."""
        end = time.monotonic() + BUILD_SECONDS_PER_TURN
        for call in chosen:
            if time.monotonic() > end:
                call.lane.put_back(call.delivery.pk)
            elif call.builder.is_templated or call.lane.is_slow:
                self._builders.submit(call)
            elif _build(call):
                self._threads.submit(call, call.lane.window)
            else:
                self._note(call)

    def _begin_anew(self) -> None:
        self.lanes.clear()
        self._answered.clear()
        self._noted.clear()
        self._registration.begin()


def _build(call: Call) -> bool:
    """Build the request. Returns whether there is one to send. Without an outcome it is built another time."""
    with sql.may_break_off():
        return call.build()
    return False


def _pks(calls: Iterable[Call]) -> set[int]:
    return {pk for call in calls for pk in call.pks}


@contextmanager
def opened(registration: Registration) -> Iterator[Sender]:
    """Give a sender, and close it at the end.

    To be entered while the process has one thread: renderers are forked before other threads start.
    """
    _allow_files()
    client = Client(MAX_SHARED_REQUESTS)
    with renderer.kept(Webhook.any_is_templated) as contexts:
        sender = Sender(registration, client, contexts)
        try:
            yield sender
        finally:
            sender.close()
            client.close()


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (wanted := min(hard, MAX_OPEN_FILES)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
