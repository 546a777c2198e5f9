"""Finds which keys of a model's data point to objects, may be expanded, are in a snapshot, and can be compared."""

import logging
import re
from functools import cache

from django.db import transaction
from django.db.models import Model
from rest_framework.fields import DictField, Field, JSONField, SerializerMethodField
from rest_framework.relations import ManyRelatedField
from rest_framework.serializers import ListSerializer, Serializer
from utilities.api import get_serializer_for_model
from utilities.fields import CounterCacheField

from ..interruptions import INTERRUPTIONS
from .derived import MAINTAINED
from .parts import find
from .serializer import BaseModelSerializer, GFKSerializerField, SerializedPKRelatedField

logger = logging.getLogger('webhooks.rendering')

ChoiceField = find('netbox.api.fields', 'ChoiceField')
CustomFieldsDataField = find('extras.api.customfields', 'CustomFieldsDataField')

# These apps hold people and their sign-in. Their objects are never expanded.
HIDDEN_APPS = frozenset({'account', 'social_django', 'users'})
# A key with such a name may hold a secret. `parameters` of a DataSource hold passwords.
SECRET_NAME = re.compile(
    'secret|password|passphrase|psk|preshared_key|auth_key|private_key|plaintext|token|credential|^parameters$|headers'
)
# A method computes this key of every object, but it points nowhere.
DISPLAY = 'display'
# Below a field of such a type any key may follow.
FREE_FORM_FIELDS = (DictField, JSONField, SerializerMethodField, GFKSerializerField, CustomFieldsDataField, Serializer)


@cache
def targets(model: type[Model]) -> dict[str, type[Model]]:
    """Return {key of the model's data: model that it points to}. `Model` itself means any model."""
    fields = get_serializer_for_model(model)().fields
    found = {name: _target(field) for name, field in fields.items() if name != DISPLAY}
    return {name: target for name, target in found.items() if target is not None}


def _target(field: Field) -> type[Model] | None:
    field = field.child if isinstance(field, ListSerializer) else field
    field = field.child_relation if isinstance(field, ManyRelatedField) else field
    if isinstance(field, GFKSerializerField | SerializerMethodField):
        return Model
    if isinstance(field, SerializedPKRelatedField):
        return field.serializer.Meta.model
    return field.Meta.model if isinstance(field, BaseModelSerializer) else None


@cache
def stored(model: type[Model]) -> dict[str, Field]:
    """Return {key: field of the serializer} for values in a snapshot: columns, generic and many-to-many relations."""
    own = {*model._meta.concrete_fields, *model._meta.many_to_many, *model._meta.private_fields}
    names = {name for field in own for name in (field.name, getattr(field, 'attname', field.name))}
    fields = get_serializer_for_model(model)().fields
    return {name: field for name, field in fields.items() if field.source in names and not field.write_only}


@cache
def shown(model: type[Model]) -> dict[str, frozenset[str] | None]:
    """Return {key of the model's data: the keys below it}. None: any key may follow, as in JSON."""
    fields = get_serializer_for_model(model)().fields
    return {name: _below(field) for name, field in fields.items() if not field.write_only}


@cache
def snapshot_names(model: type[Model]) -> dict[str, frozenset[str]]:
    """Return {key of the model's data: names of the same value in the change log}, such as both columns of a scope."""
    fields = get_serializer_for_model(model)().fields
    generic = {one.name: (one.ct_field, one.fk_field) for one in model._meta.private_fields if hasattr(one, 'ct_field')}
    return {
        name: frozenset((name, field.source.partition('.')[0], *generic.get(field.source, ())))
        for name, field in fields.items()
    }


@cache
def comparable(model: type[Model]) -> dict[str, frozenset[str] | None]:
    """Return {key: the keys below it} for values that a change can change. None: any key may follow, as in JSON.

    Keys of `stored` that NetBox keeps by itself are left out.
    """
    counters = {field.name for field in model._meta.concrete_fields if isinstance(field, CounterCacheField)}
    left_out = {'id', 'last_updated', *MAINTAINED, *counters}
    return {name: _below(field) for name, field in stored(model).items() if name not in left_out}


def _below(field: Field) -> frozenset[str] | None:
    field = field.child if isinstance(field, ListSerializer) else field
    field = field.child_relation if isinstance(field, ManyRelatedField) else field
    if isinstance(field, SerializedPKRelatedField):
        field = field.serializer(nested=field.nested)
    if isinstance(field, BaseModelSerializer):
        return frozenset(field.fields)
    if isinstance(field, ChoiceField):
        return frozenset(('value', 'label'))
    return None if isinstance(field, FREE_FORM_FIELDS) else frozenset()


@cache
def is_stored_whole(model: type[Model]) -> bool:
    """Return whether a snapshot holds all that a client may set. A cable's ends, for example, are other rows.

    Users' saves ask for it. So a serializer that cannot be made, as a plugin's may be, is logged: nobody knows.
    """
    try:
        # An error of PostgreSQL must not end the user's transaction.
        with transaction.atomic():
            return _is_stored_whole(model)
    except INTERRUPTIONS:
        raise
    except Exception:
        logger.exception(
            'model=%s its serializer cannot be made: each save counts as a change', model._meta.label_lower
        )
        return False


def _is_stored_whole(model: type[Model]) -> bool:
    fields = get_serializer_for_model(model)().fields
    lists = {name: field for name, field in fields.items() if isinstance(field, ListSerializer | ManyRelatedField)}
    return all(name in stored(model) for name, field in lists.items() if not field.read_only)


@cache
def may_be_expanded(model: type[Model]) -> bool:
    """Return whether objects of the model may be shown in full to receivers: it has no people and no secrets."""
    if model._meta.app_label in HIDDEN_APPS:
        return False
    fields = get_serializer_for_model(model)().fields
    return not any(SECRET_NAME.search(name) and not field.write_only for name, field in fields.items())
