"""NetBox's form of a credential."""

from django import forms
from django.contrib.postgres.forms import SimpleArrayField  # pyright: ignore[reportMissingImports]  (no stub)
from netbox.forms import NetBoxModelForm
from utilities.forms.rendering import FieldSet
from utilities.forms.widgets import DatePicker

from ..models import Credential
from ..presentation.credential_fields import field, label, shown_in
from .masked import EnteredAgainMixin, SecretMixin


class CredentialForm(EnteredAgainMixin, SecretMixin, NetBoxModelForm):
    """Adds or changes a credential. A blank secret keeps the stored one."""

    hosts = SimpleArrayField(forms.CharField(), label=label('hosts'), help_text=field('hosts').help_text)
    secret = forms.CharField(
        label=label('secret'),
        required=False,
        widget=forms.PasswordInput(attrs={'autocomplete': 'new-password'}),
        help_text=field('secret').help_text,
    )
    fieldsets = (FieldSet(*shown_in('form')),)

    class Meta:
        model = Credential
        fields = shown_in('form')
        widgets = {'valid_until': DatePicker()}
