"""The form that sends waiting deliveries now, on NetBox's pages."""

from django import forms
from django.utils.translation import gettext_lazy as _

# The values of the choice.
ALL_CHANGES = 'all'
LATEST_CHANGES = 'latest'


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
