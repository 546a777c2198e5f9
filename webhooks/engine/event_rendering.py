"""Events are rendered: each gets its `data`, or the reason why there is none.

A group of events that raises is rendered event by event, so that one bad event holds up no other.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from .. import rendering
from ..choices import KindChoices
from ..interruptions import INTERRUPTIONS
from ..models import Event
from ..storable import storable

logger = logging.getLogger('webhooks.dispatch')

# Seconds that rendering one slice should take: meanwhile the transaction is idle, for which PostgreSQL has a bound.
SLICE_TIME = 1.0
# Events in the first slice of a model whose speed is unknown.
FIRST_SLICE = 25
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

SAVE = """
    UPDATE webhooks_event e
    SET data = v.data, object_repr = v.display, error = v.error, snapshots = v.snapshots, dispatched_at = now(),
        -- What could not be rendered may be rendered by a later version.
        snapshot = CASE WHEN v.error = '' THEN NULL ELSE e.snapshot END,
        prechange = CASE WHEN v.error = '' THEN NULL ELSE e.prechange END
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::jsonb[])
        AS v(id, data, display, error, snapshots)
    WHERE e.id = v.id"""


@dataclass
class Shown:
    """An event and what became of rendering it: `data` for conditions, or the reason why there is none."""

    event: Event
    data: dict | None = None
    text: str = ''
    display: str = ''
    error: str = ''
    snapshots: dict | None = None


def render(events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    """Render events and write what they show to them; those in `asked`, by id, with snapshots. Keeps the order."""
    by_type = defaultdict(list)
    for event in events:
        by_type[event.object_type_id].append(event)
    shown = {}
    for object_type_id, group in by_type.items():
        model = ContentType.objects.get_for_id(object_type_id).model_class()
        for part in _slices(model, group):
            shown |= {one.event.pk: one for one in _render_model(model, part, asked)}
    return [shown[event.pk] for event in events]


# {model: seconds that an object took to render}
_seconds_each: dict[type | None, float] = {}


def _slices(model: type | None, events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Yield the events in slices, each of which takes SLICE_TIME to render, by what the one before took."""
    start = 0
    while start < len(events):
        size = max(int(SLICE_TIME / _seconds_each[model]), 1) if model in _seconds_each else FIRST_SLICE
        part = events[start : start + size]
        began = time.monotonic()
        try:
            yield part
        finally:
            _seconds_each[model] = (time.monotonic() - began) / len(part)
        start += size


def _render_model(model: type | None, events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    if model is None:
        return _save([Shown(event, error='the model is no longer installed') for event in events])
    try:
        with transaction.atomic():
            return _save(_show(model, events, asked))
    except INTERRUPTIONS:
        raise
    except Exception as error:
        if len(events) == 1:
            logger.exception('event=%s rendering failed', events[0].uuid)
            reason = storable(f'the payload cannot be built: {type(error).__name__}: {error}')
            return _save([Shown(events[0], error=reason)])
        # One of them is to blame: singly, it holds up no other.
        return [one for event in events for one in _render_model(model, [event], asked)]


def _show(model: type, events: Sequence[Event], asked: Set[int]) -> list[Shown]:
    results = rendering.render(model, [event.snapshot for event in events])
    changes = _changes(model, [event for event in events if event.pk in asked])
    return [
        Shown(event, one.data, _dumps(one.data), one.display, snapshots=changes.get(event.pk))
        for event, one in zip(events, results, strict=True)
    ]


def _changes(model: type, events: Sequence[Event]) -> dict[int, dict]:
    """Return {event id: {"prechange": …, "postchange": …}}, as NetBox's change log shows them."""
    before = rendering.change_log(model, [event.prechange for event in events])
    after = [None if event.kind == KindChoices.DELETED else event.snapshot for event in events]
    return {
        event.pk: {'prechange': prechange, 'postchange': postchange}
        for event, prechange, postchange in zip(events, before, rendering.change_log(model, after), strict=True)
    }


def _save(shown: list[Shown]) -> list[Shown]:
    with connection.cursor() as cursor:
        cursor.execute(
            SAVE,
            [
                [one.event.pk for one in shown],
                [one.text for one in shown],
                [one.display for one in shown],
                [one.error for one in shown],
                [_dumps(one.snapshots) if one.snapshots else None for one in shown],
            ],
        )
    return shown


def _dumps(value: dict) -> str:
    return ENCODER.encode(value)


#
# The first time
#

# Models that this process has rendered before.
_warm: set[type] = set()


def cold(events: Sequence[Event]) -> dict[type, Event]:
    models = {event: ContentType.objects.get_for_id(event.object_type_id).model_class() for event in events}
    return {model: event for event, model in models.items() if model is not None and model not in _warm}


def warm_up(events: Mapping[type, Event]) -> None:
    """Render an event of each model, for nothing: the first time takes seconds, for which no lock is to be held."""
    for model, event in events.items():
        _warm.add(model)
        try:
            rendering.render(model, [event.snapshot])
        except INTERRUPTIONS:
            raise
        except Exception as error:
            # The event itself says so when its turn comes.
            logger.info('warm_up=failed model=%s reason="%s"', model._meta.label_lower, error)
