"""From events to deliveries: events are claimed, rendered and matched; then deliveries are made, due at once.

    claimed (a lease, committed) ──▶ rendered and matched (no lock, no transaction) ──▶ dispatched (one transaction)

Many may dispatch at a time, and none of them waits for another, nor for whoever sends: a delivery is made without the
lane of its webhook. Which one goes before which is looked at when it is claimed (ordering.py).
"""

import logging
import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import replace
from operator import attrgetter

from django.db import DataError
from redis import RedisError

from .. import conf
from ..interruptions import BROKEN_OFF
from ..models import Event, Webhook
from . import batching, components, event_claims, event_rendering, lanes, memory, sql
from .conditions import Decider
from .event_rendering import Shown
from .matching import Candidate, accepts, is_asked_for, match, open_backfills

logger = logging.getLogger('webhooks.dispatch')

# {event id: who asked for it}, and what is made of an event: what it shows, and the webhooks that it goes to.
Matches = Mapping[int, Sequence[Candidate]]
Ready = tuple[Shown, list[batching.Pair]]
# The id of a delivery, and what it was made of.
Made = tuple[int, batching.Group]

# What JSON, UTF-8 or PostgreSQL says of a value that it does not take.
NOT_STORED = (DataError, ValueError)

# Events of a batch.
BATCH = 200
# Deliveries that may come of a batch, and seconds after which no further slice is rendered: others wait meanwhile. More
# where webhooks ask for batches, so that the events of a transaction stay together, as long as no other one waits.
MOST, MOST_PATIENT = 1000, 5000
BUDGET, BUDGET_PATIENT = 0.3, 5.0
# Seconds without dispatch after one was broken off, by PostgreSQL or for want of NetBox's cache.
REST = 5.0

MAKE = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, event_count,
        expanded, status, error, created, due_at, expires_at, attempt_count, listed, backfill)
    SELECT gen_random_uuid(), v.webhook_id, e.id, e.object_type_id, e.object_id, e.sequence, v.event_count,
        coalesce((SELECT w.expand <> '{}' FROM webhooks_webhook w WHERE w.id = v.webhook_id), false),
        'pending', '', now(), now(), now() + make_interval(secs => %(expire_after)s), 0, false,
        %(keeps_backfill)s AND e.backfill_for IS NOT NULL
    FROM unnest(%(webhooks)s::bigint[], %(events)s::bigint[], %(counts)s::int[])
        WITH ORDINALITY AS v(webhook_id, event_id, event_count, position)
    JOIN webhooks_event e ON e.id = v.event_id
    ORDER BY v.position
    RETURNING id"""

ADD_ITEMS = """
    INSERT INTO webhooks_batchitem (delivery_id, event_id, webhook_id, object_type_id, object_id, sequence, open)
    SELECT d.id, e.id, d.webhook_id, e.object_type_id, e.object_id, e.sequence, true
    FROM unnest(%s::bigint[], %s::bigint[]) AS v(delivery_id, event_id)
    JOIN webhooks_delivery d ON d.id = v.delivery_id
    JOIN webhooks_event e ON e.id = v.event_id"""

# Nobody asked for these: their kind is not subscribed, or they created and deleted in one transaction.
DISCARD = 'DELETE FROM webhooks_event WHERE id = ANY(%s) AND lease = %s'


class Dispatcher:
    """What a job dispatches, under its lease. `call` wakes another worker where more waits than one batch holds."""

    def __init__(self, lease: uuid.UUID, call: Callable[[], None]) -> None:
        self._lease = lease
        self._call = call
        self._decider = Decider()
        self._rests_until = 0.0

    def batch(self) -> int:
        """Dispatch a batch, and return of how many events. After one was broken off, what is due goes out first."""
        if time.monotonic() < self._rests_until:
            return 0
        try:
            count = dispatch(self._lease, self._decider)
        except (*BROKEN_OFF, RedisError) as error:
            lanes.recover(error)
            self._rests_until = time.monotonic() + REST
            return 0
        if count >= BATCH:
            self._call()
        return count


def dispatch(lease: uuid.UUID, decider: Decider | None = None, *, suspect: bool = False) -> int:
    """Dispatch a batch of events, claimed under the lease. Returns how many were claimed; 0: there is nothing to do.

    They are BATCH of the oldest and a few of the newest, or as many as one request may hold where webhooks ask for
    batches; or one `suspect`, which was in hand when a worker stopped. Raises what ends a transaction or a job
    (interruptions.py), and RedisError where NetBox's cache is away: the next call with the lease takes them up.
    """
    if not event_claims.is_any_waiting():
        return 0
    batches = Webhook.objects.filter(batch=True, enabled=True).exists()
    with lanes.turn():
        if suspect:
            events, dealt = event_claims.claim_suspect(lease), set()
        else:
            events, dealt = event_claims.claim(lease, batching.MAX_EVENTS if batches else BATCH)
    if events:
        matches, changed = match(events)
        components.tell_owners(changed)
        waiting = _take_owners(lease, events, matches)
        is_patient = batches and not dealt
        unwanted = {event.pk for event in events if not matches[event.pk]}
        needed = components.needed(changed, unwanted)
        ready = [event for event in events if event.pk not in waiting | (unwanted - needed)]
        wanted = _first(ready, dealt, matches, MOST_PATIENT if is_patient else MOST)
        try:
            shown = _render(wanted, matches, decider or Decider(), is_patient=is_patient)
        except RedisError:
            # NetBox's cache is away. None of them is to blame, and nobody knows for how long. A suspect is put off.
            if not suspect:
                with lanes.turn():
                    event_claims.give_back(lease, {event.pk for event in events})
            raise
        _write(lease, events, matches, shown, needed)
    return len(events)


def _take_owners(lease: uuid.UUID, events: list[Event], matches: dict[int, list[Candidate]]) -> set[int]:
    """Take what is to be told of owners of components, and return the ids of what has to wait."""
    told = [event for event in events if event.caused_by and matches[event.pk]]
    if not told:
        return set()
    taken = components.take(lease, told, events)
    matches |= {pk: [] for pk in taken.gone}
    events.sort(key=attrgetter('sequence'))
    return taken.waiting


def _first(events: Sequence[Event], dealt: set[int], matches: Matches, most: int) -> Sequence[Event]:
    """Return the events, the newest transactions first, as far as they make `most` deliveries."""
    wanted = sorted(events, key=lambda event: event.pk not in dealt)
    return memory.first_within(wanted, lambda event: len(matches[event.pk]), most)


def _render(events: Sequence[Event], matches: Matches, decider: Decider, *, is_patient: bool) -> dict[int, Ready]:
    """Return {event id: what it shows and whom it goes to} for as many as the time allows.

    Of the first slice that is all, or as many as the time allows to decide conditions of; one at least.
    """
    asked = {event.pk for event in events if any(one.webhook.needs_before for one in matches[event.pk])}
    began, decided = time.monotonic(), decider.seconds
    ready: dict[int, Ready] = {}
    rendered = 0
    for part in event_rendering.render(events, asked, {event.pk: _keys(matches[event.pk]) for event in events}):
        for shown in part:
            ready[shown.event.pk] = shown, _pairs(shown, matches[shown.event.pk], decider)
            rendered += len(shown.text) + len(shown.expanded_text)
            shown.forget()  # it was for conditions
            if _is_over(decider.seconds - decided, events, is_patient=is_patient):
                return ready
        if rendered > memory.RENDERED or _is_over(time.monotonic() - began, events, is_patient=is_patient):
            break
    return ready


def _is_over(took: float, events: Sequence[Event], *, is_patient: bool) -> bool:
    if took <= BUDGET:
        return False
    return not is_patient or took > BUDGET_PATIENT or event_claims.is_another_waiting(events)


def _keys(candidates: Sequence[Candidate]) -> set[str]:
    return {key for one in candidates for key in one.webhook.expand}


def _pairs(shown: Shown, candidates: Sequence[Candidate], decider: Decider) -> list[batching.Pair]:
    """Return what the event is delivered to."""
    accepting = [one.webhook for one in candidates if accepts(one, shown, decider)]
    shown.skipped = len(candidates) - len(accepting)
    return [batching.Pair(webhook, shown.event, shown.size(webhook), bool(shown.error)) for webhook in accepting]


def _write(
    lease: uuid.UUID,
    events: Sequence[Event],
    matches: Matches,
    ready: dict[int, Ready],
    needed: Set[int],
) -> None:
    """Make the deliveries, and give back what was not rendered."""
    unwanted = [event.pk for event in events if not matches[event.pk] and event.pk not in needed]
    back = _not_ready([event for event in events if event.pk not in unwanted], ready)
    going = [ready[event.pk] for event in events if event.pk in ready and event.pk not in back]
    with lanes.turn():
        sql.execute(DISCARD, [unwanted, lease])
        event_claims.give_back(lease, back)
    try:
        _make(lease, going)
    except NOT_STORED:
        # One of them is not taken: singly, it holds up no other.
        for one in going:
            _make_alone(lease, one)


def _make_alone(lease: uuid.UUID, ready: Ready) -> None:
    shown, pairs = ready
    try:
        _make(lease, [ready])
    except NOT_STORED as error:
        logger.exception('event=%s cannot be stored', shown.event.uuid)
        reason = event_rendering.failed(shown.event, error)
        _make(lease, [(reason, [replace(pair, failed=True) for pair in pairs])])


def _make(lease: uuid.UUID, going: Sequence[Ready]) -> None:
    with lanes.turn():
        kept = event_claims.keep(lease, [shown.event.pk for shown, _pairs in going])
        ours = event_rendering.save([shown for shown, _pairs in going if shown.event.pk in kept], lease)
        # It may have been canceled since it was matched.
        goes_on = open_backfills(shown.event for shown, _pairs in going)
        shown_to = [pairs for shown, pairs in going if shown.event.pk in ours and is_asked_for(shown.event, goes_on)]
        pairs = [pair for pairs in shown_to for pair in pairs]
        make_deliveries(batching.group(pairs), keeps_backfill=True)


def _not_ready(wanted: Sequence[Event], ready: Container[int]) -> set[int]:
    """Return the ids of what was not rendered, and of all later events of the same objects."""
    back, objects = set(), set()
    for event in wanted:
        key = event.object_type_id, event.object_id
        if event.pk not in ready or key in objects:
            objects.add(key)
            back.add(event.pk)
    return back


def make_deliveries(groups: Sequence[batching.Group], *, keeps_backfill: bool = False) -> list[Made]:
    """Make a delivery of each group, due at once, and return their ids with the groups. Waits for no lock.

    Of webhooks that were deleted none is made.

    `keeps_backfill`: what is recorded for a backfill is sent as its part. Otherwise somebody has asked for it: a change
    does not replace it, and neither a pause nor a cancel of the backfill means it.
    """
    there = set(Webhook.objects.filter(pk__in={group.webhook_id for group in groups}).values_list('pk', flat=True))
    groups = [group for group in groups if group.webhook_id in there]
    if not groups:
        return []
    ids = sql.fetch_column(
        MAKE,
        {
            'expire_after': conf.get().expire_after,
            'keeps_backfill': keeps_backfill,
            'webhooks': [group.webhook_id for group in groups],
            'events': [group.event_ids[-1] for group in groups],
            'counts': [len(group.event_ids) for group in groups],
        },
    )
    made = list(zip(ids, groups, strict=True))
    _add_items(made)
    return made


def _add_items(made: Sequence[Made]) -> None:
    items = [(pk, event_id) for pk, group in made if len(group.event_ids) > 1 for event_id in group.event_ids]
    if items:
        sql.execute(ADD_ITEMS, [list(column) for column in zip(*items, strict=True)])
