"""The export of a webhook as YAML, which NetBox's import takes back."""

from collections.abc import Iterator
from typing import Any

import yaml
from django.db import models
from extras.choices import CustomFieldTypeChoices, CustomFieldUIEditableChoices
from extras.models import CustomField

from ..object_types import label_of

# `id` comes first, and custom fields get keys of their own.
EXPORTED_APART = ('id', 'custom_field_data')


class ExportedModel(models.Model):
    """Gives Webhook the YAML that NetBox's export asks for.

    Masked values stay masked: an import keeps the stored ones, and another NetBox asks for them.
    """

    class Meta:
        abstract = True

    def to_yaml(self) -> str:
        """Return the webhook as a YAML list with one item.

        In a list, NetBox's import recognizes YAML. Takes one query a relation.
        """
        return yaml.safe_dump([self._as_imported()], sort_keys=False, allow_unicode=True)

    def _as_imported(self) -> dict[str, Any]:
        columns = [one.name for one in self._meta.concrete_fields if one.editable and one.name not in EXPORTED_APART]
        return {
            'id': self.pk,
            **{name: getattr(self, name) for name in columns},
            'payload_url': self.masked_url,
            'secret': str(self.secret),
            'additional_headers': self.masked_headers,
            'credential': self.credential and self.credential.name,
            'object_types': [label_of(one) for one in self.object_types.all()],
            'ignore_users': [one.username for one in self.ignore_users.all()],
            'notification_groups': [one.name for one in self.notification_groups.all()],
            'tags': [one.slug for one in self.tags.all()],
            **{f'cf_{name}': value for name, value in self._custom_fields()},
        }

    def _custom_fields(self) -> Iterator[tuple[str, Any]]:
        """Yield the custom fields that NetBox's import knows: people may edit them."""
        for field in CustomField.objects.get_for_model(self._meta.model):
            if field.ui_editable != CustomFieldUIEditableChoices.YES or field.name not in self.custom_field_data:
                continue
            value = self.custom_field_data[field.name]
            if field.type == CustomFieldTypeChoices.TYPE_MULTISELECT:
                value = ','.join(value or ())
            yield field.name, value
