"""Custom fields of webhooks in the admin's form, which lacks NetBox's scripts for choices."""

from typing import Any

from django import forms
from extras.choices import CustomFieldUIEditableChoices
from extras.models import CustomField
from netbox.forms import NetBoxModelForm
from netbox.forms.mixins import CustomFieldsMixin
from utilities.forms.fields import (
    DynamicChoiceField,
    DynamicModelChoiceField,
    DynamicModelMultipleChoiceField,
    DynamicMultipleChoiceField,
)

from ..models import Webhook

# NetBox's fields whose choices a script fetches, and Django's in their place.
PLAIN_FIELDS = {
    DynamicModelMultipleChoiceField: forms.ModelMultipleChoiceField,
    DynamicModelChoiceField: forms.ModelChoiceField,
    DynamicMultipleChoiceField: forms.MultipleChoiceField,
    DynamicChoiceField: forms.ChoiceField,
}
# A plain field keeps these.
KEPT_ATTRIBUTES = ('required', 'initial', 'label', 'help_text', 'disabled')


def names() -> list[str]:
    """Return the custom fields' names in the form, such as 'cf_owner', without hidden fields."""
    fields = CustomField.objects.get_for_model(Webhook)
    return [f'cf_{one.name}' for one in fields if one.ui_editable != CustomFieldUIEditableChoices.HIDDEN]


class CustomFieldsForm(CustomFieldsMixin, forms.ModelForm):
    """Adds a webhook's custom fields to the admin's form, and their values to the webhook."""

    model = Webhook

    def _get_form_field(self, customfield: CustomField) -> forms.Field:
        return _plain(NetBoxModelForm._get_form_field(self, customfield))

    def clean(self) -> dict[str, Any] | None:
        for name, custom in self.custom_fields.items():
            value = self.cleaned_data.get(name)
            is_empty = value in self.fields[name].empty_values
            self.instance.custom_field_data[custom.name] = None if is_empty else custom.serialize(value)
        return super().clean()


def _plain(field: forms.Field) -> forms.Field:
    """Return Django's field in place of a field that fetches its choices by NetBox's scripts."""
    for dynamic, plain in PLAIN_FIELDS.items():
        if isinstance(field, dynamic):
            kept = {name: getattr(field, name) for name in KEPT_ATTRIBUTES}
            source = {'queryset': field.queryset} if hasattr(field, 'queryset') else {'choices': field.choices}
            return plain(**source, **kept)
    return field
