"""An unchanged mask keeps the stored value."""

from typing import Any

from django import forms

from ..exceptions import DefinitionError
from ..models.fields import Sealed
from ..validation.headers import merge_headers
from ..validation.moved import is_moved
from ..validation.url import merge_url


class SecretMixin(forms.ModelForm):
    """A blank secret keeps the stored one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial.pop('secret', None)
        self.fields['secret'].strip = False

    def clean_secret(self) -> Sealed | str:
        return self.cleaned_data['secret'] or self.instance.secret


class MaskedFieldsMixin(SecretMixin):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial['payload_url'] = self.instance.masked_url
            self.initial['additional_headers'] = self.instance.masked_headers

    def clean_payload_url(self) -> str:
        return merge_url(self.cleaned_data['payload_url'], self.instance.payload_url)

    def clean(self) -> dict[str, Any] | None:
        """Headers come last: unmasking needs all fields."""
        cleaned = super().clean()
        if 'additional_headers' in self.cleaned_data:
            try:
                self.cleaned_data['additional_headers'] = self._merged_headers()
            except DefinitionError as error:
                self.add_error('additional_headers', str(error))
        return cleaned

    def _merged_headers(self) -> str:
        stored = self.instance
        moved = bool(stored.pk) and is_moved(stored, self.cleaned_data)
        return merge_headers(self.cleaned_data['additional_headers'], stored.additional_headers, moved)
