"""Reads the custom fields of a batch, and the objects that they point to, once for each model."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Model
from extras.choices import CustomFieldTypeChoices
from extras.models import CustomField

from . import gone
from .related import RelatedObjects

# The types of custom fields that point to objects.
POINTING_TYPES = (CustomFieldTypeChoices.TYPE_OBJECT, CustomFieldTypeChoices.TYPE_MULTIOBJECT)

Targets = Mapping[Any, Model]
# All fields of a model, and the pointing ones with their targets.
Kept = tuple[list[CustomField], list[tuple[CustomField, Targets]]]


class CustomFields:
    """The custom fields for one batch: for `instances`, and for the related objects that were found for them."""

    def __init__(self, instances: Sequence[Model], related: RelatedObjects) -> None:
        self._instances = instances
        self._related = related
        self._by_model: dict[type[Model], Kept] = {}

    def of(self, model: type[Model]) -> list[CustomField]:
        """Return the model's custom fields, for NetBox's serializer. Pointing ones show nothing: see `targets`."""
        return self._kept(model)[0]

    def targets(self, model: type[Model], values: Mapping[str, Any]) -> dict[str, Model | list[Model]]:
        """Return {name: object or objects} of the pointing fields, from an object's `values`, without empty ones."""
        found = {field.name: self._target(field, known, values) for field, known in self._kept(model)[1]}
        return {name: target for name, target in found.items() if target is not None}

    def _kept(self, model: type[Model]) -> Kept:
        if model not in self._by_model:
            instances = [*self._related.known(model), *(i for i in self._instances if isinstance(i, model))]
            fields = CustomField.objects.get_for_model(model)
            pointing = [(field, self._prepare(field, instances)) for field in fields if field.type in POINTING_TYPES]
            self._by_model[model] = [_showing_nothing(f) if f.type in POINTING_TYPES else f for f in fields], pointing
        return self._by_model[model]

    def _prepare(self, field: CustomField, instances: Sequence[Model]) -> Targets:
        targets = self._targets(field, [key for instance in instances for key in _keys(field, _value(field, instance))])
        for instance in instances:
            _forget_dangling(field, instance, targets)
        return targets

    def _targets(self, field: CustomField, keys: Sequence[Any]) -> Targets:
        model = field.related_object_type.model_class()
        return {target.pk: target for target in self._related.find_in_order(model, set(keys))}

    def _target(self, field: CustomField, targets: Targets, values: Mapping[str, Any]) -> Model | list[Model] | None:
        value = values.get(field.name)
        if value is None:
            return None
        keys = _keys(field, value)
        if not targets.keys() >= set(keys):
            targets = self._targets(field, keys)
        found = [target for pk, target in targets.items() if pk in keys]
        return found if _is_many(field) else next(iter(found), None)


def _showing_nothing(field: CustomField) -> CustomField:
    # The manager caches fields and gives them to others. So the change is made to a copy.
    field = copy.copy(field)
    field.deserialize = lambda value: None
    return field


def _is_many(field: CustomField) -> bool:
    return field.type == CustomFieldTypeChoices.TYPE_MULTIOBJECT


def _value(field: CustomField, instance: Model) -> Any:
    return instance.custom_field_data.get(field.name)


def _keys(field: CustomField, value: Any) -> list[Any]:
    if value is None:
        return []
    return value if _is_many(field) else [value]


def _forget_dangling(field: CustomField, instance: Model, targets: Targets) -> None:
    """Remove keys of targets that were deleted before the snapshot: the API does not show them."""
    keys = _keys(field, _value(field, instance))
    kept = [key for key in keys if not gone.deleted_before(targets[key], instance)]
    if kept != keys:
        instance.custom_field_data[field.name] = kept if _is_many(field) else None
