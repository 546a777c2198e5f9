"""Renders snapshots as NetBox's change log shows objects: for `prechange` and `postchange` of a payload."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import JSONField, Model
from netbox.config import get_config
from utilities.api import get_serializer_for_model
from utilities.serialization import serialize_object

from . import related
from .decoding import build


def change_log(model: type[Model], snapshots: Sequence[Any]) -> list[dict[str, Any] | None]:
    """Return each snapshot as the change log would show the object, in order; None for None."""
    present = [snapshot for snapshot in snapshots if snapshot is not None]
    instances = build(model, [snapshot['row'] for snapshot in present])
    found = related.RelatedObjects()
    for field in model._meta.many_to_many:
        keys = [snapshot['m2m'].get(field.name, []) for snapshot in present]
        related.attach_many(instances, field, keys, found)
    _write_out_json_in_arrays(model, instances)
    shown = iter([_serialize(instance) for instance in instances])
    return [None if snapshot is None else next(shown) for snapshot in snapshots]


def _write_out_json_in_arrays(model: type[Model], instances: Sequence[Model]) -> None:
    """Turn the values of JSON arrays into plain JSON. Django forgets their encoder, so NetBox would fail at a time."""
    for field in model._meta.concrete_fields:
        if isinstance(field, ArrayField) and isinstance(field.base_field, JSONField):
            for instance in instances:
                values = getattr(instance, field.attname)
                setattr(instance, field.attname, json.loads(json.dumps(values, cls=field.base_field.encoder)))


def _serialize(instance: Model) -> dict[str, Any]:
    """Return the data that ChangeLoggingMixin.to_objectchange() would store."""
    exclude = ['last_updated'] if get_config().CHANGELOG_SKIP_EMPTY_CHANGES else []
    if hasattr(instance, 'serialize_object'):
        return instance.serialize_object(exclude=exclude)
    shown = serialize_object(instance, exclude=exclude)
    return {name: value for name, value in shown.items() if name in _readable(type(instance))}


@cache
def _readable(model: type[Model]) -> frozenset[str]:
    """Return the keys that the REST API shows: without passwords and secrets."""
    fields = get_serializer_for_model(model)().fields
    return frozenset(name for name, field in fields.items() if not field.write_only)
