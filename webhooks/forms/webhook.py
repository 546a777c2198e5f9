"""NetBox's form of a webhook."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from django import forms
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils.translation import gettext as _
from extras.models import NotificationGroup
from netbox.forms import NetBoxModelForm
from users.models import User
from utilities.forms.fields import ContentTypeMultipleChoiceField
from utilities.forms.rendering import FieldSet
from utilities.forms.widgets import SplitMultiSelectWidget

from .. import object_types
from ..models import Credential, Webhook
from ..presentation.fields import GROUPS, NAMES, Row, json_names, label
from ..presets import Preset, all_presets
from ..services import secret_rotation
from .definition import BaseWebhookForm, fieldset, fieldsets, groups_for
from .form_fields import FilterOfEachType, FiltersField, ModelChoiceField, ModelMultipleChoiceField

MONOSPACE_ATTRS = {'class': 'font-monospace'}


class Section(NamedTuple):
    """A group of fields on the page. `is_folded`: a click folds and unfolds it. `is_open`: it begins unfolded."""

    fieldset: FieldSet
    title: str
    is_folded: bool
    is_open: bool


class WebhookForm(BaseWebhookForm, NetBoxModelForm):
    """Adds or changes a webhook. A saved one is shown without a secret, and its URL and headers masked.

    Before `save`, the view sets the webhook's `_session`: after the commit, a generated secret is kept there.
    """

    object_types = ContentTypeMultipleChoiceField(
        label=label('object_types'),
        queryset=ContentType.objects.all(),
        widget=SplitMultiSelectWidget(choices=object_types.by_app),
        required=False,
    )
    credential = ModelChoiceField(label=label('credential'), queryset=Credential.objects.all(), required=False)
    ignore_users = ModelMultipleChoiceField(label=label('ignore_users'), queryset=User.objects.all(), required=False)
    notification_groups = ModelMultipleChoiceField(
        label=label('notification_groups'), queryset=NotificationGroup.objects.all(), required=False
    )
    secret = forms.CharField(
        label=label('secret'), required=False, widget=forms.PasswordInput(attrs={'autocomplete': 'new-password'})
    )
    filters = FiltersField(label=label('filters'), required=False, widget=FilterOfEachType)

    fieldsets = fieldsets('form')

    class Meta:
        model = Webhook
        fields = NAMES
        widgets = {
            'additional_headers': forms.Textarea(attrs={**MONOSPACE_ATTRS, 'rows': 3}),
            'body_template': forms.Textarea(attrs={**MONOSPACE_ATTRS, 'rows': 6}),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in json_names():
            self.fields[name].widget.attrs['rows'] = 5 if name == 'conditions' else 3
        self._name_for_screen_readers()
        if not self.instance.secret:
            del self.fields['clear_secret'], self.fields['keep_previous']

    def _name_for_screen_readers(self) -> None:
        """Name the fields in rows for screen readers: NetBox's templates give these no label."""
        side_by_side = [name for group in GROUPS for row in group.rows if isinstance(row, Row) for name in row.names]
        for name in side_by_side:
            self.fields[name].widget.attrs['aria-label'] = self.fields[name].label
        available, selected = self.fields['object_types'].widget.widgets
        available.attrs['aria-label'] = _('Available object types')
        selected.attrs['aria-label'] = _('Selected object types')

    def sections(self) -> Iterator[Section]:
        """Yield the groups of fields in the order of the page. NetBox's own template cannot fold groups."""
        for group in groups_for(self.chosen_preset):
            is_open = group.is_open(self.instance, self.errors)
            yield Section(fieldset(group, not group.is_folded), group.title, group.is_folded, is_open)

    def presets(self) -> Iterable[Preset]:
        """Return the presets that the page offers: all for a new webhook, none for a saved one."""
        return () if self.instance.pk else all_presets().values()

    def save(self, commit: bool = True) -> Webhook:
        webhook = super().save(commit)
        if secret := self.generated_secret:
            # NetBox may still refuse the change. Then no secret may be shown, so this waits for the commit.
            transaction.on_commit(lambda: secret_rotation.show_once(webhook._session, webhook, secret))
        return webhook
