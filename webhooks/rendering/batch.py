"""Snapshots of one model's objects become what the REST API shows of them.

Each snapshot is made an instance again. What it points to comes from the snapshot, what NetBox derives from other rows
is looked up, and NetBox's own serializer renders it. Nothing is asked of the database object by object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from threading import RLock
from typing import Any

from django.conf import settings
from django.db.models import Model, Prefetch, prefetch_related_objects
from django.urls import NoReverseMatch, resolve, reverse
from django.utils import timezone, translation
from netbox.models.ltree import LtreeModel
from utilities.api import get_annotations_for_serializer, get_prefetches_for_serializer, get_serializer_for_model
from utilities.views import get_viewname

from . import configcontext, gone, related
from .customfields import CustomFields
from .decoding import build
from .derived import Derived, place_in_tree
from .serializer import PreparedSerializer

# {"row": {column: value as to_jsonb shows it}, "m2m": {field: [primary key]}}
Snapshot = Mapping[str, Any]

MAX_DISPLAY = 200
TAGS = 'tags'


@dataclass(frozen=True)
class Rendered:
    """`data` is the REST API's representation, with relative URLs; `display` is str(object)."""

    data: dict[str, Any]
    display: str


def render(model: type[Model], snapshots: Sequence[Snapshot]) -> list[Rendered]:
    """Return what the REST API shows of the objects, in order.

    Labels are in the language and times in the time zone of NetBox's settings. Whatever NetBox's serializer raises is
    raised. Of two snapshots of an object, the newer one comes later.
    """
    if not snapshots:
        return []
    with translation.override(settings.LANGUAGE_CODE), timezone.override(timezone.get_default_timezone()):
        return _renderer(model).render(snapshots)


@cache
def _renderer(model: type[Model]) -> 'Renderer':
    return Renderer(model)


class Renderer:
    """All that is the same for every batch of a model."""

    def __init__(self, model: type[Model]) -> None:
        view = _api_view(model)
        serializer_class = get_serializer_for_model(model)
        queryset = (model._default_manager if view is None else view.queryset).all().order_by()
        self._model = model
        self._derived = Derived(queryset.annotate(**get_annotations_for_serializer(serializer_class)))
        self._lookups = [*_declared_lookups(view, queryset), *get_prefetches_for_serializer(serializer_class)]
        self._serializer = PreparedSerializer(model)
        self._many = [field for field in model._meta.many_to_many if field.name in self._serializer.sources]
        # The serializer belongs to one batch at a time, while a server may have many threads.
        self._lock = RLock()

    def render(self, snapshots: Sequence[Snapshot]) -> list[Rendered]:
        with self._lock:
            try:
                instances = self._instances(snapshots)
                return [self._rendered(instance) for instance in instances]
            finally:
                self._serializer.end()

    def _instances(self, snapshots: Sequence[Snapshot]) -> list[Model]:
        instances = build(self._model, (snapshot['row'] for snapshot in snapshots))
        self._derived.attach(instances)
        found = related.RelatedObjects()
        related.attach_foreign_keys(instances, related.foreign_keys(self._model), found)
        related.attach_generic_keys(instances, related.generic_keys(self._model), found)
        for field in self._many:
            related.attach_many(instances, field, _keys(snapshots, field.name), found)
        if issubclass(self._model, LtreeModel):
            for instance in instances:
                place_in_tree(instance)
        if configcontext.applies_to(self._model):
            configcontext.attach(instances, _keys(snapshots, TAGS))
        self._serializer.begin(CustomFields(instances, found))
        prefetch_related_objects(instances, *self._lookups)
        related.as_peers_by_relation(instances)
        return instances

    def _rendered(self, instance: Model) -> Rendered:
        return Rendered(self._serializer.represent(instance), gone.describe(instance)[:MAX_DISPLAY])


def _keys(snapshots: Sequence[Snapshot], field: str) -> list[list[Any]]:
    return [snapshot['m2m'].get(field, []) for snapshot in snapshots]


def _api_view(model: type[Model]) -> type | None:
    """Return the class of the model's REST API view, None where it has none under NetBox's name for it."""
    try:
        path = reverse(get_viewname(model, 'detail', rest_api=True), args=[1])
    except NoReverseMatch:
        return None
    return getattr(resolve(path).func, 'cls', None)


def _declared_lookups(view: type | None, queryset: Any) -> Iterator[str | Prefetch]:
    """Yield what the view prefetches, in its own order."""
    yield from queryset._prefetch_related_lookups
    for lookups in getattr(view, 'field_prefetches', {}).values():
        yield from lookups
