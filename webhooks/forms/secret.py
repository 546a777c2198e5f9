"""Forms that enter, generate, replace or remove a webhook's secret."""

from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from ..models import Webhook
from ..models.fields import Sealed
from ..security import signing

# If two of these are filled in, the form is refused.
EXCLUSIVE_FIELDS = ('secret', 'generate_secret', 'clear_secret')
# Chosen at first. Values of choices are texts.
DEFAULT_OVERLAP_HOURS = '24'
OVERLAP_HOURS_CHOICES = (
    ('0', _('No: sign only with the new secret from now on')),
    ('1', _('For an hour')),
    (DEFAULT_OVERLAP_HOURS, _('For a day')),
    ('168', _('For a week')),
)


class KeepPreviousField(forms.ChoiceField):
    """Asks how long requests are also signed with the present secret. Returns a timedelta, zero if it is left blank."""

    def __init__(self, **kwargs):
        defaults = {
            'label': _('Also sign with the present secret'),
            'choices': OVERLAP_HOURS_CHOICES,
            'initial': DEFAULT_OVERLAP_HOURS,
            'required': False,
            'help_text': _(
                'After a change, requests are signed with both secrets for this long, so that you can update the '
                'receiver later.'
            ),
        }
        super().__init__(**defaults | kwargs)

    def clean(self, value: Any) -> timedelta:
        return timedelta(hours=int(super().clean(value) or 0))


class SecretFieldsMixin(forms.ModelForm):
    """Enters, generates or removes a webhook's secret, one at a time.

    `generated_secret` then is the new one, to be shown once, else ''.
    """

    generate_secret = forms.BooleanField(
        label=_('Generate a secret'),
        required=False,
        help_text=_('It is shown once, after saving. To use your own secret, enter it above instead.'),
    )
    clear_secret = forms.BooleanField(
        label=_('Remove the secret'), required=False, help_text=_('Requests are no longer signed.')
    )
    keep_previous = KeepPreviousField()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generated_secret = ''
        # A new webhook's form may offer to generate one. If a secret is entered too, that wins.
        self._is_generated_by_default = not self.instance.pk
        self._stored_secret: Sealed = self.instance.secret

    def clean(self) -> dict[str, Any]:
        super().clean()
        cleaned = self.cleaned_data
        if self._is_generated_by_default and cleaned.get('secret'):
            cleaned['generate_secret'] = False
        if len([name for name in EXCLUSIVE_FIELDS if name in self.changed_data and cleaned.get(name)]) > 1:
            self.add_error('secret', _('Choose only one: enter a secret, generate a secret, or remove the secret.'))
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
