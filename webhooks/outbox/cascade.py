"""Finds the objects that a deletion also removes. Django's collector knows them, but no signal handler can reach it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.contrib.contenttypes.fields import GenericRelation
from django.db.models import CASCADE, Model
from django.db.models.deletion import get_candidate_relations_to_delete

from ..default_database import rows
from .snapshots import object_type_id


@dataclass(frozen=True)
class Hanging:
    """Rows of `model` that are deleted along with the row their `column` points to.

    For a generic key `of` is the model it points to, and `type_column` the column of its type.
    """

    model: type[Model]
    column: str
    type_column: str = ''
    of: type[Model] | None = None

    def on(self, pks: Collection[Any]) -> set[Any]:
        """Return the pks of the rows that point to one of `pks`."""
        filters: dict[str, Any] = {f'{self.column}__in': pks}
        if self.of is not None:
            filters[self.type_column] = object_type_id(self.of)
        return set(rows(self.model).filter(**filters).values_list('pk', flat=True))


@cache
def reach(model: type[Model]) -> frozenset[type[Model]]:
    """Return the models whose objects may be deleted along with an object of `model`, at any depth."""
    found: set[type[Model]] = set()
    waiting = [model]
    while waiting:
        further = {hanging.model for hanging in _hanging(waiting.pop())} - found
        found |= further
        waiting += further
    return frozenset(found)


def going(
    model: type[Model], pks: Sequence[Any], wanted: Collection[type[Model]]
) -> Iterator[tuple[type[Model], list[Any]]]:
    """Yield each of the `wanted` models with the sorted pks that a deletion of `pks` removes, `pks` included.

    Dependent objects come first. Reads the database, once for each relation and level.
    """
    found: dict[type[Model], set[Any]] = {model: set(pks)}
    waiting = [(model, set(pks))]
    for owner, keys in waiting:
        for hanging in _hanging(owner):
            if hanging.model not in wanted and reach(hanging.model).isdisjoint(wanted):
                continue
            if new := hanging.on(keys) - found.setdefault(hanging.model, set()):
                found[hanging.model] |= new
                waiting.append((hanging.model, new))
    for each in reversed(found):
        if each in wanted and found[each]:
            yield each, sorted(found[each])


@cache
def _hanging(model: type[Model]) -> tuple[Hanging, ...]:
    return (*_by_foreign_key(model), *_by_generic_key(model))


def _by_foreign_key(model: type[Model]) -> Iterator[Hanging]:
    for relation in get_candidate_relations_to_delete(model._meta):
        field = relation.field
        if field.remote_field.on_delete is CASCADE and field.target_field.primary_key:
            yield Hanging(relation.related_model._meta.concrete_model, field.attname)


def _by_generic_key(model: type[Model]) -> Iterator[Hanging]:
    for field in model._meta.private_fields:
        if isinstance(field, GenericRelation):
            related = field.related_model._meta.concrete_model
            yield Hanging(related, field.object_id_field_name, f'{field.content_type_field_name}_id', model)
