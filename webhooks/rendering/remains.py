"""Completes the data of deleted objects: snapshots lack counts and related rows.

The data that the deletion showed has them. Without it they are empty, and named as lost.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey
from django.db.models import Model
from rest_framework.fields import Field

from . import gone, related
from .derived import Derived

# Keys whose values NetBox computes from other rows.
COMPUTED_KEYS = frozenset({'count_fhrp_groups', 'count_ipaddresses', 'l2vpn_termination', 'parent_device'})
# {key: keys through which its value is found}. Without a value in these it is empty, not lost.
KEYS_THROUGH = {
    **dict.fromkeys(
        (
            'link_peers', 'link_peers_type', 'connected_endpoints', 'connected_endpoints_type',
            'connected_endpoints_reachable',
        ),
        ('cable', 'wireless_link'),
    ),
    'mac_address': ('primary_mac_address',),
}  # fmt: skip

# The key of an object's custom fields. Each of them is completed on its own.
CUSTOM_FIELDS = 'custom_fields'

Data = dict[str, Any]


@dataclass(frozen=True)
class Remains:
    """Completes the data of deleted objects of a model. `fields`: the fields of its serializer, by key."""

    model: type[Model]
    fields: Mapping[str, Field]
    derived: Derived

    @cached_property
    def _counted(self) -> frozenset[str]:
        """Return the keys of columns that NetBox keeps by itself. A snapshot has them as of the event."""
        columns = set(self.derived.columns)
        return frozenset(name for name, field in self.fields.items() if columns.intersection(_columns(field)))

    @cached_property
    def _looked_up(self) -> frozenset[str]:
        return frozenset(name for name, field in self.fields.items() if self._is_looked_up(name, field))

    @cached_property
    def _through(self) -> dict[str, tuple[str, ...]]:
        present = {name: [key for key in keys if key in self.fields] for name, keys in KEYS_THROUGH.items()}
        return {name: tuple(keys) for name, keys in present.items() if keys and name in self.fields}

    @cached_property
    def _generic(self) -> dict[str, GenericForeignKey]:
        fields = {field.name: field for field in related.generic_keys(self.model)}
        return {name: fields[_first(field)] for name, field in self.fields.items() if _first(field) in fields}

    def _is_looked_up(self, name: str, field: Field) -> bool:
        first = _first(field)
        return first in self.derived.annotations or name in COMPUTED_KEYS or first in self._accessors

    @cached_property
    def _accessors(self) -> frozenset[str]:
        pointing = {relation.get_accessor_name() for relation in self.model._meta.related_objects}
        generic = {field.name for field in self.model._meta.private_fields} - {
            field.name for field in related.generic_keys(self.model)
        }
        return frozenset(pointing | generic) - {None}

    def complete(self, instance: Model, data: Data, held: Data | None) -> tuple[Data, list[str]]:
        """Return the data of a deleted object, and the keys whose values are lost.

        `held`: the data that its deletion showed, if known. Values that derive from other rows come from it, and
        related objects that are still the same.
        """
        stubs = set(self.unknown(instance, data))
        if held is None:
            linked = {name for name, keys in self._through.items() if _points(data, keys)}
            generic = {name for name, field in self._generic.items() if _is_dangling(data, name, field)}
            return data, _in_order(data, self._looked_up | linked | generic | stubs)
        whole = _each_as_held(data, held)
        if CUSTOM_FIELDS in data:
            whole[CUSTOM_FIELDS] = _each_as_held(data[CUSTOM_FIELDS], held[CUSTOM_FIELDS])
        linked = {name for name, keys in self._through.items() if all(_same(data.get(k), held.get(k)) for k in keys)}
        generic = {name for name, field in self._generic.items() if _is_same_target(data, held, field)}
        known = (self._looked_up | self._counted | linked | generic) & held.keys()
        whole |= {name: held[name] for name in data if name in known}
        lost = {name for name in self._through.keys() - linked if _points(data, self._through[name])}
        return whole, _in_order(data, lost | {name for name in stubs if whole[name] == data[name]})

    def unknown(self, instance: Model, data: Data) -> Iterator[str]:
        """Yield the keys of objects that are known by their id only, and the keys that depend on them."""
        stubs = {name for name in data if self._is_stub(instance, name)}
        for name in data:
            if name in stubs or not stubs.isdisjoint(self._through.get(name, ())):
                yield name

    def _is_stub(self, instance: Model, name: str) -> bool:
        first = _first(self.fields[name])
        value = instance._state.fields_cache.get(first)
        values = related.prefetched(instance, first) if value is None else (value,)
        return any(map(gone.is_stub, values))


def _in_order(data: Data, names: Set[str]) -> list[str]:
    return [name for name in data if name in names]


def _first(field: Field) -> str:
    return field.source.split('.')[0]


def _columns(field: Field) -> tuple[str, ...]:
    """Return the names that the field's column may have: NetBox shows the column `_children` as `children`."""
    first = _first(field)
    return first, f'_{first}', f'{first}_id'


def _points(data: Data, keys: tuple[str, ...]) -> bool:
    return any(data.get(key) is not None for key in keys)


def _is_dangling(data: Data, name: str, field: GenericForeignKey) -> bool:
    return data.get(name) is None and data.get(field.fk_field) is not None


def _is_same_target(data: Data, held: Data, field: GenericForeignKey) -> bool:
    return all(data.get(key) == held.get(key) for key in (field.ct_field, field.fk_field))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= {'id', 'url', 'display'}


def _same(value: Any, held: Any) -> bool:
    if _is_object(value) and _is_object(held):
        return (value['id'], value['url']) == (held['id'], held['url'])
    return value == held


def _each_as_held(data: Data, held: Data) -> Data:
    return {name: _as_held(value, held.get(name)) for name, value in data.items()}


def _as_held(value: Any, held: Any) -> Any:
    if _is_object(value):
        return held if _same(value, held) else value
    if isinstance(value, list) and value and all(map(_is_object, value)) and isinstance(held, list):
        return _list_as_held(value, held)
    return value


def _list_as_held(values: list[Data], held: list[Any]) -> list[Data]:
    by_url = {one['url']: one for one in held if _is_object(one)}
    if by_url.keys() == {one['url'] for one in values}:
        return held
    return [by_url.get(one['url'], one) for one in values]
