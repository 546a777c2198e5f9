"""Finds the requests that go next, in the transaction of a sender's turn.

Each step is a method of Turn, and each has a file of its statements. The lanes in memory follow once
its transaction is committed (lanes.py).
"""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ...choices import StatusChoices
from ..each import FullLook
from . import change_sets, endpoint, feed, order, queue, quiet, superseding
from .build import Call
from .choice import choose
from .endpoint import Entry
from .lane import Due, Lane


@dataclass
class Turn:
    """A turn with the lanes that it has locked, by their webhooks' ids. It works on no others.

    `now` is by PostgreSQL, `clock` by time.monotonic(). `chosen`: what goes next, each with its request, which is not
    built. `closed`: what was superseded or published, without requests.
    """

    now: datetime
    clock: float
    lanes: dict[int, Lane]
    chosen: list[tuple[Due, Call]] = field(default_factory=list)
    closed: list[Entry] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """Return the requests that are to begin after the commit."""
        return [call for _due, call in self.chosen]

    def choose_next(self, lanes: Sequence[Lane], free: int, look: FullLook) -> None:
        """Choose the requests that go next from these lanes. `free`: how many threads are free.

        `look` says when due deliveries are read from the beginning of the lanes, and not from their marks.
        """
        self._form(lanes)
        self._read(lanes, look)
        published = [pk for lane in lanes if lane.is_feed for pk in lane.withdraw()]
        self.closed += feed.publish(published, self.now)
        self.chosen += self._fetch(choose(lanes, free, self.clock))

    def _form(self, lanes: Sequence[Lane]) -> None:
        """Form the change sets of transactions that are dispatched to the end: their parts are read after that."""
        unformed = {lane.webhook_id: lane.unformed for lane in lanes}
        growing = queue.growing({(pk, one.change_set) for pk, waiting in unformed.items() for one in waiting})
        whole: list[Due] = []
        for lane in lanes:
            transactions = {one.change_set for one in unformed[lane.webhook_id]}
            lane.unfinished = {one for one in transactions if (lane.webhook_id, one) in growing}
            whole += [one for one in unformed[lane.webhook_id] if one.change_set not in lane.unfinished]
        # A set must not wait for a backfill of its objects.
        self._replace_backfills({one.webhook_id for one in whole})
        settled = change_sets.form({(one.webhook_id, one.change_set) for one in whole}, self.now)
        for one in whole:
            if (one.webhook_id, one.change_set) in settled:
                self.lanes[one.webhook_id].waiting.pop(one.pk, None)

    def _read(self, lanes: Sequence[Lane], look: FullLook) -> None:
        """Read due deliveries into the lanes' memory, unless they have to wait. Close those that others replace."""
        clock = time.monotonic()
        everything = look.is_due(clock)
        requests = [request for lane in lanes for request in lane.read_requests(everything=everything)]
        if not requests:
            return
        due = queue.read(requests, [pk for lane in lanes for pk in lane.known], self.now)
        if everything:
            look.note(clock, time.monotonic())
        held = self._hold(due)
        free = [one for one in due if one.pk not in held]
        postponed = quiet.postpone([one.pk for one in free if self.lanes[one.webhook_id].quiet is not None], self.now)
        by_request: dict[tuple[int, bool], list[Due]] = defaultdict(list)
        for one in due:
            by_request[one.webhook_id, one.backfill].append(one)
        for request in requests:
            found = by_request[request.webhook_id, request.backfill]
            self.lanes[request.webhook_id].learn(request, found, clock, held | postponed)
        self._supersede(due, held | postponed)

    def _hold(self, due: Sequence[Due]) -> set[int]:
        """Hold deliveries that wait for an earlier one of their object, or put them off. Returns their ids."""
        blocked = order.blocked([pk for one in due for pk in one.pks])
        held = [one for one in due if not blocked.isdisjoint(one.pks)]
        parts = {one.pk for one in held if one.lead}
        ids = {one.pk for one in held}
        order.hold(ids - parts, parts, self.now)
        return ids

    def _supersede(self, due: Sequence[Due], waits: Collection[int]) -> None:
        """Close deliveries that others make needless. `waits`: the ids of due deliveries that have to wait."""
        folding = [one for one in due if self.lanes[one.webhook_id].folds(one, waits)]
        objects = [(one.webhook_id, one.object_type_id, one.object_id) for one in folding]
        self._note_superseded(superseding.supersede(objects, self.now, self._in_hand))
        self._replace_backfills({one.webhook_id for one in due if not one.backfill})

    def _replace_backfills(self, webhook_ids: Collection[int]) -> None:
        self._note_superseded(superseding.replace_backfills(webhook_ids, self.now, self._in_hand))

    @property
    def _in_hand(self) -> list[int]:
        return [pk for lane in self.lanes.values() for one in lane.in_hand.values() for pk in one.pks]

    def _note_superseded(self, counts: Mapping[int, int]) -> None:
        """Note how many deliveries were superseded, by the webhook's id. Their lanes are read anew."""
        self.closed += endpoint.entries(StatusChoices.SUPERSEDED, counts)
        for webhook_id in counts:
            self.lanes[webhook_id].forget()

    def _fetch(self, chosen: Sequence[Due]) -> list[tuple[Due, Call]]:
        """Return the deliveries that still may go, with their requests.

        Somebody may have closed one, or redelivered an earlier one. From here on nobody closes one: the lanes stay
        locked until it is known that these are in hand. An earlier one that is redelivered later comes after it.
        """
        found = queue.fetch([pk for due in chosen for pk in due.pks])
        going: list[tuple[Due, Call]] = []
        for due in chosen:
            lane = self.lanes[due.webhook_id]
            deliveries = [found[pk] for pk in due.pks if pk in found]
            if len(deliveries) == len(due.pks):
                going.append((due, Call(deliveries[0], lane.builder, deliveries[1:], lane=lane)))
            else:
                lane.forget()  # it is read anew
        return going
