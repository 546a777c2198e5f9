"""Fields whose stored value is never shown: what was shown and comes back unchanged keeps it."""

from django import forms
from django.utils.translation import gettext as _

from .. import definition
from ..crypto import MASK
from ..exceptions import DefinitionError
from ..models.fields import Sealed


class MaskedFieldsMixin(forms.ModelForm):
    """Of a webhook's form: masks what the form starts with, and unmasks what it is sent."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial['payload_url'] = self.instance.masked_url
            self.initial['additional_headers'] = self.instance.masked_headers
            self.initial.pop('secret', None)

    def clean_payload_url(self) -> str:
        return definition.merge_url(self.cleaned_data['payload_url'], self.instance.payload_url)

    def clean_additional_headers(self) -> str:
        try:
            return definition.merge_headers(self.cleaned_data['additional_headers'], self.instance.additional_headers)
        except DefinitionError as error:
            raise forms.ValidationError(str(error)) from None

    def clean_secret(self) -> Sealed | str:
        """Blank keeps the secret."""
        secret = self.cleaned_data['secret']
        if secret == MASK:
            raise forms.ValidationError(_('Enter the secret itself, or leave it blank to keep it.'))
        return secret or self.instance.secret
