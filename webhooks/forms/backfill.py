"""The form that starts a backfill, on NetBox's pages and in the admin."""

from typing import Any

from django import forms
from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext_lazy as _
from users.models import User

from .. import object_types
from ..constants import MAX_QUERY_CHARS
from ..exceptions import DefinitionError
from ..models import Webhook
from ..services import backfill


class BackfillForm(forms.Form):
    """Asks which object types of the webhook to send, and by which filter."""

    object_types = forms.ModelMultipleChoiceField(
        label=_('Object types'),
        queryset=ContentType.objects.none(),
        required=False,
        help_text=_('Blank: all object types of the webhook.'),
    )
    filter = forms.CharField(
        label=_('Filter'),
        required=False,
        max_length=MAX_QUERY_CHARS,
        help_text=_("As in the URL of NetBox's lists, for example: site=berlin&status=active. Blank: all objects."),
    )

    def __init__(self, *args: Any, webhook: Webhook, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        types = self.fields['object_types']
        types.queryset = object_types.allowed().filter(pk__in=webhook.object_types.all())
        types.label_from_instance = object_types.name_of
        self._webhook = webhook

    def start(self, user: User) -> bool:
        """Start the backfill that the valid form asks for.

        Return False if that is refused: the form then has the error.
        """
        cleaned = self.cleaned_data
        try:
            choice = backfill.choose(self._webhook, cleaned['object_types'] or None, cleaned['filter'], user)
            backfill.start(self._webhook, choice, user)
        except DefinitionError as error:
            self.add_error(error.field if error.field in self.fields else None, str(error))
            return False
        return True
