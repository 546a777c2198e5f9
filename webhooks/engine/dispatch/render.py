"""Renders events: each gets its `data` as NetBox's REST API shows the object, or an error."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from django.db.models import Model
from django.urls import reverse

from ... import patience, rendering
from ...choices import KindChoices
from ...interruptions import INTERRUPTIONS, Locked
from ...models import Event, Webhook
from ...object_types import model_of_id
from ...outbox import unchanged
from ...rendering import expansion
from ...storable import storable
from .. import sql
from ..each import each_or_alone, portions
from ..registry import GIVEN_UP
from . import changed_keys, expansions
from .put_off import PutOff

logger = logging.getLogger('webhooks.dispatch')

# A slice is rendered together: at most these events, and bytes of their snapshots as stored (mostly a third).
EVENTS_PER_SLICE = 50
SNAPSHOT_BYTES_PER_SLICE = 512 * 1024
# If a slice takes longer, it is interrupted, and its model's events go one by one.
SLICE_SECONDS = 6.0
# If an event of such a model takes longer, it is a suspect.
LONE_EVENT_SECONDS = 2.0
# A model's events go one by one for this time: after a slice that took too long, and after one that needed a locked
# table.
SLOW_MODEL_SECONDS = 60.0
LOCKED_TABLE_SECONDS = 5.0
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

# {event id: webhooks that asked for it}
Matches = Mapping[int, Collection[Webhook]]

ROW_STATE = unchanged.STATE.format(row="(e.snapshot -> 'row')", snapshot='e.snapshot', kept='v.kept')

# Save the data or the error of events, and mark them as dispatched. Delete their snapshots unless there was an error.
SAVE_RENDERED = f"""
    UPDATE webhooks_event e
    SET data = v.data, object_repr = v.display, error = v.error, snapshots = v.snapshots, dispatched_at = now(),
        partial = v.partial, expanded = v.expanded, expanded_types = v.expanded_types, skipped = v.skipped,
        first_sequence = NULL, visible = NULL, first_visible = NULL,
        row_state = CASE WHEN v.kept IS NOT NULL THEN {ROW_STATE} END,
        -- If this version cannot render it, a later one may: so its snapshots stay.
        snapshot = CASE WHEN v.error = '' THEN NULL ELSE e.snapshot END,
        prechange = CASE WHEN v.error = '' THEN NULL ELSE e.prechange END
    FROM json_to_recordset(%s::json) AS v(
        id bigint, data text, display text, error text, snapshots jsonb, partial jsonb, expanded text,
        expanded_types jsonb, skipped int, kept text[]
    )
    WHERE e.id = v.id"""

# Read the bytes of each event's snapshots, as stored.
READ_SNAPSHOT_BYTES = """
    SELECT id, coalesce(pg_column_size(snapshot), 0) + coalesce(pg_column_size(prechange), 0)
    FROM webhooks_event WHERE id = ANY(%s)"""


@dataclass
class Shown:
    """A rendered event, as save() writes it. With an `error` it has no `data`."""

    event: Event
    data: dict | None = None
    # The object's name.
    display: str = ''
    error: str = ''
    # `data` before the change, for `only_if_changed`. None: unknown, or nobody asks.
    before: dict | None = None
    # {"prechange": …, "postchange": …}, as in the change log. None: nobody asks.
    snapshots: dict | None = None
    # Keys of `data` whose value is unknown.
    partial: Sequence[str] = ()
    # {URL: data} of related objects, for `expand`.
    expanded: Mapping[str, expansion.Data] = field(default_factory=dict)
    # Each gets a delivery.
    webhooks: Sequence[Webhook] = ()
    # Each gets an undecided delivery: its costly conditions, or a list's filter, are still to be evaluated.
    undecided: Sequence[Webhook] = ()
    # How many other webhooks asked for it.
    skipped: int = 0
    # Some webhooks ask for the object's config context, and each of these gets it.
    shows_context_to_all: bool = False

    @classmethod
    def of_dispatched(cls, event: Event) -> 'Shown':
        """Return a dispatched event, read from its row. It lacks `before`, and names no webhooks."""
        expanded = json.loads(event.expanded or '{}')
        return cls(event, event.payload_data, event.object_repr, snapshots=event.snapshots, expanded=expanded)

    def data_for(self, webhook: Webhook) -> dict | None:
        """Return `data` with the related objects that the webhook expands. None after an error."""
        if self.data is None or not webhook.expand:
            return self.data
        return expansion.merge(self.data, expansion.tree_of(webhook.expand), self.expanded)[0]


class Renderer:
    """Renders events in slices. It puts off events that take too long, or need a locked table.

    It calls `keep_alive` before each slice. Without `limit` only the timer of the process ends an event that takes too
    long.
    """

    def __init__(self, keep_alive: Callable[[], object] = lambda: None, *, limit: bool = True) -> None:
        # A new process loads NetBox's pages for its first URL, which takes seconds. So that is done before any limit.
        reverse('api-root')
        self._keep_alive = keep_alive
        self._limit = limit
        self._expander = expansions.Expander()
        # {model: until when it goes one by one}
        self._slow: dict[type[Model], float] = {}

    def render(self, events: Sequence[Event], matches: Matches, put_off: PutOff) -> Iterator[list[Shown]]:
        """Yield slices of rendered events, unsaved. Each has a single model.

        An event that cannot be rendered has an error. Events that are put off are left out, as is the rest of a model
        after an interrupted slice: the next batch finds them. Raises INTERRUPTIONS, but not Locked in a slice.
        """
        sizes = dict(sql.fetch(READ_SNAPSHOT_BYTES, [[event.pk for event in events]]))
        by_model = defaultdict(list)
        for event in events:
            by_model[model_of_id(event.object_type_id)].append(event)
        # Small groups first: they do not wait for an import.
        for model, group in sorted(by_model.items(), key=lambda one: (self._is_slow(one[0]), len(one[1]))):
            count = 1 if self._is_slow(model) else EVENTS_PER_SLICE
            for part in portions(group, lambda event: sizes.get(event.pk, 0), SNAPSHOT_BYTES_PER_SLICE, count):
                yield self._render(model, part, matches, put_off)
                if count > 1 and self._is_slow(model):
                    break

    def _is_slow(self, model: type[Model] | None) -> bool:
        return model is not None and self._slow.get(model, 0.0) > time.monotonic()

    def _render(
        self, model: type[Model] | None, events: Sequence[Event], matches: Matches, put_off: PutOff
    ) -> list[Shown]:
        if model is None:
            return [Shown(event, error='the model is no longer installed') for event in events]
        given_up = [_without_data(event, event.error) for event in events if event.lapses >= GIVEN_UP]
        others = [event for event in events if event.lapses < GIVEN_UP]

        def show(some: Sequence[Event]) -> Sequence[Shown]:
            ready = [event for event in some if event not in put_off]
            if not ready:
                return ()
            self._keep_alive()
            rendering.prepare(model)  # without a limit: an event is not to blame if this is slow
            try:
                with (
                    self._within(LONE_EVENT_SECONDS if self._is_slow(model) else SLICE_SECONDS),
                    sql.reading(),
                ):
                    shown = _show(model, ready, matches)
                self._expand(shown, matches)
            except (patience.TooSlow, Locked) as error:
                self._slow[model] = time.monotonic() + (
                    LOCKED_TABLE_SECONDS if isinstance(error, Locked) else SLOW_MODEL_SECONDS
                )
                if len(ready) == 1:
                    put_off.add(ready[0], error)
                return ()
            return shown

        return given_up + each_or_alone(others, show, failed)

    def _within(self, seconds: float) -> AbstractContextManager[None]:
        return patience.within(seconds) if self._limit else nullcontext()

    def _expand(self, shown: Sequence[Shown], matches: Matches) -> None:
        keys = [{key for webhook in matches[one.event.pk] for key in webhook.expand} for one in shown]
        found = self._expander.find([(one.data or {}, wanted) for one, wanted in zip(shown, keys, strict=True)])
        for one, objects in zip(shown, found, strict=True):
            one.expanded = {**objects, **one.expanded}


def save(shown: Sequence[Shown]) -> None:
    """Save rendered events, and mark them as dispatched, in the open transaction.

    Raises ValueError or DataError if a value cannot be stored.
    """
    rows = [
        {
            'id': one.event.pk,
            'data': _dumps(one.data) or '',
            'display': one.display,
            'error': one.error,
            'snapshots': one.snapshots or None,
            'partial': one.partial or None,
            'expanded': _dumps(one.expanded),
            'expanded_types': expansions.types_of(one.expanded) or None,
            'skipped': one.skipped,
            'kept': _kept(one),
        }
        for one in shown
    ]
    sql.execute(SAVE_RENDERED, [ENCODER.encode(rows)])


def _kept(shown: Shown) -> list[str] | None:
    model = model_of_id(shown.event.object_type_id)
    return unchanged.kept_by_netbox(model) if model and shown.undecided else None


def _dumps(value: object) -> str | None:
    return ENCODER.encode(value) if value else None


def failed(event: Event, error: Exception) -> Shown:
    """Log the error, and return the event without data, with the error as its reason."""
    logger.error('event=%s failed', event.uuid, exc_info=error)
    return _without_data(event, f'{type(error).__name__}: {error}')


def _without_data(event: Event, reason: str) -> Shown:
    return Shown(event, error=storable(f'the payload cannot be built: {reason}'))


def _show(model: type[Model], events: Sequence[Event], matches: Matches) -> list[Shown]:
    columns = Event.objects.filter(pk__in=[event.pk for event in events]).values_list('pk', 'snapshot', 'prechange')
    states = {pk: (snapshot or {}, prechange) for pk, snapshot, prechange in columns}
    events = [event for event in events if event.pk in states]
    results = rendering.render(
        model,
        [states[event.pk][0] | {rendering.TAKEN_AT: event.timestamp} for event in events],
        lambda pks: expansions.deletions(model, pks),
    )
    shown = [event for event in events if any(webhook.needs_before for webhook in matches[event.pk])]
    before = rendering.change_log(model, [states[event.pk][1] for event in shown])
    after = [None if event.kind == KindChoices.DELETED else states[event.pk][0] for event in shown]
    changes = {
        event.pk: {'prechange': prechange, 'postchange': postchange}
        for event, prechange, postchange in zip(shown, before, rendering.change_log(model, after), strict=True)
    }
    earlier = _data_before(model, events, matches, states)
    return [
        Shown(
            event,
            one.data,
            one.display,
            before=earlier.get(event.pk),
            snapshots=changes.get(event.pk),
            partial=one.partial,
            # Related objects of a deletion were looked up before it: they may be deleted too.
            expanded=json.loads(states[event.pk][0].get(rendering.SHOWN, {}).get('expanded') or '{}'),
        )
        for event, one in zip(events, results, strict=True)
    ]


def _data_before(
    model: type[Model], events: Sequence[Event], matches: Matches, states: Mapping[int, tuple[dict, dict | None]]
) -> dict[int, dict | None]:
    """Return {event id: data before the change}. {} if they cannot be rendered: then these changes are sent."""
    asked = [event.pk for event in events if changed_keys.asks(event, matches[event.pk])]
    if not asked:
        return {}
    try:
        found = changed_keys.data_before(model, [states[pk][1] for pk in asked])
    except (*INTERRUPTIONS, patience.TooSlow):
        raise
    except Exception:
        logger.exception('model=%s its data before the change cannot be rendered', model._meta.label_lower)
        return {}
    return dict(zip(asked, found, strict=True))
