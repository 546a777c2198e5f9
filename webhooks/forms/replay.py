"""The form that redelivers the events of a period, on NetBox's pages and in the admin."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from utilities.forms import add_blank_choice

from ..choices import CLOSED_CHOICES
from ..models import Delivery, Webhook
from ..services import redelivery
from .fields import TimeField


class ReplayForm(forms.Form):
    """Asks for a period, and for the status of the deliveries, if not all are wanted."""

    since = TimeField(label=_('Since'), help_text=_('Redeliver events from this time on.'))
    until = TimeField(
        label=_('Until'), required=False, help_text=_('Redeliver events before this time. Blank: up to now.')
    )
    status = forms.ChoiceField(
        label=_('Status'),
        required=False,
        choices=add_blank_choice(CLOSED_CHOICES),
        help_text=_('Only deliveries with this status. Blank: all except replaced ones. Pending ones are sent anyway.'),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get('since') and cleaned.get('until') and cleaned['since'] >= cleaned['until']:
            raise ValidationError({'until': _('"Until" must be later than "Since".')})
        return cleaned

    def select(self, webhook: Webhook) -> QuerySet[Delivery]:
        """Return the deliveries that a valid form asks for."""
        chosen = self.cleaned_data
        return redelivery.select(webhook, chosen['since'], chosen['until'], chosen['status'] or None)
