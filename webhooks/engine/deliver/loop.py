"""The loop that sends: turn after turn, for the lanes that this worker owns.

A turn is one transaction. It records what was answered, reads what is due, chooses what goes next, and says what is in
hand. Requests begin after its commit. If it is broken off, nothing has happened, and it is done again. If others have
declared this worker dead, it forgets all and begins anew: what it had in hand is theirs.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from django.db import DataError

from ...choices import StatusChoices
from ...constants import GONE
from ...interruptions import BROKEN_OFF
from ...models import Delivery, Webhook
from ...templating import renderer
from ...transport.client import Client
from .. import transactions
from ..registry import Lost, Member
from . import gone, queue, record
from .build import ENDLESS, REST, SLOW, Builders, Building
from .due import Due
from .lane import Lane
from .ledger import Ledger
from .owned import Owned
from .record import Judged
from .sent import Sent
from .threads import MOST, Threads

logger = logging.getLogger('webhooks.sender')

# Seconds to gather more answers: as long as the last turn took, within these bounds.
SHORTEST, LONGEST = 0.005, 0.05
# Seconds for which a worker that ends waits for lanes that somebody holds, to record what was answered.
LAST = 5.0
# Seconds until a transaction that was broken off is done again.
PAUSE = 0.2
# What lets it look at once.
POKED = 'poked'
# Seconds after which the next requests are built in the next turn.
BUDGET = 0.1


class Sender:
    """A process that sends."""

    def __init__(self, member: Member, threads: Threads, builders: Builders) -> None:
        self.counts: Counter[str] = Counter()
        self._member = member
        self._threads = threads
        self._builders = builders
        self._owned = Owned(member)
        self._ledger = Ledger()
        self._answered: list[Sent] = []
        self._gather = SHORTEST
        self._is_gone = False
        # Whether a transaction was broken off, and nobody knows which lanes are owned.
        self._is_unsure = False

    def turn(self, patience: float = 0.0, *, may_begin: bool = True) -> bool:
        """Do one turn, after waiting so long for an answer. Returns whether there is more to do at once."""
        heard = self._threads.wait(patience, self._gather)
        self._hear(heard)
        self._owned.closed = 0
        began = time.monotonic()
        try:
            chosen = self._persist(may_begin=may_begin)
        except BROKEN_OFF as error:
            transactions.recover(error)
            self._is_unsure = True
            self._owned.forget()
            time.sleep(PAUSE)
            return True
        except Lost:
            logger.warning('worker=%s lost: it begins anew', self._member.pk)
            self._begin_anew()
            return True
        self._gather = min(max(time.monotonic() - began, SHORTEST), LONGEST)
        self._begin(chosen)
        self._disable_gone()
        return bool(heard or chosen or self._owned.closed)

    @property
    def is_busy(self) -> bool:
        """Whether something is in hand, or may soon be."""
        return self._owned.is_busy

    def look_again(self) -> None:
        """Something may have become due: look for it in the next turn."""
        self._owned.look_again()

    def poke(self) -> None:
        """Called by any thread: let it look now."""
        self._threads.tell(POKED)

    @property
    def has_lanes(self) -> bool:
        return bool(self._owned.lanes)

    def end(self) -> None:
        """Give back what has not begun, and record what is under way."""
        for sent in self._threads.withdraw():
            self._owned.put_back(sent.delivery.webhook_id, sent.pks)
        for building in self._builders.withdraw():
            self._owned.put_back(building.webhook_id, [one.pk for one in building.deliveries])
        latest = time.monotonic() + LAST
        while self._owned.in_hand and (self._is_any_under_way or time.monotonic() < latest):
            self.turn(LONGEST, may_begin=False)
        with transactions.short() as now:
            self._ledger.flush(now, force=True)
            if not self._owned.in_hand:  # otherwise it counts as dead soon
                self._member.end()

    @property
    def _is_any_under_way(self) -> bool:
        return set(self._owned.in_hand) > {pk for sent in self._answered for pk in sent.pks}

    #
    # What is heard
    #

    def _hear(self, heard: Sequence[object]) -> None:
        for what in heard:
            if what is POKED:
                self.look_again()
            elif isinstance(what, Building):
                self._hear_built(what)
            elif isinstance(what, Sent) and self._owned.has_in_hand(what.delivery.webhook_id, what.delivery.pk):
                if what.outcome is None:
                    self._owned.put_back(what.delivery.webhook_id, what.pks)
                else:
                    self._note_answered(what)

    def _note_answered(self, sent: Sent) -> None:
        self._answered.append(sent)
        lane = self._owned.lanes[sent.delivery.webhook_id]
        lane.note_answer(reached=not sent.outcome.unreachable)

    def _hear_built(self, building: Building) -> None:
        lane = self._owned.lanes.get(building.webhook_id)
        if lane is None or building.deliveries[0].pk not in lane.in_hand:
            return
        self._note_built(lane, building)
        if building.seconds > ENDLESS:
            lane.endless += 1
            if lane.endless > 1:
                lane.rests_until = time.monotonic() + REST
                logger.warning('webhook=%s its template takes too long: it rests for %d s', lane.webhook_id, REST)
                for one in self._builders.withdraw(lane.webhook_id):
                    self._owned.put_back(lane.webhook_id, [each.pk for each in one.deliveries])
        else:
            lane.endless = 0

    def _note_built(self, lane: Lane, building: Building) -> None:
        lane.is_slow = building.seconds > SLOW
        if building.sent is None:
            self._owned.put_back(lane.webhook_id, [one.pk for one in building.deliveries])
        elif building.sent.request is None:
            self._answered.append(building.sent)
        else:
            self._threads.begin(lane.webhook_id, building.sent, lane.window)

    #
    # The transaction
    #

    def _persist(self, *, may_begin: bool) -> list[list[Due]]:
        try:
            return self._turn(record.judge, self._answered, may_begin=may_begin)
        except DataError:
            pass
        # PostgreSQL does not take one of the outcomes. Each is recorded alone, or fails by name.
        for sent in list(self._answered):
            try:
                self._turn(record.judge, [sent], may_begin=False)
            except DataError as error:
                logger.exception('delivery=%s its outcome cannot be recorded', sent.delivery.uuid)
                self._turn(partial(record.judge_failed, error), [sent], may_begin=False)
        return []

    def _turn(self, judge, answered: Sequence[Sent], *, may_begin: bool) -> list[list[Due]]:
        ledger = self._ledger.copy()
        chosen: list[list[Due]] = []
        try:
            with transactions.short() as now:
                # What is in a lane that somebody holds is recorded later: nobody waits for it.
                lanes = queue.lock({sent.delivery.webhook_id for sent in answered})
                answered = [sent for sent in answered if sent.delivery.webhook_id in lanes]
                counts = self._record([judge(sent, now) for sent in answered], ledger, now)
                for pk, health in ledger.flush(now).items():
                    self._owned.note_health(pk, health)
                if self._is_unsure:
                    self._owned.learn_lanes()
                if may_begin:
                    chosen = self._owned.choose_next(self._threads.free, now)
                ended = {pk for sent in answered for pk in sent.pks}
                self._member.beat(deliveries=[pk for pk in self._owned.in_hand if pk not in ended])
        except BaseException:
            self._owned.put_all_back(chosen)
            raise
        self._member.confirm()
        self._is_unsure = False
        self._ledger = ledger
        self.counts.update(counts)
        self.counts += Counter({StatusChoices.SUPERSEDED: self._owned.closed})
        self._answered = [sent for sent in self._answered if sent not in answered]
        for sent in answered:
            self._owned.lanes[sent.delivery.webhook_id].end(sent.pks)
        return chosen

    def _record(self, judged: Sequence[Judged], ledger: Ledger, now: datetime) -> Counter[str]:
        self._is_gone |= any(sent.outcome.status == GONE for sent, *_ in judged)
        return record.record(judged, ledger, now)

    #
    # Requests
    #

    def _begin(self, chosen: Sequence[Sequence[Due]]) -> None:
        """Build and send what was chosen. What was changed meanwhile is left."""
        if not chosen:
            return
        try:
            found = _fetch([one.pk for group in chosen for one in group])
        except BROKEN_OFF as error:
            transactions.recover(error)
            found = {}
        end = time.monotonic() + BUDGET
        for group in chosen:
            lane = self._owned.lanes[group[0].webhook_id]
            deliveries = [found[one.pk] for one in group if one.pk in found]
            if len(deliveries) < len(group):
                lane.end([one.pk for one in group])
                lane.forget()  # it is read anew
            elif time.monotonic() > end:
                lane.put_back([one.pk for one in group])
            else:
                self._build(lane, Building(lane.webhook_id, deliveries, self._owned.builders[lane.webhook_id]))

    def _build(self, lane: Lane, building: Building) -> None:
        if building.builder.is_templated or lane.is_slow:
            self._builders.submit(building)
        else:
            building.run()
            self._note_built(lane, building)

    def _disable_gone(self) -> None:
        if not self._is_gone:
            return
        self._is_gone = False
        try:
            gone.disable()
        except BROKEN_OFF as error:
            transactions.recover(error)

    def _begin_anew(self) -> None:
        self._threads.withdraw()
        self._builders.withdraw()
        self._owned.clear()
        self._answered.clear()
        self._ledger.clear()
        self._member.begin()


def _fetch(pks: Sequence[int]) -> dict[int, Delivery]:
    """Return those that may still go, with their events, by id."""
    # Not in one query: of ten webhooks each would get the event's long columns anew.
    return {one.pk: one for one in Delivery.objects.filter(pk__in=queue.ready(pks)).prefetch_related('event')}


@contextmanager
def opened(member: Member, is_needed=Webhook.any_is_templated) -> Iterator[Sender]:
    """A sender with its threads. To be entered while the process has one thread: renderers are forked before."""
    client = Client(MOST)
    with renderer.kept(is_needed) as contexts:
        threads = Threads(client, lambda: member.until)
        builders = Builders(threads.tell, contexts)
        try:
            yield Sender(member, threads, builders)
        finally:
            builders.close()
            threads.close()
            client.close()
