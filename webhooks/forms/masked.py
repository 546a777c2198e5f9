"""Fields whose stored value is never shown: what was shown and comes back unchanged keeps it."""

from django import forms
from django.utils.translation import gettext as _

from ..exceptions import DefinitionError
from ..models.fields import Sealed
from ..security.masking import MASK
from ..validation.headers import merge_headers
from ..validation.url import is_moved, merge_url


class MaskedFieldsMixin(forms.ModelForm):
    """Of a webhook's form: masks what the form starts with, and unmasks what it is sent."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial.pop('secret', None)
        if self.instance.pk:
            self.initial['payload_url'] = self.instance.masked_url
            self.initial['additional_headers'] = self.instance.masked_headers

    def clean_payload_url(self) -> str:
        return merge_url(self.cleaned_data['payload_url'], self.instance.payload_url)

    def clean_additional_headers(self) -> str:
        stored = self.instance
        # Cleaned before; it is missing where it has an error of its own.
        url = self.cleaned_data.get('payload_url', stored.payload_url)
        moved = bool(stored.pk) and is_moved(stored.payload_url, url)
        try:
            return merge_headers(self.cleaned_data['additional_headers'], stored.additional_headers, moved)
        except DefinitionError as error:
            raise forms.ValidationError(str(error)) from None

    def clean_secret(self) -> Sealed | str:
        """Blank keeps the secret."""
        secret = self.cleaned_data['secret']
        if secret == MASK:
            raise forms.ValidationError(_('Enter the secret itself, or leave it blank to keep it.'))
        return secret or self.instance.secret
