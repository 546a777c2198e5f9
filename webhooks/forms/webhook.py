"""The form of one webhook."""

from django import forms
from django.contrib.contenttypes.models import ContentType
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from extras.models import NotificationGroup
from netbox.forms import NetBoxModelForm
from users.models import User
from utilities.forms.fields import ContentTypeMultipleChoiceField, DynamicModelMultipleChoiceField, JSONField
from utilities.forms.rendering import FieldSet, InlineFields
from utilities.forms.widgets import SplitMultiSelectWidget
from utilities.string import title

from .. import object_types
from ..models import Webhook
from ..services import secret_rotation
from .masked import MaskedFieldsMixin
from .secret import SecretFieldsMixin

MONOSPACE = {'class': 'font-monospace'}
CONDITIONS_EXAMPLE = '{"attr": "status.value", "value": "active"}'


def grouped_object_types() -> list[tuple[str, list[tuple[int, str]]]]:
    """Return the allowed object types as choices, by app."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for object_type in object_types.allowed():
        model = object_type.model_class()
        app = str(model._meta.app_config.verbose_name)
        groups.setdefault(app, []).append((object_type.pk, title(model._meta.verbose_name)))
    return list(groups.items())


class WebhookForm(MaskedFieldsMixin, SecretFieldsMixin, NetBoxModelForm):
    object_types = ContentTypeMultipleChoiceField(
        label=_('Object types'),
        queryset=ContentType.objects.all(),
        widget=SplitMultiSelectWidget(choices=grouped_object_types),
        required=False,
        help_text=Webhook._meta.get_field('object_types').help_text,
    )
    ignore_users = DynamicModelMultipleChoiceField(
        label=_('Ignored users'),
        queryset=User.objects.all(),
        required=False,
        help_text=Webhook._meta.get_field('ignore_users').help_text,
    )
    notification_groups = DynamicModelMultipleChoiceField(
        label=_('Notification groups'),
        queryset=NotificationGroup.objects.all(),
        required=False,
        help_text=Webhook._meta.get_field('notification_groups').help_text,
    )
    secret = forms.CharField(
        label=_('Secret'),
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={'autocomplete': 'new-password'}),
        help_text=_(
            'Signs each request, so that the receiver can verify it. Stored encrypted and never shown; '
            'blank keeps the current one.'
        ),
    )
    conditions = JSONField(
        label=_('Conditions'),
        required=False,
        help_text=format_lazy(
            _('Send only what meets these conditions, as in event rules. Example: {example}'),
            example=CONDITIONS_EXAMPLE,
        ),
    )

    fieldsets = (
        FieldSet('name', 'description', InlineFields('enabled', 'paused', label=_('State')), 'tags', name=_('Webhook')),
        FieldSet(
            'object_types',
            InlineFields(
                'type_create', 'type_update', 'type_delete', label=_('Events'), help_text=_('Choose at least one.')
            ),
            'conditions',
            'ignore_users',
            name=_('What Is Sent'),
        ),
        FieldSet(
            'payload_url', 'http_method', 'http_content_type', 'payload_format', 'additional_headers', 'body_template',
            'include_snapshots', name=_('HTTP Request'),
        ),
        FieldSet('secret', 'generate_secret', 'clear_secret', 'keep_previous', name=_('Signature')),
        FieldSet('timeout', 'max_attempts', 'ordered', 'batch', 'concurrency', 'rate_limit', name=_('Delivery Rules')),
        FieldSet('ssl_verification', 'ca_file_path', 'client_cert_path', 'client_key_path', name=_('TLS')),
        FieldSet('notification_groups', name=_('Notifications')),
    )  # fmt: skip

    class Meta:
        model = Webhook
        fields = (
            'name', 'description', 'enabled', 'paused', 'object_types', 'type_create', 'type_update', 'type_delete',
            'conditions', 'ignore_users', 'payload_url', 'http_method', 'http_content_type', 'payload_format',
            'additional_headers', 'body_template', 'include_snapshots', 'secret', 'timeout', 'max_attempts', 'ordered',
            'batch', 'concurrency', 'rate_limit', 'ssl_verification', 'ca_file_path', 'client_cert_path',
            'client_key_path', 'notification_groups', 'tags',
        )  # fmt: skip
        widgets = {
            'additional_headers': forms.Textarea(attrs={**MONOSPACE, 'rows': 3}),
            'body_template': forms.Textarea(attrs={**MONOSPACE, 'rows': 6}),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields['object_types'].queryset = object_types.allowed()
        self.fields['conditions'].widget.attrs['rows'] = 5
        if not self.instance.secret:
            del self.fields['clear_secret'], self.fields['keep_previous']

    def save(self, commit: bool = True) -> Webhook:
        webhook = super().save(commit)
        if self.generated_secret:
            secret_rotation.show_once(webhook._session, webhook, self.generated_secret)
        return webhook
