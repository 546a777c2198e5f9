"""Keys that `expand` may name."""

import re
from functools import cache

from django.db.models import Model
from rest_framework.fields import Field, SerializerMethodField
from rest_framework.relations import ManyRelatedField
from rest_framework.serializers import ListSerializer
from utilities.api import get_serializer_for_model

from .serializer import BaseModelSerializer, GFKSerializerField, SerializedPKRelatedField

# Models of people and their sign-in.
HIDDEN_APPS = frozenset({'account', 'social_django', 'users'})
# DataSource has passwords in `parameters`.
SECRET = re.compile(
    'secret|password|passphrase|psk|preshared_key|auth_key|private_key|plaintext|token|credential|^parameters$|headers'
)
DISPLAY = 'display'


@cache
def targets(model: type[Model]) -> dict[str, type[Model]]:
    """Return {key: target model}. `Model` itself means any model."""
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
def may_be_expanded(model: type[Model]) -> bool:
    if model._meta.app_label in HIDDEN_APPS:
        return False
    fields = get_serializer_for_model(model)().fields
    return not any(SECRET.search(name) and not field.write_only for name, field in fields.items())
