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
from ..presentation.fields import field, shown_in
from .credential import NAMES as CREDENTIAL_NAMES
from .definition import fieldsets
from .fields import switch

NAMES = shown_in('bulk edit')
OF_CREDENTIAL = tuple(name for name in CREDENTIAL_NAMES if name != 'name')


def form_field(of_model: Field) -> forms.Field:
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
    # NetBox needs this field. A job would keep the secret in Redis.
    background_job = forms.BooleanField(label='', required=False, disabled=True, widget=forms.HiddenInput)


class WebhookBulkEditForm(BulkEditForm):
    model = Webhook
    vars().update({name: form_field(field(name)) for name in NAMES})

    fieldsets = fieldsets('bulk edit')
    nullable_fields = tuple(name for name in NAMES if field(name).blank)


class CredentialBulkEditForm(BulkEditForm):
    model = Credential
    vars().update({name: form_field(Credential._meta.get_field(name)) for name in OF_CREDENTIAL})

    fieldsets = (FieldSet(*OF_CREDENTIAL),)
    nullable_fields = (
        'description', 'username', 'header', 'valid_until', 'token_url', 'scope', 'audience', 'ca_file_path',
    )  # fmt: skip
