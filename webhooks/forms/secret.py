from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from ..models import Webhook
from ..models.fields import Sealed
from ..security import signing

WISHES = ('secret', 'generate_secret', 'clear_secret')
KEEP_PREVIOUS = (
    ('0', _('Not at all: from now on only the new one')),
    ('1', _('For an hour')),
    ('24', _('For a day')),
    ('168', _('For a week')),
)
A_DAY = '24'
PREFIXES = (
    (signing.SYMMETRIC, _('Shared with the receiver (whsec_, HMAC-SHA256)')),
    (signing.PRIVATE, _('A pair of keys (whsk_, ed25519): the receiver gets the public one')),
)


class KeepPreviousField(forms.ChoiceField):
    """How long requests are also signed with the old secret; a timedelta."""

    def __init__(self, **kwargs):
        defaults = {
            'label': _('Keep the old secret'),
            'choices': KEEP_PREVIOUS,
            'initial': A_DAY,
            'required': False,
            'help_text': _(
                'When the secret changes, requests can be signed with both for a while, '
                'so that the receiver has time to change over.'
            ),
        }
        super().__init__(**defaults | kwargs)

    def clean(self, value: Any) -> timedelta:
        return timedelta(hours=int(super().clean(value) or 0))


class SecretFieldsMixin(forms.ModelForm):
    """Leaves a new secret in `generated_secret`, to be shown once."""

    generate_secret = forms.BooleanField(
        label=_('Generate a secret'),
        required=False,
        help_text=_('It is shown once, after saving. A secret that you enter takes its place.'),
    )
    clear_secret = forms.BooleanField(
        label=_('Remove the secret'), required=False, help_text=_('Requests are no longer signed.')
    )
    keep_previous = KeepPreviousField()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generated_secret = ''
        # An entered secret wins.
        self._is_generated_by_default = not self.instance.pk
        self._stored_secret: Sealed = self.instance.secret

    def clean(self) -> dict[str, Any]:
        super().clean()
        cleaned = self.cleaned_data
        if self._is_generated_by_default and cleaned.get('secret'):
            cleaned['generate_secret'] = False
        if len([name for name in WISHES if name in self.changed_data and cleaned.get(name)]) > 1:
            self.add_error('secret', _('Enter a secret, generate one or remove it: only one of them.'))
        elif cleaned.get('generate_secret'):
            cleaned['secret'] = self.generated_secret = signing.generate()
        elif cleaned.get('clear_secret'):
            cleaned['secret'] = ''
        return cleaned

    def save(self, commit: bool = True) -> Webhook:
        if self.instance.secret != self._stored_secret:
            new, self.instance.secret = self.instance.secret, self._stored_secret
            self.instance.rotate_secret(new, self.cleaned_data.get('keep_previous') or timedelta())
        return super().save(commit)


class RotateSecretForm(forms.Form):
    prefix = forms.ChoiceField(label=_('Kind'), choices=PREFIXES, initial=signing.SYMMETRIC)
    keep_previous = KeepPreviousField()

    def __init__(self, *args, webhook: Webhook, **kwargs):
        super().__init__(*args, **kwargs)
        if not webhook.secret:
            del self.fields['keep_previous']

    @property
    def overlap(self) -> timedelta:
        return self.cleaned_data.get('keep_previous', timedelta())
