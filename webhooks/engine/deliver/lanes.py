"""Takes and leaves lanes for a worker, reads their due deliveries, and chooses the requests that go next."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from ...choices import StatusChoices
from ...models import Webhook
from ...payload.http_request import Builder
from ..full_look import FullLook
from ..registry import Member
from . import change_sets, endpoint, feed, merge, order, queue, quiet
from .build import Call
from .choice import choose
from .endpoint import Entry
from .lane import BEGINNING, COMMIT_LAG, INACTIVE, Due, Lane

# Lanes that a look takes at most.
LANES_PER_TAKE = 200
# Between two looks for free lanes.
TAKE_SECONDS = 0.05
# A lane that is given up is for others so long: each looks at all lanes within that time, if it is not slow.
GIVEN_SECONDS = 2.0
# A worker that ends when nothing is due waits for lanes that rest no longer than this.
SHORT_REST_SECONDS = 1.0


class Lanes:
    """The lanes that a worker owns. A turn calls begin_turn(), and in its transaction lock_owned(), then choose_next()
    or leave_all().

    `owned`: each lane by its webhook's id. `closed`: this turn's entries, without requests.
    """

    def __init__(self, member: Member) -> None:
        self.owned: dict[int, Lane] = {}
        # Superseded or published in this turn.
        self.closed: list[Entry] = []
        self._member = member
        self._looked_at = 0.0
        self._all_lanes, self._all_due = FullLook(), FullLook()
        # This turn has locked these, and works on no others.
        self._locked: set[int] = set()
        self._taken: set[int] = set()
        self._chosen: list[Due] = []
        # Lanes for others, and until when.
        self._given: dict[int, float] = {}
        self._since = BEGINNING

    @property
    def in_hand(self) -> list[int]:
        """Return the ids of all deliveries whose requests have begun, or are to begin in this turn."""
        return [pk for lane in self.owned.values() for one in lane.in_hand.values() for pk in one.pks]

    @property
    def _held(self) -> list[Lane]:
        return [lane for pk, lane in self.owned.items() if pk in self._locked and pk not in self._given]

    @property
    def is_busy(self) -> bool:
        """Whether anything is in hand, or soon may be: a worker that ends when nothing is due waits for that."""
        soon = time.monotonic() + SHORT_REST_SECONDS
        return bool(self.owned.keys() - self._locked) or any(
            lane.in_hand or (lane.waiting and soon >= lane.rests_until) for lane in self.owned.values()
        )

    def look_again(self) -> None:
        """Let the next turn look for free lanes, however short ago the last one did."""
        self._looked_at = 0.0

    def forget(self) -> None:
        """Forget which lanes and deliveries the turn has read: its transaction was broken off.

        If it was committed all the same, lock_owned() finds the lanes.
        """
        self._looked_at, self._since = 0.0, BEGINNING
        for pk in self._taken:
            self.owned.pop(pk, None)
        for lane in self.owned.values():
            lane.forget()

    def clear(self) -> None:
        """Forget all lanes: this worker was declared dead, and others have them."""
        self.owned.clear()
        self.forget()

    def begin_turn(self) -> None:
        """Forget the results of the last turn."""
        self.closed, self._chosen, self._taken = [], [], set()

    def lock_owned(self) -> set[int]:
        """Lock the worker's lanes, unless somebody holds them, and return their webhooks' ids.

        A lane that PostgreSQL knows as this worker's, and this object does not, is owned from now on.
        """
        clock = time.monotonic()
        self._locked = queue.lock_owned(self._member.pk)
        self._own(self._locked - self.owned.keys(), clock)
        for pk in self.owned.keys() - self._locked:
            self.owned[pk].used_at = clock  # it may have due deliveries
        return self._locked

    def choose_next(self, free: int, now: datetime) -> list[Call]:
        """Return the requests that go next, not built. Their deliveries are in hand now. `free`: how many threads are.

        On the way it takes and leaves lanes, forms change sets, and parks, merges and publishes deliveries, all in the
        open transaction. If that is broken off, call put_back_chosen(), then forget().
        """
        clock = time.monotonic()
        self._take(now, clock)
        self._define(now)
        self._note_whole()
        self._form(now)
        self._read(now)
        self.closed += feed.publish([pk for lane in self._held if lane.is_feed for pk in lane.withdraw()], now)
        self._chosen = choose(self._held, free, clock)
        for lane in self._held:
            lane.answered = 0
        return self._fetch()

    def put_back_chosen(self) -> None:
        """Let the deliveries that this turn has chosen wait again: their requests do not begin."""
        for due in self._chosen:
            lane = self.owned[due.webhook_id]
            if due.pk in lane.in_hand:  # not put back yet
                lane.put_back(due.pk)

    #
    # Which lanes
    #

    def _take(self, now: datetime, clock: float) -> None:
        """Own lanes with due deliveries, as many as others own, and leave idle ones."""
        if clock < self._looked_at + TAKE_SECONDS:
            return
        self._looked_at = clock
        everything = self._all_lanes.is_due(clock)
        self._leave(clock)
        if everything:
            self._give(clock)
        since = BEGINNING if everything else self._since - COMMIT_LAG
        self._taken = queue.take(self._member.pk, since, LANES_PER_TAKE, now, self._given)
        # If there are more, the next look goes on.
        self._since = now if len(self._taken) < LANES_PER_TAKE else since
        if everything:
            self._taken |= queue.take_saved(self._member.pk, LANES_PER_TAKE, now, self._given)
        self._own(self._taken, clock)
        self._locked |= self._taken
        if everything:
            self._all_lanes.note(clock, time.monotonic())

    def _give(self, clock: float) -> None:
        """Give up surplus lanes: the ones it can leave soonest, each in its turn."""
        surplus = len(self.owned) - queue.share(len(self.owned))
        soonest = sorted(self.owned, key=lambda pk: (pk in self._given, len(self.owned[pk].in_hand)))
        for pk in soonest[: max(surplus, 0)]:
            self._given[pk] = clock + GIVEN_SECONDS
            self.owned[pk].forget()

    def _leave(self, clock: float) -> None:
        self._given = {pk: until for pk, until in self._given.items() if until > clock}
        given = {pk for pk in self._locked & self._given.keys() if not self.owned[pk].in_hand}
        self._let_go(given | {pk for pk in self._locked if self.owned[pk].is_idle(clock)})

    def leave_all(self) -> None:
        """Let others have all lanes with nothing in hand."""
        self._let_go({pk for pk in self._locked if not self.owned[pk].in_hand})

    def _let_go(self, left: set[int]) -> None:
        queue.leave(left)
        for pk in left:
            del self.owned[pk]
        self._locked -= left

    def _own(self, pks: Iterable[int], clock: float) -> None:
        for pk in pks:
            self.owned[pk] = Lane(pk, used_at=clock)

    def _define(self, now: datetime) -> None:
        states = queue.states(self.owned, now) if self.owned else {}
        lanes = {pk: self.owned[pk] for pk in states}
        stale = [pk for pk, lane in lanes.items() if not lane.builder or lane.state.saved_at != states[pk].saved_at]
        for pk, webhook in Webhook.objects.select_related('health').in_bulk(stale).items():
            self.owned[pk].define(Builder(webhook))
        for pk, lane in self.owned.items():
            lane.note_state(states[pk] if lane.builder and pk in states else INACTIVE)
        queue.retry([lane.webhook_id for lane in self._held if lane.state.is_saved], now)

    #
    # Due deliveries
    #

    def _note_whole(self) -> None:
        """Learn which transactions are dispatched to the end. All their deliveries are read after that."""
        lanes = [lane for lane in self.owned.values() if lane.batch or lane.unformed]
        known = {one.transaction_id for lane in lanes for one in lane.waiting.values() if one.batch is None}
        whole = known - queue.unfinished(known)
        undecided = queue.undecided([lane.webhook_id for lane in lanes], whole)
        for lane in lanes:
            lane.whole = {one for one in whole if (lane.webhook_id, one) not in undecided}

    def _form(self, now: datetime) -> None:
        """Form the change sets of whole transactions: their parts are read after that."""
        ready = [one for lane in self._held for one in lane.unformed if one.transaction_id in lane.whole]
        # A set must not wait for a backfill of its objects.
        closed = merge.replace_backfills({one.webhook_id for one in ready}, now, self.in_hand)
        keys = {(one.webhook_id, one.change_set) for one in ready if not self._is_quiet(one)}
        for webhook_id in {one.webhook_id for one in ready if self._is_quiet(one)}:
            united, count = change_sets.unite(webhook_id, now)
            closed[webhook_id] += count
            keys |= united
            self.owned[webhook_id].forget()
        self.closed += endpoint.entries(StatusChoices.SUPERSEDED, closed)
        settled = change_sets.form(keys, now)
        for one in ready:
            if (one.webhook_id, one.change_set) in settled:
                self.owned[one.webhook_id].waiting.pop(one.pk, None)

    def _read(self, now: datetime) -> None:
        clock = time.monotonic()
        everything = self._all_due.is_due(clock)
        wishes = [wish for lane in self._held for wish in lane.wishes(everything=everything)]
        if not wishes:
            return
        due = queue.read(wishes, [pk for lane in self._held for pk in lane.known], now)
        if everything:
            self._all_due.note(clock, time.monotonic())
        waits = self._park(due, now)
        waits |= quiet.postpone([one.pk for one in due if self._is_quiet(one) and one.pk not in waits], now)
        by_wish: dict[tuple[int, bool], list[Due]] = defaultdict(list)
        for one in due:
            by_wish[one.webhook_id, one.backfill].append(one)
        for wish in wishes:
            self.owned[wish.webhook_id].learn(wish, by_wish[wish.webhook_id, wish.backfill], clock, waits)
        self._supersede(due, waits, now)

    def _park(self, due: Sequence[Due], now: datetime) -> set[int]:
        """Park deliveries that wait for an earlier one of their object. Returns their ids.

        Sets that are to be made one must not wait for each other.
        """
        blocked = order.blocked([pk for one in due if one.is_formed or not self._is_quiet(one) for pk in one.pks])
        parked = {one.pk for one in due if not blocked.isdisjoint(one.pks)}
        order.park(parked, now)
        return parked

    def _is_quiet(self, one: Due) -> bool:
        return self.owned[one.webhook_id].quiet is not None

    def _supersede(self, due: Sequence[Due], waits: Collection[int], now: datetime) -> None:
        """Close needless deliveries. Their lanes are read anew.

        Of an object that has to be quiet, it is done when its first delivery may go: not for any of `waits` (ids).
        """
        objects = [
            (one.webhook_id, one.object_type_id, one.object_id)
            for one in due
            if (self._is_quiet(one) and one.pk not in waits and not one.backfill)
            or (not self._is_quiet(one) and self.owned[one.webhook_id].latest_only)
        ]
        in_hand = self.in_hand
        closed = merge.supersede(objects, now, in_hand)
        closed += merge.replace_backfills({one.webhook_id for one in due if not one.backfill}, now, in_hand)
        self.closed += endpoint.entries(StatusChoices.SUPERSEDED, closed)
        for webhook_id in closed:
            self.owned[webhook_id].forget()

    def _fetch(self) -> list[Call]:
        """Return the requests that are still to go: somebody may have closed a delivery, or opened an earlier one.

        Nobody does so from here on: the lanes stay locked until it is known that these are in hand.
        """
        found = queue.fetch([pk for due in self._chosen for pk in due.pks])
        calls: list[Call] = []
        for due in self._chosen:
            lane = self.owned[due.webhook_id]
            deliveries = [found[pk] for pk in due.pks if pk in found]
            if len(deliveries) == len(due.pks):
                calls.append(Call(deliveries[0], lane.builder, deliveries[1:], lane=lane))
            else:
                lane.put_back(due.pk)
                lane.forget()  # it is read anew
        # Also after a crash a request with this id says the same. If some have left a batch, the rest is a new batch.
        new = [one for one in calls if one.delivery.batch != one.delivery.pk and (one.delivery.batch or one.lane.batch)]
        queue.note_batches([(pk, one.delivery.pk) for one in new for pk in one.pks])
        return calls
