"""Events are rendered: each gets its `data`, or the reason why there is none.

A group of events that raises is rendered event by event, so that one bad event holds up no other.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from redis import RedisError

from ... import rendering
from ...choices import KindChoices
from ...interruptions import is_cache_away
from ...models import Event, Webhook
from ...rendering import expansion
from ...storable import storable
from .. import memory, sql, time_limit
from ..registry import GIVEN_UP
from . import expansions

logger = logging.getLogger('webhooks.dispatch')

# Seconds that rendering one slice should take: whoever renders looks at the time between two.
SLICE_TIME = 0.2
# Events in the first slice of a model whose speed is unknown, and in any at most: what a slice points to is looked up
# together, and held in memory.
FIRST_SLICE, LARGEST_SLICE = 25, 200
# Seconds that rendering a slice, or an event alone, may take: only what hangs takes so long. The first time that a
# process renders a model it looks up much of NetBox. Of a model of which one has hung, others have less, until another
# one is rendered: everybody waits meanwhile.
FIRST, LONGEST, SHORT = 120.0, 30.0, 5.0
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

# {event id: keys of what webhooks want expanded}
Keys = Mapping[int, Collection[str]]
Tick = Callable[[], object]

SAVE = """
    UPDATE webhooks_event e
    SET data = v.data, object_repr = v.display, error = v.error, snapshots = v.snapshots, dispatched_at = now(),
        partial = v.partial, expanded = v.expanded, expanded_types = v.expanded_types, skipped = v.skipped,
        retry_at = NULL,
        first_sequence = NULL, visible = NULL, first_visible = NULL,
        -- What could not be rendered may be rendered by a later version.
        snapshot = CASE WHEN v.error = '' THEN NULL ELSE e.snapshot END,
        prechange = CASE WHEN v.error = '' THEN NULL ELSE e.prechange END
    FROM unnest(%s::bigint[], {data}::text[], %s::text[], %s::text[], {snapshots}::jsonb[], %s::jsonb[],
        {expanded}::text[], %s::jsonb[], %s::int[])
        AS v(id, data, display, error, snapshots, partial, expanded, expanded_types, skipped)
    WHERE e.id = v.id
    RETURNING e.id"""

# How much is stored of what an event is rendered from. It is not read for that.
SIZES = """
    SELECT id, coalesce(pg_column_size(snapshot), 0) + coalesce(pg_column_size(prechange), 0)
    FROM webhooks_event WHERE id = ANY(%s)"""


@dataclass
class Shown:
    """An event and what became of rendering it: `data` for conditions, or the reason why there is none."""

    event: Event
    data: dict | None = None
    text: str = ''
    display: str = ''
    error: str = ''
    snapshots: dict | None = None
    partial: Sequence[str] = ()
    # What webhooks have asked for of what it points to, by URL.
    expanded: Mapping[str, expansion.Data] = field(default_factory=dict)
    # Webhooks that asked for the event and did not take it.
    skipped: int = 0

    def data_for(self, webhook: Webhook) -> dict | None:
        """Return what the webhook is shown of the object."""
        if self.data is None or not webhook.expand:
            return self.data
        return expansion.merge(self.data, expansion.tree_of(webhook.expand), self.expanded)[0]

    def forget(self) -> None:
        """Keep the texts alone, which are stored."""
        self.data, self.expanded = None, {url: {} for url in self.expanded} if self.expanded_text else {}

    @cached_property
    def snapshots_text(self) -> str:
        return _dumps(self.snapshots) if self.snapshots else ''

    @cached_property
    def expanded_text(self) -> str:
        return _dumps(self.expanded) if self.expanded else ''


def render(
    events: Sequence[Event], asked: Set[int], keys: Keys | None = None, tick: Tick | None = None
) -> Iterator[list[Shown]]:
    """Yield what events show, a slice of one model at a time; those in `asked`, by id, with snapshots.

    What they point to by `keys` is expanded. `tick` is called now and then by another thread while a slice takes long.
    """
    by_type = defaultdict(list)
    for event in events:
        by_type[event.object_type_id].append(event)
    sizes = _sizes(events)
    for object_type_id, group in by_type.items():
        model = ContentType.objects.get_for_id(object_type_id).model_class()
        for part in _slices(model, group, sizes):
            yield _with_expanded(_render_model(model, part, asked, tick), keys or {})


def render_again(events: Sequence[Event], asked: Set[int], keys: Keys | None = None) -> None:
    """Render events that are dispatched, and write what they show: as many webhooks skip them as before."""
    for part in render(events, asked, keys):
        save([replace(one, skipped=one.event.skipped) for one in part])


def save(shown: Sequence[Shown]) -> set[int]:
    """Write what events show. Returns the ids of those that are there: they are dispatched."""
    if not shown:
        return set()
    # What may be long is a parameter each: to write a list of it takes four times as long, and more memory.
    array = f'ARRAY[{", ".join(["%s"] * len(shown))}]'
    parameters = [
        [one.event.pk for one in shown],
        *[one.text for one in shown],
        [one.display for one in shown],
        [one.error for one in shown],
        *[one.snapshots_text or None for one in shown],
        [ENCODER.encode(one.partial) if one.partial else None for one in shown],
        *[one.expanded_text or None for one in shown],
        [ENCODER.encode(expansions.types_of(one.expanded)) if one.expanded else None for one in shown],
        [one.skipped for one in shown],
    ]
    return set(sql.fetch_column(SAVE.format(data=array, snapshots=array, expanded=array), parameters))


# {model: seconds that it may take}, where that is not FIRST.
_limits: dict[type, float] = {}
# {model: seconds that an object took to render}
_seconds_each: dict[type | None, float] = {}


def _slices(model: type | None, events: Sequence[Event], sizes: Mapping[int, int]) -> Iterator[Sequence[Event]]:
    """Yield the events in slices, each of which takes SLICE_TIME to render, by what the one before took.

    `sizes` are bytes by the event's id: of large ones a slice holds fewer.
    """
    start = 0
    while start < len(events):
        count = max(int(SLICE_TIME / _seconds_each[model]), 1) if model in _seconds_each else FIRST_SLICE
        part = events[start : start + min(count, LARGEST_SLICE)]
        part = memory.first_within(part, lambda event: sizes.get(event.pk, 0), memory.SLICE)
        began = time.monotonic()
        try:
            yield part
        finally:
            _seconds_each[model] = max(time.monotonic() - began, 1e-6) / len(part)
        start += len(part)


def _sizes(events: Sequence[Event]) -> dict[int, int]:
    return dict(sql.fetch(SIZES, [[event.pk for event in events]]))


def _render_model(
    model: type | None, events: Sequence[Event], asked: Set[int], tick: Tick | None, *, is_last: bool = False
) -> list[Shown]:
    if model is None:
        return [Shown(event, error='the model is no longer installed') for event in events]
    if given_up := [event for event in events if event.lapses >= GIVEN_UP]:
        others = [event for event in events if event.lapses < GIVEN_UP]
        failed_ones = [Shown(event, error=f'the payload cannot be built: {event.error}') for event in given_up]
        return failed_ones + (_render_model(model, others, asked, tick) if others else [])
    before = sql.session()
    try:
        with time_limit.within(_limits.get(model, FIRST), tick), transaction.atomic():
            shown = _show(model, events, asked)
    except Exception as error:
        if sql.is_broken_off(error, before) or is_cache_away(error):
            raise
        return _singly(model, events, asked, tick, error, is_last=is_last)
    _limits[model] = LONGEST
    return shown


def _singly(
    model: type, events: Sequence[Event], asked: Set[int], tick: Tick | None, error: Exception, *, is_last: bool
) -> list[Shown]:
    """One of them is to blame: singly, it holds up no other.

    Unless NetBox's cache was away, which may have come back before it was asked: so one is tried once more.
    """
    may_be_back = isinstance(error, RedisError)
    if len(events) > 1 or (may_be_back and not is_last):
        return [one for event in events for one in _render_model(model, [event], asked, tick, is_last=may_be_back)]
    if isinstance(error, time_limit.TooSlow):
        _limits[model] = SHORT
    logger.error('event=%s rendering failed', events[0].uuid, exc_info=error)
    return [failed(events[0], error)]


def _with_expanded(shown: list[Shown], keys: Keys) -> list[Shown]:
    wanted = [one for one in shown if one.data is not None and keys.get(one.event.pk)]
    found = expansions.find([(one.data, keys[one.event.pk]) for one in wanted]) if wanted else []
    for one, objects in zip(wanted, found, strict=True):
        one.expanded = {**objects, **one.expanded}
    return shown


def _held(snapshot: dict) -> dict[str, expansion.Data]:
    """Return what a deletion has kept of what its object pointed to."""
    kept = snapshot.get(rendering.SHOWN, {}).get('expanded')
    return json.loads(kept) if kept else {}


def failed(event: Event, reason: Exception) -> Shown:
    """Return what is shown of an event that cannot be rendered: nothing but the error."""
    return Shown(event, error=storable(f'the payload cannot be built: {type(reason).__name__}: {reason}'))


def _show(model: type, events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    snapshots = _read_column('snapshot', events)
    # Whoever held them in the meantime has dispatched or discarded the others.
    events = [event for event in events if event.pk in snapshots]
    results = rendering.render(
        model,
        [(snapshots[event.pk] or {}) | {rendering.TAKEN_AT: event.timestamp} for event in events],
        lambda pks: expansions.deletions(model, pks),
    )
    changes = _changes(model, [event for event in events if event.pk in asked], snapshots)
    return [
        Shown(
            event,
            one.data,
            _dumps(one.data),
            one.display,
            snapshots=changes.get(event.pk),
            partial=one.partial,
            expanded=_held(snapshots[event.pk]),
        )
        for event, one in zip(events, results, strict=True)
    ]


def _read_column(name: str, events: Sequence[Event]) -> dict[int, dict | None]:
    """Return {event id: what the column holds}. It is kept no longer than a slice is rendered."""
    return dict(Event.objects.filter(pk__in=[event.pk for event in events]).values_list('pk', name))


def _changes(model: type, events: Sequence[Event], snapshots: Mapping[int, dict | None]) -> dict[int, dict]:
    """Return {event id: {"prechange": …, "postchange": …}}, as NetBox's change log shows them."""
    if not events:
        return {}
    prechanges = _read_column('prechange', events)
    before = rendering.change_log(model, [prechanges[event.pk] for event in events])
    after = [None if event.kind == KindChoices.DELETED else snapshots[event.pk] for event in events]
    return {
        event.pk: {'prechange': prechange, 'postchange': postchange}
        for event, prechange, postchange in zip(events, before, rendering.change_log(model, after), strict=True)
    }


def _dumps(value: dict) -> str:
    return ENCODER.encode(value)
