"""The lanes that a worker owns: which they are, what is due in them, and what goes next."""

import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from ...models import Health, Webhook
from ...payload.http_request import Builder
from .. import memory
from ..memory import Payload
from ..registry import Member
from . import batch, latest, queue
from .due import Due, Wish
from .lane import BEGINNING, LATE, Lane, choose
from .share import Share

# Lanes that are taken at a time.
LANES = 200
# Seconds between two looks for lanes while something is in hand; and between two at everything, or FULL_TIMES as long
# as the last one took.
LOOK, FULL, FULL_TIMES = 0.05, 1.0, 20
# Seconds for which others' lanes are counted, so that each worker has as many; and for which only others may take one
# that was given up for them. An idle worker looks every two seconds.
SHARE, GIVEN = 1.0, 4.0


class FullLook:
    """When to look at everything."""

    def __init__(self) -> None:
        self._at = self._took = 0.0

    def is_due(self, clock: float) -> bool:
        return clock > self._at + max(FULL, FULL_TIMES * self._took)

    def note(self, began: float) -> None:
        """One has been done."""
        self._at = time.monotonic()
        self._took = self._at - began


class Owned:
    """The lanes of one worker. Its methods that take `now` are called in the transaction of a turn."""

    def __init__(self, member: Member) -> None:
        self.lanes: dict[int, Lane] = {}
        # By webhook: makes requests by the present definition.
        self.builders: dict[int, Builder] = {}
        # How many deliveries this turn has closed: their objects' others are still to be read.
        self.closed = 0
        self._member = member
        self._room = memory.Room()
        self._share = Share()
        self._looked_at = self._shared_at = 0.0
        self._all_lanes, self._all_due = FullLook(), FullLook()
        # Lanes that others are to have, and until when.
        self._given: dict[int, float] = {}
        self._since = BEGINNING

    @property
    def in_hand(self) -> list[int]:
        """Ids of the deliveries in hand."""
        return [pk for lane in self.lanes.values() for pk in lane.in_hand]

    @property
    def is_busy(self) -> bool:
        """Whether something is in hand, or may soon be."""
        now = time.monotonic()
        return any(lane.in_hand or (lane.waiting and now >= lane.rests_until) for lane in self.lanes.values())

    def look_again(self) -> None:
        """Look for lanes in the next turn."""
        self._looked_at = 0.0

    def choose_next(self, free: int, now: datetime) -> list[list[Due]]:
        """Return the deliveries that go next, each list in one request. `free`: how many threads are."""
        self._take(now)
        self._define()
        whole = self._whole()
        self._read(now)
        return self._choose(free, whole)

    def has_in_hand(self, webhook_id: int, pk: int) -> bool:
        """Return whether the delivery is in hand."""
        lane = self.lanes.get(webhook_id)
        return lane is not None and pk in lane.in_hand

    def put_back(self, webhook_id: int, pks: Iterable[int]) -> None:
        """A request was not begun: its deliveries go next time."""
        if lane := self.lanes.get(webhook_id):
            lane.put_back(pks)

    def put_all_back(self, groups: Iterable[Sequence[Due]]) -> None:
        """Put back the deliveries of several requests."""
        for group in groups:
            self.put_back(group[0].webhook_id, [one.pk for one in group])

    def forget(self) -> None:
        """Nobody knows what was committed: read everything again."""
        self._looked_at, self._since = 0.0, BEGINNING
        for lane in self.lanes.values():
            lane.forget()

    def clear(self) -> None:
        """Others have the lanes."""
        self.lanes.clear()
        self._room = memory.Room()
        self._since = BEGINNING

    def note_health(self, webhook_id: int, health: Health) -> None:
        if builder := self.builders.get(webhook_id):
            builder.webhook.health = health
        if lane := self.lanes.get(webhook_id):
            was_suspended, lane.is_suspended = lane.is_suspended, health.suspended_since is not None
            saved_at = health.webhook.last_updated
            is_gone = health.gone_at is not None and (saved_at is None or health.gone_at > saved_at)
            if lane.is_suspended or is_gone:
                lane.forget()  # READ knows what may go
            elif was_suspended:
                lane.window = 1

    def learn_lanes(self) -> None:
        """Learn which lanes this worker owns. What it has in hand of one is of one: nobody has declared it dead."""
        owned = queue.owned(self._member.pk)
        self.lanes = {pk: lane for pk, lane in self.lanes.items() if pk in owned or lane.in_hand}
        for pk in owned - self.lanes.keys():
            self.lanes[pk] = Lane(pk, used_at=time.monotonic())

    def _take(self, now: datetime) -> None:
        """Own lanes with something due, as many as others own, and leave those in which nothing is due."""
        clock = time.monotonic()
        if clock < self._looked_at + LOOK:
            return
        self._looked_at = clock
        idle = [pk for pk, lane in self.lanes.items() if lane.is_idle(clock) or (lane.is_left and not lane.in_hand)]
        for pk in queue.leave(self._member.pk, idle):
            if self.lanes.pop(pk).is_left:
                self._given[pk] = clock + GIVEN
        self._balance(clock)
        everything = self._all_lanes.is_due(clock) or self._since == BEGINNING
        since = BEGINNING if everything else self._since - LATE
        self._since = now
        self._given = {pk: until for pk, until in self._given.items() if until > clock}
        taken = queue.take(self._member.pk, since, LANES, now, self._given)
        self.lanes |= {pk: Lane(pk, used_at=clock) for pk in taken}
        if everything and len(taken) < LANES:
            self._all_lanes.note(clock)

    def _balance(self, clock: float) -> None:
        if clock < self._shared_at + SHARE or not self.lanes:
            return
        self._shared_at = clock
        surplus = len(self.lanes) - queue.share(len(self.lanes))
        for lane in list(self.lanes.values())[: max(surplus, 0)]:
            lane.is_left = True
            lane.forget()

    def _read(self, now: datetime) -> None:
        self.closed = 0
        clock = time.monotonic()
        everything = self._all_due.is_due(clock)
        wishes = [wish for lane in self.lanes.values() for wish in lane.wishes(everything=everything)]
        if not wishes:
            return
        held = [pk for lane in self.lanes.values() for pk in (*lane.waiting, *lane.in_hand)]
        due = queue.read(wishes, held, now)
        if everything:
            self._all_due.note(clock)
        by_wish: dict[tuple[int, bool], list[Due]] = defaultdict(list)
        for one in due:
            by_wish[one.webhook_id, one.backfill].append(one)
        for wish in wishes:
            self._learn(wish, by_wish[wish.webhook_id, wish.backfill])
        queue.park([one for one in due if one.is_blocked])
        self._replace(due, now)

    def _replace(self, due: Sequence[Due], now: datetime) -> None:
        """Close what later changes make needless. Of a lane in which anything was closed all is read anew."""
        objects = [
            (one.webhook_id, one.object_type_id, one.object_id) for one in due if self.lanes[one.webhook_id].latest_only
        ]
        changed = {one.webhook_id for one in due if not one.backfill}
        in_hand = self.in_hand
        lanes = queue.lock({webhook_id for webhook_id, *_ in objects})
        closed = latest.settle([one for one in objects if one[0] in lanes], now, in_hand)
        closed |= latest.replace_backfills(changed, now, in_hand)
        self.closed = len(closed)
        if closed:
            for pk in {one.webhook_id for one in due}:
                self.lanes[pk].forget()

    def _learn(self, wish: Wish, due: Sequence[Due]) -> None:
        lane = self.lanes[wish.webhook_id]
        lane.learn(wish, due)
        if due:
            lane.used_at = time.monotonic()

    def _choose(self, free: int, whole: Collection[int]) -> list[list[Due]]:
        clock = time.monotonic()
        closed = self._room.waiting
        lanes = [lane for pk, lane in self.lanes.items() if pk not in closed]
        random.shuffle(lanes)  # of backfills few may go: each webhook has its turn
        others_wait = any(lane.has_changes and lane.room(clock) for lane in lanes)
        chosen = choose(lanes, free, clock, self._share.room(free, others_wait=others_wait))
        backfills = sum(group[0].backfill for group in chosen)
        self._share.note(len(chosen) - backfills, backfills)
        for lane in self.lanes.values():
            lane.answered = 0
        refused = self._room.take([Payload(group[0].pk, group[0].webhook_id, _size(group)) for group in chosen])
        self._room.keep(self.in_hand)
        going = []
        for group in chosen:
            if group[0].pk in refused or self._waits_for_more(group, whole):
                self.put_back(group[0].webhook_id, [one.pk for one in group])
            else:
                going.append(group)
        return going

    def _whole(self) -> set[int]:
        """Return the transactions of which all is dispatched, for webhooks that want all of one together.

        To be asked before more is read: so what is read has all of these.
        """
        batches = [lane.waiting.values() for lane in self.lanes.values() if lane.batch]
        known = {one.transaction_id for waiting in batches for one in waiting if one.batch is None}
        return known - queue.unfinished(known)

    def _waits_for_more(self, group: Sequence[Due], whole: Collection[int]) -> bool:
        first = group[0]
        is_open = self.lanes[first.webhook_id].batch and first.batch is None and len(group) < batch.MOST
        return is_open and first.transaction_id not in whole

    def _define(self) -> None:
        """Learn how the webhooks are defined now."""
        known = {pk: builder.webhook.last_updated for pk, builder in self.builders.items()}
        wanted = list(self.lanes)
        found = Webhook.objects.filter(pk__in=wanted).values_list('pk', 'last_updated', 'enabled', 'paused')
        states = {pk: (saved_at, enabled and not paused) for pk, saved_at, enabled, paused in found} if wanted else {}
        stale = [pk for pk, (saved_at, _is_active) in states.items() if saved_at != known.get(pk)]
        for pk, webhook in Webhook.objects.select_related('health').in_bulk(stale).items():
            self.builders[pk] = Builder(webhook)
        for lane in self.lanes.values():
            _saved_at, is_active = states.get(lane.webhook_id, (None, False))
            if not is_active or lane.webhook_id not in self.builders:
                lane.forget()
                continue
            webhook = self.builders[lane.webhook_id].webhook
            lane.concurrency, lane.rate_limit = webhook.concurrency, webhook.rate_limit
            lane.batch, lane.latest_only = webhook.batch, webhook.latest_only
            lane.is_suspended = webhook.health.suspended_since is not None


def _size(group: Sequence[Due]) -> int:
    return sum(one.size for one in group)
