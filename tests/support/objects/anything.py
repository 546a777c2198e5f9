"""An object of any model, with only its required values."""

import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import models
from django.utils import timezone
from users.models import Token, User

from .surroundings import number, some_site, unique

PIXEL = base64.b64decode('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7')

# By the class of a field, or its first listed base class.
VALUES: dict[str, Callable[[], Any]] = {
    'ArrayField': list,
    'DateTimeField': timezone.now,
    'Field': lambda: unique('text'),
    'IPAddressField': lambda: f'10.{number() % 250}.{number() % 250}.7/24',
    'IPNetworkField': lambda: f'10.{number() % 250}.0.0/16',
    'ImageField': lambda: ContentFile(PIXEL, 'pixel.gif'),
    'IntegerField': number,
    'JSONField': dict,
    'MACAddressField': lambda: f'02:00:00:00:00:{number() % 256:02x}',
    'UUIDField': uuid4,
}


def make_anything(model: type[models.Model]) -> models.Model:
    """NetBox's validation and signals would reject random values."""
    if model is Token:
        return Token.objects.create(user=make_anything(User))
    instance = model()
    for field in model._meta.concrete_fields:
        if _must_be_given(field, instance):
            setattr(instance, field.name, _value(field))
    for field in model._meta.private_fields:
        if isinstance(field, GenericForeignKey):
            setattr(instance, field.name, some_site())
    instance.save_base(raw=True)
    return model._base_manager.get(pk=instance.pk)


def _must_be_given(field: models.Field, instance: models.Model) -> bool:
    if field.primary_key or field.generated or field.null or (field.blank and field.empty_strings_allowed):
        return False
    return field.value_from_object(instance) in (None, '')


def _value(field: models.Field) -> Any:
    if isinstance(field, models.ForeignKey):
        model = field.related_model
        return ContentType.objects.get_for_model(some_site()) if model is ContentType else make_anything(model)
    if field.choices:
        return field.flatchoices[0][0]
    return next(VALUES[kind.__name__]() for kind in type(field).__mro__ if kind.__name__ in VALUES)
