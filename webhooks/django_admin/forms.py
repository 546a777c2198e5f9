"""The admin's form of a webhook."""

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget, FilteredSelectMultiple
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _
from extras.models import Tag

from .. import object_types
from ..forms.definition import BaseWebhookForm
from ..models import Webhook
from ..presentation.fields import json_names, label
from .base import BaseForm


class WebhookForm(BaseForm, BaseWebhookForm):
    """Adds or changes a webhook, with widgets of the admin. Custom fields keep their values; new ones are defaults."""

    object_types = forms.ModelMultipleChoiceField(
        queryset=ContentType.objects.none(),
        label=label('object_types'),
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={'class': 'wh-groups'}),
    )
    # A masked URL may be longer than the column. The model's field would refuse it.
    payload_url = forms.CharField(
        label=label('payload_url'), required=False, widget=AdminTextInputWidget(attrs={'class': 'wh-wide'})
    )
    tags = forms.ModelMultipleChoiceField(
        label=_('Tags'),
        queryset=Tag.objects.none(),
        required=False,
        widget=FilteredSelectMultiple(_('tags'), is_stacked=False),
    )

    class Meta:
        model = Webhook
        fields = '__all__'
        widgets = {
            'name': AdminTextInputWidget(attrs={'class': 'vTextField wh-wide'}),
            'description': AdminTextInputWidget(attrs={'class': 'vTextField wh-wide'}),
            'secret': forms.PasswordInput(
                render_value=False, attrs={'class': 'vTextField wh-wide', 'autocomplete': 'new-password'}
            ),
            'additional_headers': AdminTextareaWidget(attrs={'rows': 3, 'class': 'wh-code'}),
            'body_template': AdminTextareaWidget(attrs={'rows': 6, 'class': 'wh-code'}),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields['object_types'].choices = object_types.by_app
        self.fields['tags'].queryset = _tags()
        # NetBox's field sets its own classes, which the admin's styles do not know.
        for name in json_names():
            self.fields[name].widget.attrs.update({'class': 'wh-code', 'rows': 4})


def _tags() -> QuerySet[Tag]:
    """Return the tags that webhooks may have."""
    object_type = ContentType.objects.get_for_model(Webhook)
    return Tag.objects.filter(Q(object_types=None) | Q(object_types=object_type))
