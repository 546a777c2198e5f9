"""Many webhooks at once."""

from django import forms
from django.utils.translation import gettext_lazy as _
from extras.choices import WebhookHttpMethodChoices
from extras.models import NotificationGroup
from netbox.forms import NetBoxModelBulkEditForm
from utilities.forms import add_blank_choice
from utilities.forms.fields import DynamicModelMultipleChoiceField
from utilities.forms.rendering import FieldSet

from ..models import Webhook
from .fields import switch


def number(label: str, high: int | None = None) -> forms.IntegerField:
    return forms.IntegerField(label=label, required=False, min_value=1, max_value=high)


class WebhookBulkEditForm(NetBoxModelBulkEditForm):
    model = Webhook
    # NetBox asks for it. Off: a job would keep what is entered, the secret too, in Redis.
    background_job = forms.BooleanField(label='', required=False, disabled=True, widget=forms.HiddenInput)

    description = forms.CharField(label=_('Description'), max_length=200, required=False)
    enabled = switch(_('Enabled'))
    paused = switch(_('Paused'))
    type_create = switch(_('Creations'))
    type_update = switch(_('Updates'))
    type_delete = switch(_('Deletions'))
    payload_url = forms.CharField(label=_('URL'), max_length=500, required=False)
    http_method = forms.ChoiceField(
        label=_('HTTP method'), choices=add_blank_choice(WebhookHttpMethodChoices), required=False
    )
    secret = forms.CharField(
        label=_('Secret'),
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={'autocomplete': 'new-password'}),
    )
    timeout = number(_('Timeout'), 3600)
    max_attempts = number(_('Maximum attempts'), 100)
    ordered = switch(_('Ordered'))
    batch = switch(_('Batch'))
    concurrency = number(_('Concurrency'), 100)
    rate_limit = number(_('Rate limit'))
    ssl_verification = switch(_('TLS verification'))
    ca_file_path = forms.CharField(label=_('CA file'), max_length=4096, required=False)
    notification_groups = DynamicModelMultipleChoiceField(
        label=_('Notification groups'), queryset=NotificationGroup.objects.all(), required=False
    )

    fieldsets = (
        FieldSet('enabled', 'paused', 'description', name=_('Webhook')),
        FieldSet('type_create', 'type_update', 'type_delete', name=_('Events')),
        FieldSet('payload_url', 'http_method', 'secret', name=_('HTTP Request')),
        FieldSet('timeout', 'max_attempts', 'ordered', 'batch', 'concurrency', 'rate_limit', name=_('Delivery Rules')),
        FieldSet('ssl_verification', 'ca_file_path', name=_('TLS')),
        FieldSet('notification_groups', name=_('Notifications')),
    )
    nullable_fields = ('description', 'secret', 'timeout', 'rate_limit', 'ca_file_path', 'notification_groups')
