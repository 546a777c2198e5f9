"""The form that sends chosen objects now, on NetBox's pages."""

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from ..models import Webhook


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
