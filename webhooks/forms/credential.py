"""NetBox's form of a credential, and the names of its fields, which the admin and the import share."""

from django import forms
from django.contrib.postgres.forms import SimpleArrayField  # pyright: ignore[reportMissingImports]  (no stub)
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy
from netbox.forms import NetBoxModelForm
from utilities.forms.rendering import FieldSet
from utilities.forms.widgets import DatePicker

from ..models import Credential
from .masked import EnteredAgainMixin, SecretMixin

CREDENTIAL_NAMES = (
    'name', 'description', 'type', 'hosts', 'username', 'header', 'secret', 'valid_until', 'token_url', 'scope',
    'audience', 'ca_file_path',
)  # fmt: skip


class CredentialForm(EnteredAgainMixin, SecretMixin, NetBoxModelForm):
    """Adds or changes a credential. A blank secret keeps the stored one."""

    hosts = SimpleArrayField(
        forms.CharField(), label=_('Hosts'), help_text=Credential._meta.get_field('hosts').help_text
    )
    secret = forms.CharField(
        label=pgettext_lazy('webhooks', 'Secret'),
        required=False,
        widget=forms.PasswordInput(attrs={'autocomplete': 'new-password'}),
        help_text=Credential._meta.get_field('secret').help_text,
    )
    fieldsets = (FieldSet(*CREDENTIAL_NAMES, 'tags'),)

    class Meta:
        model = Credential
        fields = (*CREDENTIAL_NAMES, 'tags')
        widgets = {'valid_until': DatePicker()}
