"""The forms that change many webhooks or credentials at once."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.db.models import BooleanField, DateField, Field
from django.utils.text import capfirst
from netbox.forms import NetBoxModelBulkEditForm
from utilities.forms import add_blank_choice
from utilities.forms.fields import DynamicModelMultipleChoiceField
from utilities.forms.rendering import FieldSet
from utilities.forms.widgets import DatePicker

from ..models import Credential, Webhook
from ..models.fields import SealedField
from ..presentation import credential_fields
from ..presentation.fields import field, shown_in
from .definition import fieldsets
from .form_fields import switch

EDITED_OF_WEBHOOK = shown_in('bulk edit')
EDITED_OF_CREDENTIAL = [credential_fields.field(name) for name in credential_fields.shown_in('bulk edit')]


def form_field(of_model: Field) -> forms.Field:
    """Return the form's field for a column of the model. Left blank, it changes nothing."""
    title = capfirst(of_model.verbose_name)
    if isinstance(of_model, BooleanField):
        return switch(title)
    if of_model.many_to_many:
        queryset = of_model.related_model.objects.all()
        return DynamicModelMultipleChoiceField(label=title, queryset=queryset, required=False)
    if of_model.choices:
        return forms.ChoiceField(label=title, choices=add_blank_choice(of_model.choices), required=False)
    made = of_model.formfield(required=False, initial=None)
    if isinstance(of_model, SealedField):
        made.strip, made.widget = False, forms.PasswordInput(attrs={'autocomplete': 'new-password'})
    if isinstance(of_model, DateField):
        made.widget = DatePicker()
    return made


class BulkEditForm(NetBoxModelBulkEditForm):
    """The base of both forms. It hides NetBox's offer to do the change in a background job."""

    # NetBox needs this field. A job would keep an entered secret in Redis; therefore nobody can choose one.
    background_job = forms.BooleanField(label='', required=False, disabled=True, widget=forms.HiddenInput)


def with_fields(columns: Iterable[Field]) -> type[Any]:
    """Return a form with a field for each of a model's columns."""
    return type('FieldsForm', (BulkEditForm,), {one.name: form_field(one) for one in columns})


class WebhookBulkEditForm(with_fields(map(field, EDITED_OF_WEBHOOK))):
    """Changes the fields of webhooks that LEFT_OUT['bulk edit'] does not leave out."""

    model = Webhook
    fieldsets = fieldsets('bulk edit')
    nullable_fields = tuple(name for name in EDITED_OF_WEBHOOK if field(name).blank)


class CredentialBulkEditForm(with_fields(EDITED_OF_CREDENTIAL)):
    """Changes the fields of credentials, but not their names, which are unique."""

    model = Credential
    fieldsets = (FieldSet(*(one.name for one in EDITED_OF_CREDENTIAL)),)
    nullable_fields = tuple(one.name for one in EDITED_OF_CREDENTIAL if one.blank and one.name != 'secret')
