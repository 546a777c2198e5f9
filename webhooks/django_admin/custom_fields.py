"""Custom fields in the admin's form, which lacks NetBox's scripts for choices."""

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

# Models first, since they are choices too.
PLAIN = {
    DynamicModelMultipleChoiceField: forms.ModelMultipleChoiceField,
    DynamicModelChoiceField: forms.ModelChoiceField,
    DynamicMultipleChoiceField: forms.MultipleChoiceField,
    DynamicChoiceField: forms.ChoiceField,
}
KEPT = ('required', 'initial', 'label', 'help_text', 'disabled')


def names() -> list[str]:
    fields = CustomField.objects.get_for_model(Webhook)
    return [f'cf_{one.name}' for one in fields if one.ui_editable != CustomFieldUIEditableChoices.HIDDEN]


class CustomFieldsForm(CustomFieldsMixin, forms.ModelForm):
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
    for dynamic, plain in PLAIN.items():
        if isinstance(field, dynamic):
            kept = {name: getattr(field, name) for name in KEPT}
            source = {'queryset': field.queryset} if hasattr(field, 'queryset') else {'choices': field.choices}
            return plain(**source, **kept)
    return field
