"""The filters beside NetBox's lists of our models."""

from core.models import DataSource
from django import forms
from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext_lazy as _
from netbox.forms import NetBoxModelFilterSetForm
from netbox.forms.mixins import SavedFiltersMixin
from utilities.forms import FilterForm
from utilities.forms.fields import ContentTypeMultipleChoiceField, DynamicModelMultipleChoiceField, TagFilterField
from utilities.forms.rendering import FieldSet
from utilities.forms.widgets import DatePicker

from .. import object_types
from ..choices import CredentialTypeChoices, KindChoices, StatusChoices
from ..filtersets import SEARCH_LABEL
from ..models import Credential, Definition, Delivery, Event, Webhook
from ..presentation.fields import GROUPS, Group, field, is_switch, label, shown_in
from ..presentation.states import STATES
from .form_fields import TimeField, switch


class ObjectTypeFilterMixin(forms.Form):
    """Filters by the object types that webhooks may send."""

    object_type_id = ContentTypeMultipleChoiceField(
        queryset=ContentType.objects.all(), required=False, label=_('Object type')
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields['object_type_id'].queryset = object_types.allowed()


def form_field(name: str) -> tuple[str, forms.Field] | None:
    """Return the filter of a webhook's field, with its name.

    None for texts, numbers, object types and tags: the form has its own, or none.
    """
    of_model = field(name)
    if is_switch(name):
        return name, switch(label(name))
    if of_model.choices:
        return name, forms.MultipleChoiceField(label=label(name), choices=of_model.choices, required=False)
    if not of_model.is_relation or name in ('object_types', 'tags'):
        return None
    queryset = of_model.related_model.objects.all()
    return filter_name(name), DynamicModelMultipleChoiceField(label=label(name), queryset=queryset, required=False)


def filter_name(name: str) -> str:
    """Return the name of a field's filter: 'credential_id' of `credential`, 'ignore_user_id' of `ignore_users`.

    A field that names no other objects keeps its own name.
    """
    return f'{name.removesuffix("s")}_id' if field(name).is_relation else name


def _filters(group: Group) -> list[str]:
    return [filter_name(name) for name in group.names if name in shown_in('filters')]


# A filter for each field of a webhook that has one.
FieldFilters = type(
    'FieldFilters',
    (ObjectTypeFilterMixin, NetBoxModelFilterSetForm),
    dict(filter(None, map(form_field, shown_in('filters')))),
)


class WebhookFilterForm(FieldFilters):
    """Filters the list of webhooks."""

    model = Webhook
    state = forms.MultipleChoiceField(
        label=_('State'), required=False, choices=[(key, state.label) for key, state in STATES.items()]
    )
    suspended = switch(_('Suspended'))
    managed_by = forms.CharField(label=_('Managed by'), required=False)
    tag = TagFilterField(model)
    fieldsets = (
        FieldSet('q', 'filter_id', 'tag', 'state', 'suspended', 'managed_by'),
        *(FieldSet(*_filters(group), name=group.title) for group in GROUPS),
    )


class CredentialFilterForm(NetBoxModelFilterSetForm):
    """Filters the list of credentials."""

    model = Credential
    type = forms.MultipleChoiceField(label=_('Type'), choices=CredentialTypeChoices, required=False)
    host = forms.CharField(label=_('Host'), required=False)
    username = forms.CharField(label=_('User'), required=False)
    valid_until__lte = forms.DateField(label=_('Ends by'), required=False, widget=DatePicker)
    managed_by = forms.CharField(label=_('Managed by'), required=False)
    tag = TagFilterField(model)
    fieldsets = (
        FieldSet('q', 'filter_id', 'tag'),
        FieldSet('type', 'host', 'username', 'valid_until__lte', 'managed_by', name=_('Credential')),
    )


class DefinitionFilterForm(NetBoxModelFilterSetForm):
    """Filters the list of definitions."""

    model = Definition
    data_source_id = DynamicModelMultipleChoiceField(
        label=_('Data source'), queryset=DataSource.objects.all(), required=False
    )
    apply_on_sync = switch(_('Apply on sync'))
    prune = switch(_('Prune'))
    tag = TagFilterField(model)
    fieldsets = (FieldSet('q', 'filter_id', 'tag', 'data_source_id', 'apply_on_sync', 'prune'),)


class LogFilterForm(ObjectTypeFilterMixin, SavedFiltersMixin, FilterForm):
    """The filters that deliveries and events share."""

    kind = forms.MultipleChoiceField(label=_('Event'), choices=KindChoices, required=False)
    test = switch(_('Test'))
    backfill = switch(_('Backfill'))
    object_id = forms.IntegerField(label=_('Object ID'), required=False)


class DeliveryFilterForm(LogFilterForm):
    """Filters the list of all deliveries."""

    model = Delivery
    fieldsets = (
        FieldSet('q', 'filter_id'),
        FieldSet('status', 'webhook_id', 'error', 'kind', 'response_status', 'test', 'backfill', name=_('Delivery')),
        FieldSet('object_type_id', 'object_id', name=_('Object')),
        FieldSet('created__gte', 'created__lte', name=_('Time')),
    )
    q = forms.CharField(label=SEARCH_LABEL, required=False)
    status = forms.MultipleChoiceField(label=_('Status'), choices=StatusChoices, required=False)
    webhook_id = DynamicModelMultipleChoiceField(label=_('Webhook'), queryset=Webhook.objects.all(), required=False)
    error = forms.CharField(label=_('Error'), required=False)
    response_status = forms.IntegerField(label=_('Response status'), required=False)
    created__gte = TimeField(label=_('After'), required=False)
    created__lte = TimeField(label=_('Before'), required=False)


class WebhookDeliveryFilterForm(DeliveryFilterForm):
    """Filters the deliveries of one webhook, on its tab."""

    webhook_id = None


class EventFilterForm(LogFilterForm):
    """Filters the list of events."""

    model = Event
    fieldsets = (
        FieldSet('q', 'filter_id'),
        FieldSet('kind', 'username', 'has_error', 'test', 'backfill', name=_('Event')),
        FieldSet('object_type_id', 'object_id', name=_('Object')),
        FieldSet('timestamp__gte', 'timestamp__lte', name=_('Time')),
    )
    username = forms.CharField(label=_('User'), required=False)
    has_error = switch(_('Has an error'))
    timestamp__gte = TimeField(label=_('After'), required=False)
    timestamp__lte = TimeField(label=_('Before'), required=False)
