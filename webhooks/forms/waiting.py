from django import forms
from django.utils.translation import gettext_lazy as _

ALL, LATEST = 'all', 'latest'


class SendWaitingForm(forms.Form):
    what = forms.ChoiceField(
        label=_('Send'),
        choices=[(ALL, _('All changes, in their order')), (LATEST, _('Only the latest change of each object'))],
        initial=ALL,
    )

    @property
    def latest_only(self) -> bool:
        return self.cleaned_data['what'] == LATEST
