"""The form that defines a webhook in the admin. Secrets come in and never go out, but for one that is generated."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from django import forms
from django.apps import apps
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget, FilteredSelectMultiple
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q, QuerySet
from django.forms.models import ModelChoiceIterator
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from extras.models import Tag
from utilities.forms.fields import JSONField

from .. import object_types
from ..forms.masked import MaskedFieldsMixin
from ..forms.secret import SecretFieldsMixin
from ..models import Webhook
from .display import model_name, moment

CONDITIONS_ATTRS = {'class': 'wh-code', 'rows': 4, 'placeholder': '{"attr": "status.value", "value": "active"}'}


class ByApp(ModelChoiceIterator):
    """The object types as option groups, one an app."""

    def __iter__(self) -> Iterator[tuple[str, list[tuple[Any, str]]]]:
        for app_label, group in groupby(self.queryset, key=lambda object_type: object_type.app_label):
            choices = sorted((self.choice(object_type) for object_type in group), key=lambda choice: choice[1].lower())
            yield apps.get_app_config(app_label).verbose_name, choices


class ObjectTypesField(forms.ModelMultipleChoiceField):
    iterator = ByApp
    widget = forms.CheckboxSelectMultiple(attrs={'class': 'wh-groups'})

    def label_from_instance(self, obj: ContentType) -> str:
        return capfirst(model_name(obj))


class WebhookForm(MaskedFieldsMixin, SecretFieldsMixin, forms.ModelForm):
    object_types = ObjectTypesField(
        queryset=ContentType.objects.none(),
        label=_('Object types'),
        required=False,
        help_text=Webhook._meta.get_field('object_types').help_text,
    )
    # As masked it may be longer than it is; the model checks its true length.
    payload_url = forms.CharField(
        label=Webhook._meta.get_field('payload_url').verbose_name,
        help_text=Webhook._meta.get_field('payload_url').help_text,
        widget=AdminTextInputWidget(attrs={'placeholder': 'https://example.com/hooks/netbox', 'class': 'wh-wide'}),
    )
    tags = forms.ModelMultipleChoiceField(
        queryset=Tag.objects.none(), required=False, widget=FilteredSelectMultiple(_('tags'), is_stacked=False)
    )

    class Meta:
        model = Webhook
        fields = '__all__'
        field_classes = {'conditions': JSONField}
        widgets = {
            'description': AdminTextInputWidget(attrs={'class': 'vTextField wh-wide'}),
            'secret': forms.PasswordInput(
                render_value=False, attrs={'class': 'vTextField wh-wide', 'autocomplete': 'new-password'}
            ),
            'additional_headers': AdminTextareaWidget(
                attrs={'rows': 3, 'class': 'wh-code', 'placeholder': 'Authorization: Bearer …'}
            ),
            'body_template': AdminTextareaWidget(
                attrs={'rows': 6, 'class': 'wh-code', 'placeholder': '{"text": "{{ data.name }}: {{ event }}"}'}
            ),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields['object_types'].queryset = object_types.allowed()
        self.fields['tags'].queryset = _tags()
        # NetBox's field has a look of its own.
        self.fields['conditions'].widget.attrs.update(CONDITIONS_ATTRS)
        self.fields['secret'].strip = False
        if self.instance.pk:
            self.fields['secret'].help_text = self._describe_secret()

    def _describe_secret(self) -> str:
        if not self._stored_secret:
            return _('None is stored: requests are not signed. Enter or generate one to sign them.')
        facts = [_('One is stored. Leave blank to keep it; enter or generate another one to replace it.')]
        if self.instance.public_key:
            facts.append(_('Receivers verify with the public key {key}.').format(key=self.instance.public_key))
        if self.instance.is_previous_secret_valid:
            until = moment(self.instance.previous_secret_expires)
            facts.append(_('The one before it signs too until {until}.').format(until=until))
        return ' '.join(str(fact) for fact in facts)


def _tags() -> QuerySet[Tag]:
    object_type = ContentType.objects.get_for_model(Webhook)
    return Tag.objects.filter(Q(object_types=None) | Q(object_types=object_type))
