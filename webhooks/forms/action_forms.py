"""The forms of actions (services/actions.py), on NetBox's pages and in the admin."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from utilities.forms import add_blank_choice

from .. import object_types
from ..choices import CLOSED_CHOICES
from ..constants import MAX_QUERY_CHARS
from ..models import Delivery, Webhook
from ..presentation.states import rotation_warning
from ..security import signing
from ..services import redelivery
from .form_fields import TimeField
from .secret import KeepPreviousField

# The values of the choice in SendWaitingForm.
ALL_CHANGES = 'all'
LATEST_CHANGES = 'latest'
SECRET_PREFIX_CHOICES = (
    (signing.SYMMETRIC, _('Secret shared with the receiver (whsec_, HMAC-SHA256)')),
    (signing.PRIVATE, _('Key pair (whsk_, ed25519): the receiver gets only the public key')),
)


class SendWaitingForm(forms.Form):
    """Asks whether all waiting changes are sent, or only the latest of each object."""

    what = forms.ChoiceField(
        label=_('Send'),
        choices=[
            (ALL_CHANGES, _('All changes, in their order')),
            (LATEST_CHANGES, _('Only the latest change of each object')),
        ],
        initial=ALL_CHANGES,
    )

    @property
    def latest_only(self) -> bool:
        """Whether a valid form asks for the latest changes only."""
        return self.cleaned_data['what'] == LATEST_CHANGES


class SendNowForm(forms.Form):
    """Asks which webhook gets the objects. If there is only one, it is chosen."""

    webhook = forms.ModelChoiceField(label=_('Webhook'), queryset=Webhook.objects.none())

    def __init__(self, *args: Any, webhooks: QuerySet[Webhook], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields['webhook']
        field.queryset = webhooks
        found = list(webhooks[:2])
        if len(found) == 1:
            field.initial = found[0]
        elif not found:
            field.help_text = _('No webhook that you may use takes objects of this type.')


class ReplayForm(forms.Form):
    """Asks for a period, and for the status of the deliveries, if not all are wanted."""

    since = TimeField(label=_('Since'), help_text=_('Redeliver events from this time on.'))
    until = TimeField(
        label=_('Until'), required=False, help_text=_('Redeliver events before this time. Leave blank for now.')
    )
    status = forms.ChoiceField(
        label=_('Status'),
        required=False,
        choices=add_blank_choice(CLOSED_CHOICES),
        help_text=_(
            'Only deliveries with this status. Leave blank for all except replaced ones. Pending ones are sent anyway.'
        ),
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


class BackfillForm(forms.Form):
    """Asks which object types of the webhook to send, and by which filter."""

    object_types = forms.ModelMultipleChoiceField(
        label=_('Object types'),
        queryset=ContentType.objects.none(),
        required=False,
        help_text=_('Leave blank for all object types of the webhook.'),
    )
    filter = forms.CharField(
        label=_('Filter'),
        required=False,
        max_length=MAX_QUERY_CHARS,
        help_text=_(
            "As in the URL of NetBox's lists, for example: site=berlin&status=active. Leave blank for all objects."
        ),
    )

    def __init__(self, *args: Any, webhook: Webhook, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        types = self.fields['object_types']
        types.queryset = object_types.allowed().filter(pk__in=webhook.object_types.all())
        types.label_from_instance = object_types.name_of


class RotateSecretForm(forms.Form):
    """Asks which kind of secret to generate, and how long the present one signs too."""

    prefix = forms.ChoiceField(label=_('Type of secret'), choices=SECRET_PREFIX_CHOICES, initial=signing.SYMMETRIC)
    keep_previous = KeepPreviousField()

    def __init__(self, *args, webhook: Webhook, **kwargs):
        super().__init__(*args, **kwargs)
        if not webhook.secret:
            del self.fields['keep_previous']
        elif warning := rotation_warning(webhook):
            self.fields['keep_previous'].help_text += f' {warning}'

    @property
    def overlap(self) -> timedelta:
        """Return how long the present secret signs too, after the form was cleaned. Zero if there is none."""
        return self.cleaned_data.get('keep_previous', timedelta())
