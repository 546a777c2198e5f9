"""Takes and leaves lanes for a worker, reads their due deliveries, and chooses the requests that go next."""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ...choices import StatusChoices
from ...models import Webhook
from ...payload.http_request import Builder
from ..each import FullLook
from ..registry import Member
from . import change_sets, endpoint, feed, order, queue, quiet, superseding
from .build import Call
from .choice import choose
from .endpoint import Entry
from .lane import BEGINNING, COMMIT_LAG, INACTIVE, Due, Lane

# Lanes that a look takes at most.
LANES_PER_TAKE = 200
# Between two looks for free lanes.
TAKE_SECONDS = 0.05
# A lane that is given up is for others during this time: each looks at all lanes within that time, if it is not slow.
GIVEN_SECONDS = 2.0
# A worker that ends when nothing is due waits for lanes that rest no longer than this.
SHORT_REST_SECONDS = 1.0


@dataclass
class Turn:
    """What a turn does to lanes. It counts in memory once its transaction is committed, by Lanes.apply(), or never."""

    # By PostgreSQL, and by time.monotonic().
    now: datetime
    clock: float
    # The lanes that it has locked, by their webhooks' ids. It works on no others.
    lanes: dict[int, Lane]
    # Superseded or published, without requests.
    closed: list[Entry] = field(default_factory=list)
    # What goes next, each with its request, which is not built.
    chosen: list[tuple[Due, Call]] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """Return the requests that are to begin after the commit."""
        return [call for _due, call in self.chosen]

    def is_quiet(self, one: Due) -> bool:
        """Whether the delivery's webhook waits until its objects are quiet."""
        return self.lanes[one.webhook_id].quiet is not None

    def note_superseded(self, counts: Mapping[int, int]) -> None:
        """Note how many deliveries were superseded, by the webhook's id. Their lanes are read anew."""
        self.closed += endpoint.entries(StatusChoices.SUPERSEDED, counts)
        for webhook_id in counts:
            self.lanes[webhook_id].forget()


class Lanes:
    """The lanes that a worker owns. Each turn is opened, then chooses or leaves, and is applied after its commit.

    `owned`: each lane by its webhook's id.
    """

    def __init__(self, member: Member) -> None:
        self.owned: dict[int, Lane] = {}
        self._member = member
        self._looked_at = 0.0
        self._all_lanes, self._all_due = FullLook(), FullLook()
        # The last turn has locked these.
        self._locked: set[int] = set()
        # Lanes for others, and until when.
        self._given: dict[int, float] = {}
        self._since = BEGINNING

    @property
    def in_hand(self) -> list[int]:
        """Return the ids of all deliveries whose requests have begun, or are to begin now."""
        return [pk for lane in self.owned.values() for one in lane.in_hand.values() for pk in one.pks]

    @property
    def is_busy(self) -> bool:
        """Whether anything is in hand, or soon may be: a worker that ends when nothing is due waits for that.

        It does not wait for the rest of a transaction, which may be put off for minutes.
        """
        soon = time.monotonic() + SHORT_REST_SECONDS
        return bool(self.owned.keys() - self._locked) or any(
            lane.in_hand
            or any(one.is_formed or one.transaction_id not in lane.unfinished for one in lane.waiting.values())
            for lane in self.owned.values()
            if lane.in_hand or soon >= lane.rests_until
        )

    def look_again(self) -> None:
        """Let the next turn look for free lanes, however short ago the last one did."""
        self._looked_at = 0.0

    def forget(self) -> None:
        """Forget which deliveries the turn has read: its transaction was broken off. The next turn reads all anew."""
        self._looked_at, self._since = 0.0, BEGINNING
        for lane in self.owned.values():
            lane.forget()

    def clear(self) -> None:
        """Forget all lanes: this worker was declared dead, and others have them."""
        self.owned.clear()
        self.forget()

    def open_turn(self, now: datetime) -> Turn:
        """Lock the worker's lanes, unless somebody holds them, and return a turn with them.

        PostgreSQL tells which are this worker's. So if a commit was cut off, it is known here whether it was done.
        """
        clock = time.monotonic()
        locked = queue.lock_owned(self._member.pk)
        for pk in self.owned.keys() - locked:
            self.owned[pk].used_at = clock  # it may have due deliveries
        return Turn(now, clock, {pk: self.owned.get(pk) or Lane(pk, used_at=clock) for pk in locked})

    def choose_next(self, turn: Turn, free: int) -> None:
        """Choose the requests that go next. `free`: how many threads are.

        On the way it takes and leaves lanes, forms change sets, and holds, merges and publishes deliveries, all in the
        open transaction. If that is broken off, drop the turn, and call forget().
        """
        self._take(turn)
        self._define(turn)
        self._form(turn)
        self._read(turn)
        held = self._held(turn)
        turn.closed += feed.publish([pk for lane in held if lane.is_feed for pk in lane.withdraw()], turn.now)
        turn.chosen += self._fetch(turn, choose(held, free, turn.clock))

    def leave_all(self, turn: Turn) -> None:
        """Let others have all lanes with nothing in hand."""
        self._let_go(turn, {pk for pk, lane in turn.lanes.items() if not lane.in_hand})

    def apply(self, turn: Turn) -> None:
        """Take over what the turn did, after its commit: own the lanes that it took, and have in hand what it chose."""
        self.owned |= turn.lanes
        self._locked = set(turn.lanes)
        for lane in turn.lanes.values():
            lane.answered = 0
        for due, call in turn.chosen:
            call.lane.begin(due, turn.clock)

    def _held(self, turn: Turn) -> list[Lane]:
        """Return the lanes that the turn works on: it has locked them, and they are not for others."""
        return [lane for pk, lane in turn.lanes.items() if pk not in self._given]

    #
    # Which lanes
    #

    def _take(self, turn: Turn) -> None:
        """Own lanes with due deliveries, as many as others own, and leave idle ones."""
        if turn.clock < self._looked_at + TAKE_SECONDS:
            return
        self._looked_at = turn.clock
        everything = self._all_lanes.is_due(turn.clock)
        self._leave(turn)
        if everything:
            self._give(turn.clock)
        since = BEGINNING if everything else self._since - COMMIT_LAG
        taken = queue.take(self._member.pk, since, LANES_PER_TAKE, turn.now, self._given)
        # If there are more, the next look goes on.
        self._since = turn.now if len(taken) < LANES_PER_TAKE else since
        if everything:
            taken |= queue.take_saved(self._member.pk, LANES_PER_TAKE, turn.now, self._given)
        turn.lanes |= {pk: Lane(pk, used_at=turn.clock) for pk in taken}
        if everything:
            self._all_lanes.note(turn.clock, time.monotonic())

    def _give(self, clock: float) -> None:
        """Give up surplus lanes: the ones it can leave soonest, each in its turn.

        Otherwise a worker that an operator adds because of a backlog gets none: its lanes are never idle.
        """
        surplus = len(self.owned) - queue.share(len(self.owned))
        soonest = sorted(self.owned, key=lambda pk: (pk in self._given, len(self.owned[pk].in_hand)))
        for pk in soonest[: max(surplus, 0)]:
            self._given[pk] = clock + GIVEN_SECONDS
            self.owned[pk].forget()

    def _leave(self, turn: Turn) -> None:
        self._given = {pk: until for pk, until in self._given.items() if until > turn.clock}
        given = {pk for pk in turn.lanes.keys() & self._given.keys() if not turn.lanes[pk].in_hand}
        self._let_go(turn, given | {pk for pk, lane in turn.lanes.items() if lane.is_idle(turn.clock)})

    def _let_go(self, turn: Turn, left: set[int]) -> None:
        """Leave lanes with nothing in hand, in memory at once.

        If the turn is broken off, open_turn() finds them again. If its commit was cut off after it was done, others
        have them: kept in memory until apply(), they would stay there.
        """
        queue.leave(left)
        for pk in left:
            del turn.lanes[pk]
            self.owned.pop(pk, None)

    def _define(self, turn: Turn) -> None:
        lanes = self.owned | turn.lanes
        states = queue.states(lanes, turn.now) if lanes else {}
        stale = [pk for pk in states if not lanes[pk].builder or lanes[pk].state.saved_at != states[pk].saved_at]
        for pk, webhook in Webhook.objects.select_related('health').in_bulk(stale).items():
            lanes[pk].define(Builder(webhook))
        for pk, lane in lanes.items():
            lane.note_state(states[pk] if lane.builder and pk in states else INACTIVE)
        queue.retry([lane.webhook_id for lane in self._held(turn) if lane.state.is_saved], turn.now)

    #
    # Due deliveries
    #

    def _form(self, turn: Turn) -> None:
        """Form the change sets of transactions that are dispatched to the end: their parts are read after that."""
        held = self._held(turn)
        sets = {(lane.webhook_id, one.transaction_id) for lane in held for one in lane.unformed}
        growing: dict[int, set[int]] = defaultdict(set)
        for webhook_id, transaction in sets & queue.growing(sets):
            growing[webhook_id].add(transaction)
        for lane in held:
            lane.unfinished = growing[lane.webhook_id]
        whole = [one for lane in held for one in lane.unformed if one.transaction_id not in lane.unfinished]
        # A set must not wait for a backfill of its objects.
        webhooks = {one.webhook_id for one in whole}
        turn.note_superseded(superseding.replace_backfills(webhooks, turn.now, self.in_hand))
        settled = change_sets.form({(one.webhook_id, one.change_set) for one in whole}, turn.now)
        for one in whole:
            if (one.webhook_id, one.change_set) in settled:
                turn.lanes[one.webhook_id].waiting.pop(one.pk, None)

    def _read(self, turn: Turn) -> None:
        clock = time.monotonic()
        everything = self._all_due.is_due(clock)
        held = self._held(turn)
        requests = [request for lane in held for request in lane.read_requests(everything=everything)]
        if not requests:
            return
        due = queue.read(requests, [pk for lane in held for pk in lane.known], turn.now)
        if everything:
            self._all_due.note(clock, time.monotonic())
        waits = self._hold(turn, due)
        waits |= quiet.postpone([one.pk for one in due if turn.is_quiet(one) and one.pk not in waits], turn.now)
        by_request: dict[tuple[int, bool], list[Due]] = defaultdict(list)
        for one in due:
            by_request[one.webhook_id, one.backfill].append(one)
        for request in requests:
            found = by_request[request.webhook_id, request.backfill]
            turn.lanes[request.webhook_id].learn(request, found, clock, waits)
        self._supersede(turn, due, waits)

    def _hold(self, turn: Turn, due: Sequence[Due]) -> set[int]:
        """Hold deliveries that wait for an earlier one of their object. Returns their ids."""
        blocked = order.blocked([pk for one in due for pk in one.pks])
        held = {one.pk for one in due if not blocked.isdisjoint(one.pks)}
        order.hold(held, turn.now)
        return held

    def _supersede(self, turn: Turn, due: Sequence[Due], waits: Collection[int]) -> None:
        """Close deliveries that others make needless. `waits`: the ids of those that are due, but have to wait."""
        folding = [one for one in due if turn.lanes[one.webhook_id].folds(one, waits)]
        objects = [(one.webhook_id, one.object_type_id, one.object_id) for one in folding]
        changed = {one.webhook_id for one in due if not one.backfill}
        turn.note_superseded(superseding.supersede(objects, turn.now, self.in_hand))
        turn.note_superseded(superseding.replace_backfills(changed, turn.now, self.in_hand))

    def _fetch(self, turn: Turn, chosen: Sequence[Due]) -> list[tuple[Due, Call]]:
        """Return what is still to go, with its request: somebody may have closed a delivery, or opened an earlier one.

        Nobody does so from here on: the lanes stay locked until it is known that these are in hand.
        """
        found = queue.fetch([pk for due in chosen for pk in due.pks])
        going: list[tuple[Due, Call]] = []
        for due in chosen:
            lane = turn.lanes[due.webhook_id]
            deliveries = [found[pk] for pk in due.pks if pk in found]
            if len(deliveries) == len(due.pks):
                going.append((due, Call(deliveries[0], lane.builder, deliveries[1:], lane=lane)))
            else:
                lane.forget()  # it is read anew
        return going
