"""Ranks each installed model in a change set: a model ranks above the models that it points to."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from django.apps import apps
from django.contrib.contenttypes.fields import GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db.models import DB_SET_NULL, SET_NULL, Field, Model

# How loosely a model points to a second one. A cycle is broken where that is loosest: there the key may be empty.
REQUIRED, OPTIONAL, LOOSE = range(3)

# A cable points to its ends in a table of its own. So this one counts as a part of the cable.
PART_OF = {'dcim.cabletermination': 'dcim.cable'}


def rank_of(object_type_id: int) -> int:
    """Return the rank of a model, given by its id: -1 if it is no longer installed, so it comes first."""
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    return _of_installed_models().get(_label(model), -1) if model else -1


@cache
def _of_installed_models() -> dict[str, int]:
    keys: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for model, target, looseness in _arrows():
        if model != target:
            keys[model][target] = min(looseness, keys[model].get(target, LOOSE))
    return ranks(keys)


def ranks(keys: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the rank of each model, from 0. `keys`: how loosely a model points to others, {model: {other: looseness}}.

    A cycle is broken at its loosest key.
    """
    left = {model: dict(keys[model]) for model in sorted(keys)}
    while True:
        try:
            return {model: rank for rank, model in enumerate(TopologicalSorter(left).static_order())}
        except CycleError as error:
            # In the list of a cycle the next model points to each one.
            arrows = [(model, target) for target, model in pairwise(error.args[1])]
            model, target = max(arrows, key=lambda arrow: left[arrow[0]][arrow[1]])
            del left[model][target]


def _arrows() -> Iterator[tuple[str, str, int]]:
    """Yield each model, a model that it points to, and how loosely."""
    for model in apps.get_models():
        for field in (*model._meta.fields, *model._meta.many_to_many):
            if field.related_model:
                yield _label(model), _label(field.related_model), _looseness(field)
        for field in model._meta.private_fields:
            # Only here do models say that they point to it by a generic key.
            if isinstance(field, GenericRelation):
                yield _label(field.related_model), _label(model), OPTIONAL


def _looseness(field: Field) -> int:
    if field.many_to_many or field.remote_field.on_delete in (SET_NULL, DB_SET_NULL):
        return LOOSE
    return OPTIONAL if field.null else REQUIRED


def _label(model: type[Model]) -> str:
    label = model._meta.concrete_model._meta.label_lower
    return PART_OF.get(label, label)
