"""Fields of serializers: object types, and masked texts."""

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, QuerySet
from django.utils.translation import gettext_lazy as _
from netbox.api.fields import ContentTypeField
from rest_framework import serializers

from .. import object_types


class AllowedTypeField(ContentTypeField):
    """An object type such as 'dcim.site'. It refuses types that webhooks may not send."""

    default_error_messages = {
        'not_allowed': _('Webhooks may not send {content_type}. See the setting allowed_models.'),
    }

    def get_queryset(self) -> QuerySet[ContentType]:
        return ContentType.objects.all()

    def to_internal_value(self, data: Any) -> ContentType:
        if not isinstance(data, str):
            self.fail('invalid')
        found = object_types.by_label().get(data)
        if found is None:
            self.fail('not_allowed', content_type=data)
        return found


class MaskedField(serializers.CharField):
    """A text that is stored whole and shown masked. `shown` is the attribute of the instance that has the mask."""

    def __init__(self, *, shown: str, **kwargs):
        super().__init__(**kwargs)
        self.shown = shown

    def get_attribute(self, instance: Model) -> str:
        return getattr(instance, self.shown)
