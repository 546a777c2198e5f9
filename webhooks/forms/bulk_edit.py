from django import forms
from netbox.forms import NetBoxModelBulkEditForm
from utilities.forms import add_blank_choice
from utilities.forms.fields import DynamicModelMultipleChoiceField

from ..models import Webhook
from ..models.fields import SealedField
from ..presentation.fields import field, is_switch, label, shown_in
from .definition import fieldsets
from .fields import switch

NAMES = shown_in('bulk edit')


def form_field(name: str) -> forms.Field:
    of_model = field(name)
    if is_switch(name):
        return switch(label(name))
    if of_model.many_to_many:
        queryset = of_model.related_model.objects.all()
        return DynamicModelMultipleChoiceField(label=label(name), queryset=queryset, required=False)
    if of_model.choices:
        return forms.ChoiceField(label=label(name), choices=add_blank_choice(of_model.choices), required=False)
    made = of_model.formfield(required=False, initial=None)
    if isinstance(of_model, SealedField):
        made.strip, made.widget = False, forms.PasswordInput(attrs={'autocomplete': 'new-password'})
    return made


class WebhookBulkEditForm(NetBoxModelBulkEditForm):
    model = Webhook
    # NetBox needs this field. A job would keep the secret in Redis.
    background_job = forms.BooleanField(label='', required=False, disabled=True, widget=forms.HiddenInput)
    vars().update({name: form_field(name) for name in NAMES})

    fieldsets = fieldsets('bulk edit')
    nullable_fields = tuple(name for name in NAMES if field(name).blank)
