from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from utilities.forms import add_blank_choice

from ..choices import CLOSED_CHOICES
from .fields import TimeField


class ReplayForm(forms.Form):
    since = TimeField(label=_('Since'), help_text=_('Events from this time on are redelivered.'))
    until = TimeField(label=_('Until'), required=False, help_text=_('Blank: up to now.'))
    status = forms.ChoiceField(
        label=_('Status'),
        required=False,
        choices=add_blank_choice(CLOSED_CHOICES),
        help_text=_('Only deliveries of this status. Blank: all but superseded ones. What is open is sent anyway.'),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get('since') and cleaned.get('until') and cleaned['since'] >= cleaned['until']:
            raise ValidationError({'until': _('Must be later than the start.')})
        return cleaned
