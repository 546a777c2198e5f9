"""The loop that dispatches: batch after batch of events.

taken in hand (committed) ──▶ rendered and matched (no lock, no transaction) ──▶ dispatched (one transaction)

Many may dispatch at a time, and none of them waits for another, nor for whoever sends.
"""

import logging
import time
from collections.abc import Mapping, Sequence, Set
from operator import attrgetter

from django.db import DataError
from redis import RedisError

from ... import conf
from ...interruptions import BROKEN_OFF
from ...models import Event, Webhook
from ...models.delivery import UNFORMED
from .. import memory, sql, transactions
from ..registry import Lost, Member
from . import claim, components, render
from .conditions import Decider
from .matching import Candidate, accepts, is_asked_for, match, open_backfills
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

# {event id: who asked for it}, and what is made of an event: what it shows, and the webhooks that it goes to.
Matches = Mapping[int, Sequence[Candidate]]
Ready = tuple[Shown, list[Webhook]]

# What JSON, UTF-8 or PostgreSQL says of a value that it does not take.
NOT_STORED = (DataError, ValueError)

# Deliveries that may come of a batch, and seconds after which no further slice is rendered: others wait meanwhile.
MOST, BUDGET = 1000, 0.3
# Seconds without dispatch after one was broken off, by PostgreSQL or for want of NetBox's cache.
REST = 5.0

# Of a change set one delivery is due: the others go with it (engine/deliver/change_sets.py).
MAKE = f"""
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, event_count,
        expanded, status, error, created, due_at, expires_at, attempt_count, listed, backfill, change_set, part)
    SELECT gen_random_uuid(), w.id, e.id, e.object_type_id, e.object_id, e.sequence, 1, w.expand <> '{{}}',
        'pending', '', now(),
        CASE WHEN s.change_set IS NULL OR row_number() OVER (PARTITION BY w.id, s.change_set ORDER BY v.position) = 1
             THEN clock_timestamp() END,
        now() + make_interval(secs => %(expire_after)s), 0, false,
        %(keeps_backfill)s AND e.backfill_for IS NOT NULL,
        s.change_set, CASE WHEN s.change_set IS NOT NULL THEN {UNFORMED} END
    FROM unnest(%(webhooks)s::bigint[], %(events)s::bigint[]) WITH ORDINALITY AS v(webhook_id, event_id, position)
    JOIN webhooks_event e ON e.id = v.event_id JOIN webhooks_webhook w ON w.id = v.webhook_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN w.change_set AND e.transaction_id <> 0 AND e.backfill_for IS NULL AND e.caused_by IS NULL
                    AND e.error = '' THEN e.transaction_id END AS change_set
    ) s
    ORDER BY v.position
    RETURNING id, webhook_id, event_id"""

# Nobody asked for these: their kind is not subscribed, or they created and deleted in one transaction.
DISCARD = 'DELETE FROM webhooks_event WHERE id = ANY(%s) AND dispatched_at IS NULL'


class Dispatcher:
    """A process that dispatches; with `suspects` only what was in hand when a worker stopped."""

    def __init__(self, member: Member, *, suspects: bool = False) -> None:
        self._member = member
        self._suspects = suspects
        self._reading = claim.Reading()
        self._decider = Decider()
        self._rests_until = 0.0
        self._in_hand: list[int] = []

    def batch(self) -> int:
        """Dispatch a batch, and return of how many events. After one was broken off, it rests for a while."""
        if time.monotonic() < self._rests_until:
            return 0
        try:
            return self._batch()
        except (*BROKEN_OFF, RedisError) as error:
            # NetBox's cache is away, or PostgreSQL. Nobody knows for how long.
            transactions.recover(error)
            self._rests_until = time.monotonic() + REST
            if not isinstance(error, RedisError):
                self._set_aside()
        except Lost:
            logger.warning('worker=%s lost: it begins anew', self._member.pk)
            self._member.begin()
        return 0

    def _set_aside(self) -> None:
        """One of those in hand may be what breaks off each transaction: they are tried beside all others."""
        try:
            with transactions.short():
                claim.set_aside(self._in_hand)
        except BROKEN_OFF as error:
            transactions.recover(error)

    def _batch(self) -> int:
        self._in_hand = []
        with transactions.short():
            if self._suspects:
                events = claim.take_suspects(self._member)
            else:
                events = claim.take(self._member, self._reading, claim.MOST)
        self._member.confirm()
        self._in_hand = [event.pk for event in events]
        if events:
            left = self._dispatch(events)
            self._reading.note(events, left)
        return len(events)

    def _dispatch(self, events: list[Event]) -> Set[int]:
        """Returns the ids of what is left for another time."""
        matches, changed = match(events)
        components.tell_owners(changed)
        waiting = _take_owners(events, matches)
        unwanted = {event.pk for event in events if not matches[event.pk]}
        needed = components.needed(changed, unwanted)
        wanted = [event for event in events if event.pk not in waiting | (unwanted - needed)]
        first = memory.first_within(wanted, lambda event: len(matches[event.pk]), MOST)
        ready = _render(first, matches, self._decider, self._member.keep_alive)
        back = _not_ready(wanted, ready)
        self._write(wanted, unwanted - needed, ready, back)
        return waiting | back

    def _write(self, wanted: Sequence[Event], unwanted: Set[int], ready: dict[int, Ready], back: Set[int]) -> None:
        """Make the deliveries. What goes back is nobody's again."""
        going = [ready[event.pk] for event in wanted if event.pk in ready and event.pk not in back]
        try:
            self._make(going, unwanted)
        except NOT_STORED:
            # One of them is not taken: singly, it holds up no other.
            for one in going:
                self._make_alone(one)

    def _make_alone(self, ready: Ready) -> None:
        shown, webhooks = ready
        try:
            self._make([ready], is_last=False)
        except NOT_STORED as error:
            logger.exception('event=%s cannot be stored', shown.event.uuid)
            self._make([(render.failed(shown.event, error), webhooks)], is_last=False)

    def _make(self, going: Sequence[Ready], unwanted: Set[int] = frozenset(), *, is_last: bool = True) -> None:
        with transactions.short():
            self._member.beat(events=() if is_last else None)
            if unwanted:
                sql.execute(DISCARD, [list(unwanted)])
            there = render.save([shown for shown, _webhooks in going])
            # It may have been canceled since it was matched.
            goes_on = open_backfills(shown.event for shown, _webhooks in going)
            pairs = [
                (webhook.pk, shown.event.pk)
                for shown, webhooks in going
                if shown.event.pk in there and is_asked_for(shown.event, goes_on)
                for webhook in webhooks
            ]
            make_deliveries(pairs, keeps_backfill=True)
        self._member.confirm()


def _take_owners(events: list[Event], matches: dict[int, list[Candidate]]) -> set[int]:
    """Take what is to be told of owners of components, and return the ids of what has to wait."""
    told = [event for event in events if event.caused_by and matches[event.pk]]
    if not told:
        return set()
    taken = components.take(told, events)
    matches |= {pk: [] for pk in taken.gone}
    events.sort(key=attrgetter('sequence'))
    return taken.waiting


def _render(events: Sequence[Event], matches: Matches, decider: Decider, tick: render.Tick) -> dict[int, Ready]:
    """Return {event id: what it shows and whom it goes to} for as many as the time allows.

    Of the first slice that is all, or as many as the time allows to decide conditions of; one at least.
    """
    asked = {event.pk for event in events if any(one.webhook.needs_before for one in matches[event.pk])}
    began, decided = time.monotonic(), decider.seconds
    ready: dict[int, Ready] = {}
    rendered = 0
    for part in render.render(events, asked, {event.pk: _keys(matches[event.pk]) for event in events}, tick):
        for shown in part:
            ready[shown.event.pk] = shown, _accepting(shown, matches[shown.event.pk], decider)
            rendered += len(shown.text) + len(shown.expanded_text)
            shown.forget()  # it was for conditions
            if decider.seconds - decided > BUDGET:
                return ready
        if rendered > memory.RENDERED or time.monotonic() - began > BUDGET:
            break
    return ready


def _keys(candidates: Sequence[Candidate]) -> set[str]:
    return {key for one in candidates for key in one.webhook.expand}


def _accepting(shown: Shown, candidates: Sequence[Candidate], decider: Decider) -> list[Webhook]:
    """Return the webhooks that the event is delivered to."""
    accepting = [one.webhook for one in candidates if accepts(one, shown, decider)]
    shown.skipped = len(candidates) - len(accepting)
    return accepting


def _not_ready(wanted: Sequence[Event], ready: Mapping[int, Ready]) -> set[int]:
    """Return the ids of what was not rendered, and of all later events of the same objects."""
    back, objects = set(), set()
    for event in wanted:
        key = event.object_type_id, event.object_id
        if event.pk not in ready or key in objects:
            objects.add(key)
            back.add(event.pk)
    return back


def make_deliveries(pairs: Sequence[tuple[int, int]], *, keeps_backfill: bool = False) -> list[tuple[int, int, int]]:
    """Make a delivery of each (id of a webhook, id of an event), due at once. Waits for no lock.

    Returns (id, id of the webhook, id of the event) of each. Of webhooks that were deleted none is made.

    `keeps_backfill`: what is recorded for a backfill is sent as its part. Otherwise somebody has asked for it: a change
    does not replace it, and neither a pause nor a cancel of the backfill means it.
    """
    if not pairs:
        return []
    webhooks, events = map(list, zip(*pairs, strict=True))
    parameters = {'webhooks': webhooks, 'events': events}
    return sql.fetch(MAKE, {**parameters, 'expire_after': conf.get().expire_after, 'keeps_backfill': keeps_backfill})
