"""Renders many snapshots of a model at once. The number of queries does not depend on how many there are."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import RLock
from typing import Any

from django.conf import settings
from django.db.models import Model, Prefetch, prefetch_related_objects
from django.utils import timezone, translation
from netbox.models.ltree import LtreeModel
from utilities.api import get_annotations_for_serializer, get_serializer_for_model

from . import configcontext, gone, related
from .customfields import CustomFields
from .decoding import build
from .derived import Derived, leave_unlinked, place_in_tree
from .parts import UNEXPECTED, find, leave, left, part
from .remains import Remains
from .serializer import NetBoxSerializer, PreparedSerializer, api_view

get_prefetches_for_serializer = find('utilities.api', 'get_prefetches_for_serializer')

# {"row": {column: value as in to_jsonb}, "m2m": {field: [primary key]}, TAKEN_AT: datetime if known}. A deletion that
# was rendered also has SHOWN: {"data": JSON text, "display": text, "expanded": {URL: object} as JSON text, if any}.
Snapshot = Mapping[str, Any]
SHOWN = 'shown'
TAKEN_AT = 'taken_at'
# A function of primary keys of deleted objects. It returns {pk: data that the deletion showed}, for those it knows.
Deletions = Callable[[Collection[Any]], Mapping[Any, dict[str, Any]]]

# As many as Event.object_repr holds.
MAX_DISPLAY_CHARS = 200
# The field of a snapshot's "m2m" with its tags.
TAGS = 'tags'
# The name of a part (parts.py).
PREFETCHES = 'prefetches'


@dataclass(frozen=True)
class Rendered:
    """An object as GET shows it: `data`, with URLs without scheme and host, and `display`, its str().

    `partial`: keys of `data` whose values are no longer known, because objects were deleted.
    """

    data: dict[str, Any]
    display: str
    partial: Sequence[str] = ()


def render(model: type[Model], snapshots: Sequence[Snapshot], deletions: Deletions = lambda _pks: {}) -> list[Rendered]:
    """Return the objects as GET would show them, in the order of the snapshots. Reads the database, changes nothing.

    A deletion that was rendered at once is returned as such. Texts are in the default language, times in the default
    time zone. An object's newer snapshots must come later. Raises the errors of NetBox's serializer.
    """
    waiting = [snapshot for snapshot in snapshots if SHOWN not in snapshot]
    rendered = iter(_render(model, waiting, deletions) if waiting else ())
    return [_as_shown(snapshot[SHOWN]) if SHOWN in snapshot else next(rendered) for snapshot in snapshots]


def _render(model: type[Model], snapshots: Sequence[Snapshot], deletions: Deletions) -> list[Rendered]:
    with translation.override(settings.LANGUAGE_CODE), timezone.override(timezone.get_default_timezone()):
        return _renderer(model).render(snapshots, deletions)


def _as_shown(shown: Mapping[str, str]) -> Rendered:
    return Rendered(json.loads(shown['data']), shown['display'])


def prepare(model: type[Model]) -> None:
    """Make the model's renderer ready, once a process: it may take seconds. Raises an error without a serializer."""
    _renderer(model)


def left_as_netbox_has_it(models: Iterable[type[Model]]) -> dict[str, str]:
    """Prepare the models, and return {part: reason} of parts that NetBox must render itself, slowly."""
    for model in models:
        # A model that cannot be rendered is reported by its failed deliveries.
        with suppress(Exception):
            _renderer(model)
    return dict(left)


@cache
def _renderer(model: type[Model]) -> 'ModelRenderer':
    return ModelRenderer(model)


class ModelRenderer:
    """Renders the snapshots of a model, batch by batch. There is one for each model and process."""

    def __init__(self, model: type[Model]) -> None:
        view = api_view(model)
        serializer_class = get_serializer_for_model(model)
        queryset = (model._default_manager if view is None else view.queryset).all().order_by()
        self._model = model
        self._derived = Derived(queryset.annotate(**get_annotations_for_serializer(serializer_class)))
        self._lookups: list[str | Prefetch] = []
        with part(PREFETCHES):
            self._lookups = [*_declared_lookups(view, queryset), *get_prefetches_for_serializer(serializer_class)]
        self._serializer = PreparedSerializer(model)
        self._remains = Remains(model, self._serializer.fields, self._derived)
        self._many = [field for field in model._meta.many_to_many if field.name in self._serializer.sources]
        # The threads of a web server share the renderer, which holds the state of its batch.
        self._lock = RLock()

    def render(self, snapshots: Sequence[Snapshot], deletions: Deletions) -> list[Rendered]:
        """Return the objects as GET would show them; a single one by NetBox's own way if a shortcut fails."""
        with self._lock:
            try:
                return self._render(snapshots, self._serializer, deletions)
            except UNEXPECTED as error:
                if len(snapshots) > 1:
                    raise
                return self._render_as_netbox(snapshots, error, deletions)

    def _render_as_netbox(
        self, snapshots: Sequence[Snapshot], error: Exception, deletions: Deletions
    ) -> list[Rendered]:
        try:
            rendered = self._render(snapshots, NetBoxSerializer(self._model), deletions)
        except UNEXPECTED:
            raise error from None
        leave(self._model._meta.label_lower, error)
        return rendered

    def _render(
        self, snapshots: Sequence[Snapshot], serializer: NetBoxSerializer, deletions: Deletions
    ) -> list[Rendered]:
        instances = build(self._model, (snapshot['row'] for snapshot in snapshots))
        for instance, snapshot in zip(instances, snapshots, strict=True):
            setattr(instance, gone.TAKEN_AT, snapshot.get(TAKEN_AT))
        gone_pks = self._derived.attach(instances)
        try:
            self._relate(instances, snapshots, serializer)
            shown = [serializer.represent(instance) for instance in instances]
        finally:
            serializer.end()
        held = deletions(gone_pks) if gone_pks else {}
        return [
            self._rendered(instance, data, instance.pk in gone_pks, held.get(instance.pk))
            for instance, data in zip(instances, shown, strict=True)
        ]

    def _rendered(self, instance: Model, data: dict[str, Any], is_gone: bool, held: dict[str, Any] | None) -> Rendered:
        if is_gone:
            data, partial = self._remains.complete(instance, data, held)
        else:
            partial = list(self._remains.unknown(instance, data))
        return Rendered(data, gone.describe(instance)[:MAX_DISPLAY_CHARS], partial)

    def _relate(self, instances: list[Model], snapshots: Sequence[Snapshot], serializer: NetBoxSerializer) -> None:
        found = related.RelatedObjects()
        related.attach_foreign_keys(instances, related.foreign_keys(self._model), found)
        related.attach_generic_keys(instances, related.generic_keys(self._model), found)
        for field in self._many:
            related.attach_many(instances, field, _keys(snapshots, field.name), found)
        if issubclass(self._model, LtreeModel):
            for instance in instances:
                place_in_tree(instance)
        for instance in instances:
            leave_unlinked(instance)
        if configcontext.applies_to(self._model):
            configcontext.attach(instances, _keys(snapshots, TAGS))
        serializer.begin(CustomFields(instances, found))
        with part(PREFETCHES):
            prefetch_related_objects(instances, *self._lookups)
        related.as_peers_by_relation(instances)


def _keys(snapshots: Sequence[Snapshot], field: str) -> list[list[Any]]:
    return [snapshot['m2m'].get(field, []) for snapshot in snapshots]


def _declared_lookups(view: type | None, queryset: Any) -> Iterator[str | Prefetch]:
    yield from queryset._prefetch_related_lookups
    for lookups in getattr(view, 'field_prefetches', {}).values():
        yield from lookups
