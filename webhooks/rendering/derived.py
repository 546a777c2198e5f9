"""What no snapshot can know, because NetBox derives it from other rows: it is as of rendering.

Of an object that is gone, remains.py tells what becomes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dcim.models.device_components import PathEndpoint
from django.db.models import DecimalField, FloatField, IntegerField, Model, QuerySet, Sum
from netbox.models.ltree import LtreeModel
from utilities.fields import CounterCacheField

from . import gone

# Columns that NetBox updates behind the instance when other objects change.
MAINTAINED = {'_depth', '_children', 'termination_a_id', 'termination_z_id'}
# What the cable path of an endpoint belongs to.
LINKS = ('cable_id', 'wireless_link_id')

Row = dict[str, Any]


@dataclass(frozen=True)
class Derived:
    """`queryset` is the API view's with all its annotations."""

    queryset: QuerySet

    @property
    def model(self) -> type[Model]:
        """The model of the objects."""
        return self.queryset.model

    @cached_property
    def annotations(self) -> dict[str, Any]:
        """Their values for an object that is gone, by name."""
        return {name: _nothing(name, each) for name, each in self.queryset.query.annotations.items()}

    @cached_property
    def columns(self) -> list[str]:
        """Columns that NetBox maintains behind the instance: counters, depths, cable terminations."""
        fields = self.model._meta.concrete_fields
        return [f.attname for f in fields if isinstance(f, CounterCacheField) or f.attname in MAINTAINED]

    @cached_property
    def path_columns(self) -> list[str]:
        """The column of the cable path and those that tell whether it is still the same; [] without paths."""
        if not issubclass(self.model, PathEndpoint):
            return []
        attnames = {field.attname for field in self.model._meta.concrete_fields}
        return ['_path_id', *(name for name in LINKS if name in attnames)]

    def attach(self, instances: Sequence[Model]) -> set[Any]:
        """Give the instances what is derived, in one query. Returns the pks of those that are gone by now.

        What is gone counts 0 of everything.
        """
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
    """Return what an annotation is where there are no rows, in its own type."""
    if name.endswith('_count'):
        return 0
    # A sum over nothing is null.
    is_number = isinstance(annotation.output_field, DecimalField | FloatField | IntegerField)
    return annotation.output_field.to_python(0) if is_number and not isinstance(annotation, Sum) else None


def _attach_path(instance: PathEndpoint, row: Row | None) -> None:
    """Give the endpoint its cable path if it is still linked as it was, else none."""
    same_link = row and all(row.get(name) == getattr(instance, name, None) for name in LINKS)
    # Where the key is null, `path` would read the row again.
    instance._path_id = (same_link and row['_path_id']) or 0
    if not instance._path_id:
        instance._meta.get_field('_path').set_cached_value(instance, None)


def leave_unlinked(instance: Model) -> None:
    """Let an interface have no peers if nothing but the id of its wireless link is known: NetBox would ask the link."""
    link = instance._state.fields_cache.get('wireless_link')
    if link is not None and gone.is_stub(link) and instance.cable_id is None:
        vars(instance).setdefault('link_peers', [])


def place_in_tree(node: LtreeModel) -> None:
    """Let the node's path, of which the API shows the depth, follow from its own parent as that is now."""
    *_, own = node.path.split('.')
    if node.parent is None:
        node.path = own
    elif node.parent.path:
        node.path = f'{node.parent.path}.{own}'
