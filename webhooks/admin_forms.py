"""The form that defines a webhook in the admin. Secrets come in and never go out, but for one that is generated."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby
from typing import Any

from django import forms
from django.apps import apps
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget, FilteredSelectMultiple
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q, QuerySet
from django.forms.models import ModelChoiceIterator
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _
from extras.models import Tag
from utilities.forms.fields import JSONField

from . import object_types, signing
from .admin_display import model_name
from .forms.masked import MaskedFieldsMixin
from .models import Webhook
from .models.fields import Sealed

SECRET_WISHES = ('secret', 'generate_secret', 'clear_secret')
CONDITIONS_ATTRS = {'class': 'wh-code', 'rows': 4, 'placeholder': '{"attr": "status.value", "value": "active"}'}
KEEP_PREVIOUS = (
    ('', _('Not at all: from now on only the new one')),
    ('1', _('For an hour')),
    ('24', _('For a day')),
    ('168', _('For a week')),
)


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


class WebhookForm(MaskedFieldsMixin, forms.ModelForm):
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
    generate_secret = forms.BooleanField(
        label=_('Generate a secret'), required=False, help_text=_('It is shown once, after saving.')
    )
    clear_secret = forms.BooleanField(
        label=_('Remove the secret'), required=False, help_text=_('Requests are no longer signed.')
    )
    keep_previous = forms.ChoiceField(
        label=_('Keep the old secret'),
        choices=KEEP_PREVIOUS,
        required=False,
        help_text=_(
            'When the secret changes, requests can be signed with both for a while, '
            'so that the receiver has time to change over.'
        ),
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
        self.generated_secret = ''
        self._stored_secret: Sealed = self.instance.secret
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
        if (expires := self.instance.previous_secret_expires) and expires > timezone.now():
            until = date_format(localtime(expires), 'DATETIME_FORMAT')
            facts.append(_('The one before it signs too until {until}.').format(until=until))
        return ' '.join(str(fact) for fact in facts)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        wishes = [name for name in SECRET_WISHES if name in self.changed_data]
        if len(wishes) > 1:
            self.add_error('secret', _('Enter a secret, generate one or remove it: only one of them.'))
        elif cleaned.get('generate_secret'):
            cleaned['secret'] = self.generated_secret = signing.generate()
        elif cleaned.get('clear_secret'):
            cleaned['secret'] = ''
        return cleaned

    def save(self, commit: bool = True) -> Webhook:
        if self.instance.secret != self._stored_secret:
            overlap = timedelta(hours=int(self.cleaned_data['keep_previous'] or 0))
            new, self.instance.secret = self.instance.secret, self._stored_secret
            self.instance.rotate_secret(new, overlap)
        return super().save(commit)


def _tags() -> QuerySet[Tag]:
    object_type = ContentType.objects.get_for_model(Webhook)
    return Tag.objects.filter(Q(object_types=None) | Q(object_types=object_type))
