"""Values derived from other rows. Snapshots lack them, so they are as of rendering."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dcim.models.device_components import PathEndpoint
from django.db.models import DecimalField, FloatField, IntegerField, Model, QuerySet, Sum
from netbox.models.ltree import LtreeModel
from utilities.fields import CounterCacheField

from . import gone

# NetBox updates these without saving the instance.
MAINTAINED = {'_depth', '_children'}
# They identify an endpoint's cable path.
LINKS = ('cable_id', 'wireless_link_id')

Row = dict[str, Any]


@dataclass(frozen=True)
class Derived:
    """`queryset` is the API view's."""

    queryset: QuerySet

    @property
    def model(self) -> type[Model]:
        return self.queryset.model

    @cached_property
    def annotations(self) -> dict[str, Any]:
        """By name, for a deleted object."""
        return {name: _nothing(name, each) for name, each in self.queryset.query.annotations.items()}

    @cached_property
    def columns(self) -> list[str]:
        fields = self.model._meta.concrete_fields
        return [f.attname for f in fields if isinstance(f, CounterCacheField) or f.attname in MAINTAINED]

    @cached_property
    def path_columns(self) -> list[str]:
        """Its own column and the identifying ones; [] without paths."""
        if not issubclass(self.model, PathEndpoint):
            return []
        attnames = {field.attname for field in self.model._meta.concrete_fields}
        return ['_path_id', *(name for name in LINKS if name in attnames)]

    def attach(self, instances: Sequence[Model]) -> set[Any]:
        """In one query. Returns the pks of deleted objects."""
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
    # With a null key, `path` would read the row again.
    instance._path_id = (same_link and row['_path_id']) or 0
    if not instance._path_id:
        instance._meta.get_field('_path').set_cached_value(instance, None)


def leave_unlinked(instance: Model) -> None:
    """Only the wireless link's id is known."""
    link = instance._state.fields_cache.get('wireless_link')
    if link is not None and gone.is_stub(link) and instance.cable_id is None:
        vars(instance).setdefault('link_peers', [])


def place_in_tree(node: LtreeModel) -> None:
    """The path's depth depends on the current parent."""
    *_, own = node.path.split('.')
    if node.parent is None:
        node.path = own
    elif node.parent.path:
        node.path = f'{node.parent.path}.{own}'
