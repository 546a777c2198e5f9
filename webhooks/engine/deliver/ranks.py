"""The rank of each installed model in a change set: a model ranks above the models that it points to."""

from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from django.apps import apps
from django.contrib.contenttypes.fields import GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db.models import DB_SET_NULL, SET_NULL, Field, Model

# How loosely a model points to another one. A cycle is broken where that is loosest: there the key may be empty.
REQUIRED, OPTIONAL, LOOSE = range(3)

# {model: {model that it points to: how loosely}}, by label.
Keys = dict[str, dict[str, int]]

# A cable points to what it connects in a table of its own.
PART_OF = {'dcim.cabletermination': 'dcim.cable'}


def rank_of(object_type_id: int) -> int:
    """Return the rank of a model. One that is no longer installed comes first."""
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    return _of_installed_models().get(_label(model), -1) if model else -1


@cache
def _of_installed_models() -> dict[str, int]:
    return ranks(_keys_of(apps.get_models()))


def ranks(keys: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the rank of each model."""
    left = {model: dict(keys[model]) for model in sorted(keys)}
    while True:
        try:
            return {model: rank for rank, model in enumerate(TopologicalSorter(left).static_order())}
        except CycleError as error:
            # Each in the list is pointed to by the next one.
            arrows = [(model, target) for target, model in pairwise(error.args[1])]
            model, target = max(arrows, key=lambda arrow: left[arrow[0]][arrow[1]])
            del left[model][target]


def _keys_of(models: Iterable[type[Model]]) -> Keys:
    keys: Keys = {}
    for model in models:
        for field in (*model._meta.fields, *model._meta.many_to_many):
            if field.related_model:
                _add(keys, model, field.related_model, _looseness(field))
        for field in model._meta.private_fields:
            # What may point to it by a generic key says so here alone.
            if isinstance(field, GenericRelation):
                _add(keys, field.related_model, model, OPTIONAL)
    return keys


def _add(keys: Keys, model: type[Model], target: type[Model], looseness: int) -> None:
    pointing, pointed = _label(model), _label(target)
    of_model = keys.setdefault(pointing, {})
    if pointing != pointed:
        of_model[pointed] = min(looseness, of_model.get(pointed, LOOSE))


def _looseness(field: Field) -> int:
    if field.many_to_many or field.remote_field.on_delete in (SET_NULL, DB_SET_NULL):
        return LOOSE
    return OPTIONAL if field.null else REQUIRED


def _label(model: type[Model]) -> str:
    label = model._meta.concrete_model._meta.label_lower
    return PART_OF.get(label, label)
