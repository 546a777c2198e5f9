"""Reads the values that derive from other rows. Snapshots lack them, so they are as of rendering."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dcim.models.device_components import PathEndpoint
from django.db.models import DecimalField, FloatField, IntegerField, Model, QuerySet, Sum
from netbox.models.ltree import LtreeModel
from utilities.fields import CounterCacheField

from . import gone

# Columns that NetBox updates without saving the instance.
MAINTAINED = {'_depth', '_children'}
# Columns of an endpoint. If they are as in the snapshot, the present cable path is that of the snapshot.
LINKS = ('cable_id', 'wireless_link_id')

Row = dict[str, Any]


@dataclass(frozen=True)
class Derived:
    """The derived values of a model. `queryset` is that of its API view, with the annotations of its serializer."""

    queryset: QuerySet

    @property
    def model(self) -> type[Model]:
        """Return the queryset's model."""
        return self.queryset.model

    @cached_property
    def annotations(self) -> dict[str, Any]:
        """Return {annotation: value for an object that does not exist}, such as a count of 0."""
        return {name: _nothing(name, each) for name, each in self.queryset.query.annotations.items()}

    @cached_property
    def columns(self) -> list[str]:
        """Return the columns that NetBox keeps by itself: counters and MAINTAINED."""
        fields = self.model._meta.concrete_fields
        return [f.attname for f in fields if isinstance(f, CounterCacheField) or f.attname in MAINTAINED]

    @cached_property
    def path_columns(self) -> list[str]:
        """Return the columns of the cable path and of the links that identify it; [] for models without paths."""
        if not issubclass(self.model, PathEndpoint):
            return []
        attnames = {field.attname for field in self.model._meta.concrete_fields}
        return ['_path_id', *(name for name in LINKS if name in attnames)]

    def attach(self, instances: Sequence[Model]) -> set[Any]:
        """Set the derived values on the instances, with one query. Returns the pks of objects that were deleted."""
        pks = {instance.pk for instance in instances}
        rows = self._rows(pks)
        for instance in instances:
            self._attach(instance, rows.get(instance.pk))
        return pks - rows.keys()

    def _rows(self, pks: set[Any]) -> dict[Any, Row]:
        names = [*self.annotations, *self.columns, *self.path_columns]
        return {row['pk']: row for row in self.queryset.filter(pk__in=pks).values('pk', *names)}

    def _attach(self, instance: Model, row: Row | None) -> None:
        for name, when_gone in self.annotations.items():
            setattr(instance, name, row[name] if row else when_gone)
        for name in self.columns if row else ():
            setattr(instance, name, row[name])
        if self.path_columns:
            _attach_path(instance, row)


def _nothing(name: str, annotation: Any) -> Any:
    if name.endswith('_count'):
        return 0
    # SQL's sum of no rows is null.
    is_number = isinstance(annotation.output_field, DecimalField | FloatField | IntegerField)
    return annotation.output_field.to_python(0) if is_number and not isinstance(annotation, Sum) else None


def _attach_path(instance: PathEndpoint, row: Row | None) -> None:
    same_link = row and all(row.get(name) == getattr(instance, name, None) for name in LINKS)
    # If the key were null, NetBox's `path` would read the row again.
    instance._path_id = (same_link and row['_path_id']) or 0
    if not instance._path_id:
        instance._meta.get_field('_path').set_cached_value(instance, None)


def leave_unlinked(instance: Model) -> None:
    """Leave `link_peers` empty where only the id of a deleted wireless link is known: it has no ends."""
    link = instance._state.fields_cache.get('wireless_link')
    if link is not None and gone.is_stub(link) and instance.cable_id is None:
        vars(instance).setdefault('link_peers', [])


def place_in_tree(node: LtreeModel) -> None:
    """Set the node's path below its present parent: its depth is shown."""
    *_, own = node.path.split('.')
    if node.parent is None:
        node.path = own
    elif node.parent.path:
        node.path = f'{node.parent.path}.{own}'
