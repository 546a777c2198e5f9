"""Forms that show stored secrets masked. A blank secret or an unchanged mask keeps the stored value."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from ..exceptions import DefinitionError
from ..models.fields import Sealed
from ..validation.moved import merged_headers
from ..validation.secret import merge_secret
from ..validation.url import merge_url


class SecretMixin(forms.ModelForm):
    """Keeps the stored secret if the field is left blank, or has its mask. The form never shows it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial.pop('secret', None)
        self.fields['secret'].strip = False

    def clean_secret(self) -> Sealed | str:
        return merge_secret(self.cleaned_data['secret'], self.instance.secret) or self.instance.secret


class EnteredAgainMixin(forms.ModelForm):
    """Asks for an entered secret again if another field is wrong: the page that follows does not show it.

    Not for imports, whose page keeps its text.
    """

    _is_to_be_saved = False

    def is_valid(self) -> bool:
        """Whether the form can be saved. A preview does not ask: it only reads `errors`, and its page stays."""
        is_valid = super().is_valid()
        self._is_to_be_saved = True
        if not is_valid:
            self._ask_again()
        return is_valid

    def add_error(self, field: str | None, error: Any) -> None:
        """Add an error. NetBox's view adds one to a valid form if the user's permissions forbid the result."""
        super().add_error(field, error)
        if self._is_to_be_saved:
            self._ask_again()

    def _ask_again(self) -> None:
        if self['secret'].data and 'secret' not in self.errors:
            super().add_error('secret', _('Enter the secret again.'))


class MaskedFieldsMixin(SecretMixin):
    """Shows URL and headers masked, and takes an unchanged mask as the stored value.

    Masks of headers are refused if requests would go elsewhere: another receiver would get the stored values.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Some receivers need the line break at the end, as those of NDJSON.
        self.fields['body_template'].strip = False
        if self.instance.pk:
            self.initial['payload_url'] = self.instance.masked_url
            self.initial['additional_headers'] = self.instance.masked_headers

    def clean_body_template(self) -> str:
        text = self.cleaned_data['body_template']
        return text if text.strip() else ''

    def clean_payload_url(self) -> str:
        return merge_url(self.cleaned_data['payload_url'], self.instance.payload_url)

    def clean(self) -> dict[str, Any] | None:
        """Put stored headers in place of their masks.

        All other fields are cleaned before, since they decide about that.
        """
        cleaned = super().clean()
        if 'additional_headers' in self.cleaned_data:
            try:
                self.cleaned_data['additional_headers'] = merged_headers(self.instance, self.cleaned_data)
            except DefinitionError as error:
                self.add_error('additional_headers', str(error))
        return cleaned
