"""The filters beside the lists."""

from django import forms
from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext_lazy as _
from extras.choices import WebhookHttpMethodChoices
from extras.models import NotificationGroup
from netbox.forms import NetBoxModelFilterSetForm
from netbox.forms.mixins import SavedFiltersMixin
from utilities.forms import FilterForm
from utilities.forms.fields import ContentTypeMultipleChoiceField, DynamicModelMultipleChoiceField, TagFilterField
from utilities.forms.rendering import FieldSet

from .. import object_types
from ..choices import KindChoices, StatusChoices
from ..models import Delivery, Event, Webhook
from .fields import TimeField, switch


class ObjectTypeFilterMixin(forms.Form):
    object_type_id = ContentTypeMultipleChoiceField(
        queryset=ContentType.objects.all(), required=False, label=_('Object type')
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields['object_type_id'].queryset = object_types.allowed()


class WebhookFilterForm(ObjectTypeFilterMixin, NetBoxModelFilterSetForm):
    model = Webhook
    fieldsets = (
        FieldSet('q', 'filter_id', 'tag'),
        FieldSet('enabled', 'paused', 'suspended', name=_('State')),
        FieldSet('object_type_id', 'type_create', 'type_update', 'type_delete', name=_('What Is Sent')),
        FieldSet('http_method', 'ssl_verification', name=_('HTTP Request')),
        FieldSet('notification_group_id', name=_('Notifications')),
    )
    enabled = switch(_('Enabled'))
    paused = switch(_('Paused'))
    suspended = switch(_('Suspended'))
    type_create = switch(_('Creations'))
    type_update = switch(_('Updates'))
    type_delete = switch(_('Deletions'))
    http_method = forms.MultipleChoiceField(label=_('HTTP method'), choices=WebhookHttpMethodChoices, required=False)
    ssl_verification = switch(_('TLS verification'))
    notification_group_id = DynamicModelMultipleChoiceField(
        label=_('Notification group'), queryset=NotificationGroup.objects.all(), required=False
    )
    tag = TagFilterField(model)


class DeliveryFilterForm(ObjectTypeFilterMixin, SavedFiltersMixin, FilterForm):
    model = Delivery
    fieldsets = (
        FieldSet('q', 'filter_id'),
        FieldSet('status', 'webhook_id', 'kind', 'response_status', name=_('Delivery')),
        FieldSet('object_type_id', 'object_id', name=_('Object')),
        FieldSet('created__gte', 'created__lte', name=_('Time')),
    )
    status = forms.MultipleChoiceField(label=_('Status'), choices=StatusChoices, required=False)
    webhook_id = DynamicModelMultipleChoiceField(label=_('Webhook'), queryset=Webhook.objects.all(), required=False)
    kind = forms.MultipleChoiceField(label=_('Event'), choices=KindChoices, required=False)
    response_status = forms.IntegerField(label=_('Response status'), required=False)
    object_id = forms.IntegerField(label=_('Object ID'), required=False)
    created__gte = TimeField(label=_('After'), required=False)
    created__lte = TimeField(label=_('Before'), required=False)


class EventFilterForm(ObjectTypeFilterMixin, SavedFiltersMixin, FilterForm):
    model = Event
    fieldsets = (
        FieldSet('q', 'filter_id'),
        FieldSet('kind', 'username', 'has_error', name=_('Event')),
        FieldSet('object_type_id', 'object_id', name=_('Object')),
        FieldSet('timestamp__gte', 'timestamp__lte', name=_('Time')),
    )
    kind = forms.MultipleChoiceField(label=_('Event'), choices=KindChoices, required=False)
    username = forms.CharField(label=_('User'), required=False)
    has_error = switch(_('Has an error'))
    object_id = forms.IntegerField(label=_('Object ID'), required=False)
    timestamp__gte = TimeField(label=_('After'), required=False)
    timestamp__lte = TimeField(label=_('Before'), required=False)
