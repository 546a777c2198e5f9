"""Renders the objects of a deletion while they exist: before NetBox's own receivers empty related rows.

The user waits meanwhile. After an error or at a time limit, the rest is left to a worker.
"""

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, transaction
from django.db.models import Model, QuerySet
from rq.timeouts import BaseTimeoutException

from .. import object_types, rendering
from ..default_database import pinned
from ..models import Subscription
from ..rendering import expansion
from ..rendering.keys import may_be_expanded
from . import cascade, scope, snapshots

logger = logging.getLogger('webhooks.outbox')

# The attribute that holds a Deletion on the object or queryset whose delete() was called.
DELETION_SLOT = '_webhooks_deletion'
# A deletion renders for at most this time: a base, and more for each object. An object usually takes 1 to 2 ms.
RENDER_SECONDS = 2.0
RENDER_SECONDS_PER_OBJECT = 0.02
# PostgreSQL ends a query of rendering after this time.
QUERY_MILLISECONDS = 2000
# The first slice is small. It shows how many objects fit into SLICE_SECONDS.
FIRST_SLICE_OBJECTS = 5
LARGEST_SLICE_OBJECTS = 200
SLICE_SECONDS = 0.5
# A slice is slow if it takes this much longer than RENDER_SECONDS_PER_OBJECT for each object.
SLOW_SLICE_SECONDS = 1.0
# After a slow slice, workers render the deletions of its model for this time.
MODEL_REST_SECONDS = 600.0

# End each later query of the open transaction after this many milliseconds.
BOUND_QUERIES = "SELECT set_config('statement_timeout', %s, true)"

ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

Key = tuple[type[Model], Any]
Wanted = tuple[rendering.Rendered, expansion.Tree]


@dataclass
class Deletion:
    """The snapshots that were taken when a deletion began: {(model, pk): snapshot as JSON text}.

    `announced`: objects whose pre_delete came. `scope`: the transaction that took them.
    """

    scope: object
    snapshots: dict[Key, str]
    announced: set[Key] = field(default_factory=set)


def begin(instance: Model, origin: Model | QuerySet | None, using: str) -> None:
    """At the first object of a deletion, lock and take all objects that it removes, and keep them on `origin`.

    `origin` is the object or queryset whose delete() was called; None if Django does not say. Nothing is taken if
    no webhook wants deletions.
    """
    source = instance if origin is None else origin
    possible = _possible(_model_of(source))
    if not possible or using != DEFAULT_DB_ALIAS or not scope.is_migrated():
        return
    key = (instance._meta.concrete_model, instance.pk)
    deletion = vars(source).get(DELETION_SLOT)
    # After a rollback the same object may be deleted again. Then the old snapshots do not count.
    if deletion is None or key in deletion.announced or deletion.scope is not scope.current():
        deletion = vars(source)[DELETION_SLOT] = Deletion(scope.current(), _take_all(source, possible))
    deletion.announced.add(key)


def held(instance: Model, origin: Model | QuerySet | None) -> str | None:
    """Take the snapshot that was made before `instance` was deleted, as JSON text. None: none was made.

    It also holds the data that GET showed then, if some webhook wants deletions and there was time to render.
    """
    deletion = vars(instance if origin is None else origin).get(DELETION_SLOT)
    return deletion and deletion.snapshots.pop((instance._meta.concrete_model, instance.pk), None)


def take(model: type[Model], pks: Sequence[Any]) -> dict[Any, str]:
    """Lock rows that a bulk operation is about to delete, and return {pk: snapshot as JSON text} of existing ones.

    A snapshot also holds the data that GET shows, if some webhook wants deletions and there is time to render.
    """
    wants_data = bool(pks) and scope.wants_deletions(model) and _is_prepared(model)
    taken = snapshots.take(model, snapshots.lock_rows(model, pks))
    if not wants_data:
        return taken
    return {pk: snapshot for (_model, pk), snapshot in _rendered({model: taken}).items()}


def _take_all(source: Model | QuerySet, possible: frozenset[type[Model]]) -> dict[Key, str]:
    wanted = {model for model in possible if scope.wants_deletions(model)}
    if not wanted:
        return {}
    going = dict(cascade.going(_model_of(source), _pks(source), wanted))
    # The first time it imports all of NetBox's URLs, which takes seconds. So it is done before the rows are locked.
    for model in going:
        _is_prepared(model)
    taken = {model: snapshots.take(model, snapshots.lock_rows(model, pks)) for model, pks in going.items()}
    return _rendered(taken)


def _model_of(source: Model | QuerySet) -> type[Model]:
    model = source.model if isinstance(source, QuerySet) else source
    return model._meta.concrete_model


def _pks(source: Model | QuerySet) -> list[Any]:
    if isinstance(source, QuerySet):
        found = source.using(DEFAULT_DB_ALIAS).order_by()
        found.query.select_for_update = False  # as in QuerySet.delete()
        return list(found.values_list('pk', flat=True))
    return [source.pk]


@cache
def _possible(model: type[Model]) -> frozenset[type[Model]]:
    return (cascade.reach(model) | {model}) & _sendable()


@cache
def _sendable() -> frozenset[type[Model]]:
    return frozenset(model._meta.concrete_model for model in object_types.allowed_models())


#
# Rendering, while somebody waits
#

_prepared: set[type[Model]] = set()
_resting: dict[type[Model], float] = {}
_seconds_each: dict[type[Model], float] = {}


def _rendered(taken: Mapping[type[Model], Mapping[Any, str]]) -> dict[Key, str]:
    rendered = {(model, pk): text for model, texts in taken.items() for pk, text in texts.items()}
    wanted: dict[Key, Wanted] = {}
    with pinned():
        end = None
        for model, texts in taken.items():
            if not texts or not _is_prepared(model):
                continue
            # Preparation, once a process, does not count.
            end = end or time.monotonic() + RENDER_SECONDS + RENDER_SECONDS_PER_OBJECT * len(rendered)
            tree = expansion.tree_of(Subscription.objects.expanded_of_deletions(snapshots.object_type_id(model)))
            for pk, one in _show_in_time(model, texts, end):
                rendered[model, pk] = _with_shown(texts[pk], one)
                if tree:
                    wanted[model, pk] = one, tree
        # Last: it may be slow or fail.
        for (model, pk), objects in _expanded(wanted, end or 0.0).items():
            rendered[model, pk] = _with_shown(taken[model][pk], wanted[model, pk][0], objects)
    return rendered


def _expanded(wanted: Mapping[Key, Wanted], end: float) -> dict[Key, dict[str, expansion.Data]]:
    """Return {object: {URL: data}} of the related objects that webhooks expand: the deletion may remove them too."""

    def look_up(model: type[Model], pks: Collection[int]) -> dict[int, expansion.Data]:
        if not may_be_expanded(model) or not _is_prepared(model):
            return {}
        taken: dict[int, str] = {}
        with _or_later(model, pks), _without_trace():
            taken = snapshots.take(model, pks)
        return {pk: one.data for pk, one in _show_in_time(model, taken, end)}

    found = expansion.find([(one.data, tree) for one, tree in wanted.values()], look_up)
    return {key: objects for key, objects in zip(wanted, found, strict=True) if objects}


def _is_prepared(model: type[Model]) -> bool:
    if model not in _prepared:
        with _or_later(model), transaction.atomic():
            rendering.prepare(model)
            _prepared.add(model)
    return model in _prepared


@contextmanager
def _or_later(model: type[Model], pks: Collection[Any] = ()) -> Iterator[None]:
    """Log an error of the block and go on, for a worker renders later. But RQ's timeout must end the job."""
    try:
        yield
    except BaseTimeoutException:
        raise
    except Exception as error:
        logger.warning('model=%s ids=%s cannot be rendered now: %r', model._meta.label_lower, list(pks)[:5], error)


def _show_in_time(model: type[Model], texts: Mapping[Any, str], end: float) -> Iterator[tuple[Any, rendering.Rendered]]:
    for part in _slices(model, list(texts), end):
        yield from _show(model, {pk: texts[pk] for pk in part}, end).items()


def _slices(model: type[Model], pks: Sequence[Any], end: float) -> Iterator[Sequence[Any]]:
    """Yield the pks in slices, small ones until the model's speed is known; stop at `end` (monotonic seconds)."""
    start = 0
    while start < len(pks) and time.monotonic() < end and _resting.get(model, 0.0) < time.monotonic():
        size = max(int(SLICE_SECONDS / _seconds_each[model]), 1) if model in _seconds_each else FIRST_SLICE_OBJECTS
        part = pks[start : start + min(size, LARGEST_SLICE_OBJECTS)]
        began = time.monotonic()
        yield part
        _note(model, len(part), time.monotonic() - began)
        start += len(part)
    if start < len(pks):
        left = len(pks) - start
        logger.warning('model=%s deletion=%d of %d are rendered later', model._meta.label_lower, left, len(pks))


def _note(model: type[Model], count: int, took: float) -> None:
    if count >= FIRST_SLICE_OBJECTS:
        _seconds_each[model] = max(took, 1e-6) / count
    if took > SLOW_SLICE_SECONDS + RENDER_SECONDS_PER_OBJECT * count:
        _resting[model] = time.monotonic() + MODEL_REST_SECONDS


def _show(model: type[Model], texts: Mapping[Any, str], end: float) -> dict[Any, rendering.Rendered]:
    with _or_later(model, texts):
        return dict(zip(texts, _render(model, list(texts.values())), strict=True))
    # If one object is to blame, each can still be rendered alone.
    each = ({pk: text} for pk, text in texts.items() if len(texts) > 1 and time.monotonic() < end)
    return {pk: shown for one in each for pk, shown in _show(model, one, end).items()}


def _render(model: type[Model], texts: Sequence[str]) -> list[rendering.Rendered]:
    now = {rendering.TAKEN_AT: rendering.NOW}
    with _without_trace():
        return rendering.render(model, [json.loads(text) | now for text in texts])


@contextmanager
def _without_trace() -> Iterator[None]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(BOUND_QUERIES, [str(QUERY_MILLISECONDS)])
        yield
        transaction.set_rollback(True)


def _with_shown(text: str, shown: rendering.Rendered, expanded: Mapping[str, expansion.Data] | None = None) -> str:
    """Return the JSON text with `shown` added. Parsing it would change numbers that PostgreSQL wrote."""
    kept = {'data': ENCODER.encode(shown.data), 'display': shown.display}
    if expanded:
        kept['expanded'] = ENCODER.encode(expanded)
    more = json.dumps({rendering.SHOWN: kept})
    return f'{text.removesuffix("}")}, {more.removeprefix("{")}'
