"""Renders events: each gets `data` or an error."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from django.urls import reverse

from ... import rendering
from ...choices import KindChoices
from ...models import Event, Webhook
from ...rendering import expansion
from ...storable import storable
from .. import sql, time_limit
from ..each import each_or_alone, portions
from ..registry import GIVEN_UP
from . import expansions

logger = logging.getLogger('webhooks.dispatch')

# Events rendered together; bytes of their snapshots, as stored: mostly compressed to a third.
SLICE, BYTES = 50, 512 * 1024
# Seconds: for a slice; its model is slow then; for each of its events alone.
TOGETHER, SLOW, ALONE = 8.0, 60.0, 30.0
# Seconds for other work between two beats.
MARGIN = 4.0
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

Matches = Mapping[int, Collection[Webhook]]

SAVE = """
    UPDATE webhooks_event e
    SET data = v.data, object_repr = v.display, error = v.error, snapshots = v.snapshots, dispatched_at = now(),
        partial = v.partial, expanded = v.expanded, expanded_types = v.expanded_types, skipped = v.skipped,
        first_sequence = NULL, visible = NULL, first_visible = NULL,
        -- A later version may render what this one cannot.
        snapshot = CASE WHEN v.error = '' THEN NULL ELSE e.snapshot END,
        prechange = CASE WHEN v.error = '' THEN NULL ELSE e.prechange END
    FROM json_to_recordset(%s::json) AS v(
        id bigint, data text, display text, error text, snapshots jsonb, partial jsonb, expanded text,
        expanded_types jsonb, skipped int
    )
    WHERE e.id = v.id"""

SIZES = """
    SELECT id, coalesce(pg_column_size(snapshot), 0) + coalesce(pg_column_size(prechange), 0)
    FROM webhooks_event WHERE id = ANY(%s)"""


@dataclass
class Shown:
    event: Event
    data: dict | None = None
    display: str = ''
    error: str = ''
    snapshots: dict | None = None
    partial: Sequence[str] = ()
    expanded: Mapping[str, expansion.Data] = field(default_factory=dict)
    webhooks: Sequence[Webhook] = ()
    # Whose regular expressions are still to be evaluated.
    undecided: Sequence[Webhook] = ()
    skipped: int = 0

    @classmethod
    def of_dispatched(cls, event: Event) -> 'Shown':
        """Return what was saved of a dispatched event."""
        expanded = json.loads(event.expanded or '{}')
        return cls(event, event.payload_data, event.object_repr, snapshots=event.snapshots, expanded=expanded)

    def data_for(self, webhook: Webhook) -> dict | None:
        if self.data is None or not webhook.expand:
            return self.data
        return expansion.merge(self.data, expansion.tree_of(webhook.expand), self.expanded)[0]


class Renderer:
    """`beat` keeps the worker alive for so many seconds."""

    def __init__(self, beat: Callable[[float], object] = lambda seconds: None) -> None:
        # A new process loads NetBox's pages for its first URL, which takes seconds.
        reverse('api-root')
        self._beat = beat
        self._expander = expansions.Expander()
        self._slow: dict[type[Model], float] = {}

    def render(self, events: Sequence[Event], matches: Matches) -> Iterator[list[Shown]]:
        """Yield slices of rendered events. After a slow slice, the rest of its model is left out."""
        sizes = dict(sql.fetch(SIZES, [[event.pk for event in events]]))
        by_model = defaultdict(list)
        for event in events:
            by_model[ContentType.objects.get_for_id(event.object_type_id).model_class()].append(event)
        # Small groups first: they do not wait for an import.
        for model, group in sorted(by_model.items(), key=lambda one: (self._is_slow(one[0]), len(one[1]))):
            count = 1 if self._is_slow(model) else SLICE
            for part in portions(group, lambda event: sizes.get(event.pk, 0), BYTES, count):
                shown = self._render(model, part, matches)
                yield shown
                if len(shown) < len(part):
                    break

    def _is_slow(self, model: type[Model] | None) -> bool:
        return model is not None and self._slow.get(model, 0.0) > time.monotonic()

    def _render(self, model: type[Model] | None, events: Sequence[Event], matches: Matches) -> list[Shown]:
        if model is None:
            return [Shown(event, error='the model is no longer installed') for event in events]
        given_up = [_without_data(event, event.error) for event in events if event.lapses >= GIVEN_UP]
        others = [event for event in events if event.lapses < GIVEN_UP]
        is_slow = self._is_slow(model)
        seconds = ALONE if is_slow else TOGETHER
        self._beat(seconds + MARGIN)

        def show(some: Sequence[Event]) -> Sequence[Shown]:
            try:
                with time_limit.within(seconds), transaction.atomic():
                    shown = _show(model, some, matches)
            except time_limit.TooSlow:
                if is_slow or len(some) < len(others):
                    raise
                self._slow[model] = time.monotonic() + SLOW
                return ()
            self._expand(shown, matches)
            return shown

        return given_up + each_or_alone(others, show, failed)

    def _expand(self, shown: Sequence[Shown], matches: Matches) -> None:
        keys = [{key for webhook in matches[one.event.pk] for key in webhook.expand} for one in shown]
        found = self._expander.find([(one.data or {}, wanted) for one, wanted in zip(shown, keys, strict=True)])
        for one, objects in zip(shown, found, strict=True):
            one.expanded = {**objects, **one.expanded}


def render_again(events: Sequence[Event], matches: Matches) -> None:
    """Render dispatched events and save them; `skipped` stays."""
    for part in Renderer().render(events, matches):
        save([replace(one, skipped=one.event.skipped) for one in part])


def save(shown: Sequence[Shown]) -> None:
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
        }
        for one in shown
    ]
    sql.execute(SAVE, [ENCODER.encode(rows)])


def _dumps(value: object) -> str | None:
    return ENCODER.encode(value) if value else None


def failed(event: Event, error: Exception) -> Shown:
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
    told = [event for event in events if any(webhook.needs_before for webhook in matches[event.pk])]
    before = rendering.change_log(model, [states[event.pk][1] for event in told])
    after = [None if event.kind == KindChoices.DELETED else states[event.pk][0] for event in told]
    changes = {
        event.pk: {'prechange': prechange, 'postchange': postchange}
        for event, prechange, postchange in zip(told, before, rendering.change_log(model, after), strict=True)
    }
    return [
        Shown(
            event,
            one.data,
            one.display,
            snapshots=changes.get(event.pk),
            partial=one.partial,
            # A deletion keeps its related objects.
            expanded=json.loads(states[event.pk][0].get(rendering.SHOWN, {}).get('expanded') or '{}'),
        )
        for event, one in zip(events, results, strict=True)
    ]
