"""The object types that a webhook may subscribe to."""

from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet

from .signals import allowed_models


def allowed() -> QuerySet[ContentType]:
    """Return the object types of the setting `allowed_models`, by app and model."""
    types = ContentType.objects.get_for_models(*allowed_models()).values()
    return ContentType.objects.filter(pk__in=[object_type.pk for object_type in types]).order_by('app_label', 'model')


def by_label() -> dict[str, ContentType]:
    """Return {'app.model': object type} of the allowed ones."""
    return {f'{object_type.app_label}.{object_type.model}': object_type for object_type in allowed()}
