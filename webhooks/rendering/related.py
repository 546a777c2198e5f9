"""Finds the objects that a batch of instances points to. The number of queries does not depend on the batch's size."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey
from django.db.models import FETCH_PEERS, Field, ForeignKey, Model

from ..object_types import model_of_id
from . import gone
from .decoding import as_peers


class RelatedObjects:
    """The related objects of a batch: one instance for each. Deleted ones are rebuilt."""

    def __init__(self) -> None:
        self._found: dict[type[Model], dict[Any, Model]] = defaultdict(dict)

    def find(self, model: type[Model], pks: Iterable[Any]) -> dict[Any, Model]:
        """Return {pk: instance} of the model with at least these keys. Unknown ones are read, deleted ones rebuilt."""
        found = self._found[model]
        if missing := set(pks) - found.keys():
            found.update(model._base_manager.fetch_mode(FETCH_PEERS).in_bulk(missing))
            self._rebuild(model, missing - found.keys())
        return found

    def known(self, model: type[Model]) -> Collection[Model]:
        """Return the instances of the model that were found so far."""
        return self._found[model].values()

    def find_in_order(self, model: type[Model], pks: Collection[Any]) -> list[Model]:
        """Return the instances in the model's own order, deleted ones last, by pk. It costs a query."""
        if not pks:
            return []
        found = self._found[model]
        existing = model._default_manager.filter(pk__in=pks).fetch_mode(FETCH_PEERS)
        in_order = [found.setdefault(item.pk, item) for item in existing]
        self._rebuild(model, set(pks) - found.keys())
        return in_order + [found[pk] for pk in sorted(set(pks) - {item.pk for item in in_order})]

    def _rebuild(self, model: type[Model], pks: Collection[Any]) -> None:
        if not pks:
            return
        rebuilt = gone.rebuild(model, pks)
        self._found[model].update(rebuilt)
        attach_foreign_keys(rebuilt.values(), foreign_keys(model), self)


def foreign_keys(model: type[Model]) -> list[ForeignKey]:
    """Return the foreign keys that the API shows. NetBox's denormalized keys, which begin with _, are not."""
    fields = [field for field in model._meta.concrete_fields if isinstance(field, ForeignKey)]
    return [field for field in fields if field.target_field.primary_key and not field.name.startswith('_')]


def generic_keys(model: type[Model]) -> list[GenericForeignKey]:
    """Return the model's generic foreign keys."""
    return [field for field in model._meta.private_fields if isinstance(field, GenericForeignKey)]


def attach_foreign_keys(instances: Collection[Model], fields: Iterable[ForeignKey], related: RelatedObjects) -> None:
    """Set the related object of each key on the instances. Queries depend on keys and models only."""
    for field in fields:
        pks = {getattr(instance, field.attname) for instance in instances} - {None}
        found = related.find(field.related_model, pks) if pks else {}
        for instance in instances:
            if (pk := getattr(instance, field.attname)) is not None:
                field.set_cached_value(instance, found[pk])


def attach_generic_keys(
    instances: Collection[Model], fields: Iterable[GenericForeignKey], related: RelatedObjects
) -> None:
    """Set the related object of each key on the instances; None where the API shows null."""
    for field in fields:
        by_type = defaultdict(list)
        type_attname = field.model._meta.get_field(field.ct_field).attname
        for instance in instances:
            by_type[getattr(instance, type_attname)].append(instance)
        for type_id, pointing in by_type.items():
            model = model_of_id(type_id) if type_id is not None else None
            _attach_generic_key(pointing, field, model, related)


def _attach_generic_key(
    instances: Sequence[Model], field: GenericForeignKey, model: type[Model] | None, related: RelatedObjects
) -> None:
    # The column may hold the key as another type, such as text.
    to_key = model._meta.pk.to_python if model else lambda value: None
    keys = [to_key(getattr(instance, field.fk_field)) for instance in instances]
    found = related.find(model, set(keys) - {None}) if model else {}
    for instance, key in zip(instances, keys, strict=True):
        target = found.get(key)
        field.set_cached_value(instance, None if target is None or _dangling(target, instance) else target)


def _dangling(target: Model, instance: Model) -> bool:
    """Return whether the target was gone at the snapshot. A generic key may outlive its target: the API shows null."""
    return gone.is_stub(target) or gone.deleted_before(target, instance)


def attach_many(
    instances: Sequence[Model], field: Field, pks: Sequence[Collection[Any]], related: RelatedObjects
) -> None:
    """Set a many-to-many field's objects on each instance as if prefetched, from the keys at its place in `pks`."""
    model = field.related_model
    in_order = related.find_in_order(model, set().union(*pks))
    for instance, wanted in zip(instances, map(set, pks), strict=True):
        queryset = model._default_manager.all()
        queryset._result_cache = [item for item in in_order if item.pk in wanted]
        queryset._prefetch_done = True
        _prefetched(instance)[field.name] = queryset


def prefetched(instance: Model, name: str) -> Collection[Model]:
    """Return the objects of a relation that were prefetched for the instance; () if it was not."""
    return _prefetched(instance).get(name, ())


def _prefetched(instance: Model) -> dict[str, Any]:
    return instance.__dict__.setdefault('_prefetched_objects_cache', {})


def as_peers_by_relation(instances: Iterable[Model]) -> None:
    """Let the prefetched objects of each relation fetch missing data together. Django does not do that."""
    by_relation = defaultdict(dict)
    for instance in instances:
        for name, queryset in _prefetched(instance).items():
            by_relation[name].update((id(item), item) for item in queryset)
    for items in by_relation.values():
        as_peers(items.values())
