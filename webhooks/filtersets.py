"""The filters of lists and of the REST API.

No filter searches encrypted or masked values: matches would reveal them. `distinct=False` keeps long logs fast.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial, reduce
from operator import or_
from typing import Any

import django_filters
from core.models import DataSource
from django import forms
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.core.validators import EMPTY_VALUES
from django.db import DataError, connection, transaction
from django.db.models import Min, Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from extras.choices import WebhookHttpMethodChoices
from extras.models import NotificationGroup
from netbox.filtersets import BaseFilterSet, NetBoxModelFilterSet
from users.models import User
from utilities.filters import (
    MultiValueBigNumberFilter,
    MultiValueCharFilter,
    MultiValueContentTypeFilter,
    MultiValueDateTimeFilter,
    MultiValueNumberFilter,
)
from utilities.filtersets import register_filterset

from . import visibility
from .choices import CredentialTypeChoices, FormatChoices, KindChoices, StatusChoices
from .models import Credential, Definition, Delivery, Event, Webhook
from .models.confidential import CONFIDENTIAL_FIELDS
from .models.delivery import cause_of, where_error_is_found
from .presentation import credential_fields
from .presentation.fields import field, shown_in
from .presentation.states import IS_SUSPENDED, STATES, in_state, with_states
from .storable import NO_SUCH_OFFSET, is_storable_time, uuid_of
from .validation.credential import normalized

REGEX_LOOKUPS = ('regex', 'iregex')
# A search for a text reads at most this many rows. All of a log of millions would take seconds.
MAX_SEARCHED = 100_000
SEARCH_LABEL = format_lazy(_('Search in the newest {count}'), count=f'{MAX_SEARCHED:,}')
# Lookups that need a text, so NetBox's word for "null" is an error.
TEXT_LOOKUPS = ('ic', 'nic', 'iew', 'niew', 'isw', 'nisw', *REGEX_LOOKUPS)


class FilterForm(forms.Form):
    """The form behind each filterset. It refuses values that would be errors to PostgreSQL."""

    def clean(self) -> dict[str, Any]:
        for name, value in list(self.cleaned_data.items()):
            lookup = name.rpartition('__')[2]
            if lookup in TEXT_LOOKUPS and settings.FILTERS_NULL_CHOICE_VALUE in (value or ()):
                self.add_error(name, _('This filter cannot search for empty values.'))
            elif lookup in REGEX_LOOKUPS and not all(map(_is_regex, value or ())):
                self.add_error(name, _('Enter a valid regular expression.'))
            elif isinstance(value, list) and not all(map(is_storable_time, _times(value))):
                self.add_error(name, NO_SUCH_OFFSET)
        return self.cleaned_data


def _times(values: list[Any]) -> Iterator[datetime]:
    return (value for value in values if isinstance(value, datetime))


def _is_regex(pattern: str) -> bool:
    """Whether PostgreSQL takes the pattern: its regular expressions differ from Python's."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT '' ~ %s", [pattern])
    except DataError:
        return False
    return True


def _by_id_and_name(
    field: str, queryset: QuerySet, id_label: str, name_label: str, *, distinct: bool = True
) -> tuple[django_filters.Filter, django_filters.Filter]:
    """Return the two filters that NetBox has for related objects: by their ids, and by their names."""
    related = partial(django_filters.ModelMultipleChoiceFilter, queryset=queryset, distinct=distinct)
    return (
        related(field_name=field, label=id_label),
        related(field_name=f'{field}__name', to_field_name='name', label=name_label),
    )


class NamedFilterSet(NetBoxModelFilterSet):
    """Filters of models with a name and a description, which the search looks through."""

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return queryset.filter(Q(name__icontains=value) | Q(description__icontains=value))


@register_filterset
class WebhookFilterSet(NamedFilterSet):
    """Filters of webhooks."""

    object_type = MultiValueContentTypeFilter(field_name='object_types')
    object_type_id = django_filters.ModelMultipleChoiceFilter(
        field_name='object_types', queryset=ContentType.objects.all(), label=_('Object type (ID)')
    )
    ignore_user_id = django_filters.ModelMultipleChoiceFilter(
        field_name='ignore_users', queryset=User.objects.all(), label=_('Ignored user (ID)')
    )
    notification_group_id, notification_group = _by_id_and_name(
        'notification_groups',
        NotificationGroup.objects.all(),
        _('Notification group (ID)'),
        _('Notification group (name)'),
    )
    http_method = django_filters.MultipleChoiceFilter(choices=WebhookHttpMethodChoices, distinct=False)
    payload_format = django_filters.MultipleChoiceFilter(choices=FormatChoices, distinct=False)
    credential_id, credential = _by_id_and_name(
        'credential', Credential.objects.all(), _('Credential (ID)'), _('Credential (name)'), distinct=False
    )
    state = django_filters.MultipleChoiceFilter(
        choices=[(key, state.label) for key, state in STATES.items()],
        null_label=None,
        method='filter_state',
        label=_('State'),
    )
    suspended = django_filters.BooleanFilter(method='filter_suspended', label=_('Suspended'))
    managed_by = MultiValueCharFilter(distinct=False, label=_('Managed by'))

    class Meta:
        model = Webhook
        form = FilterForm
        fields = ('id', *(name for name in shown_in('filters') if not field(name).many_to_many))

    def filter_state(self, queryset: QuerySet, name: str, value: list[str]) -> QuerySet:
        """Keep webhooks in any state of the list, by their keys in STATES."""
        if not value:
            return queryset
        found = reduce(or_, map(in_state, value))
        # In a query of its own: NetBox's bulk edit asks for ids alone, which another column would break.
        return queryset.filter(pk__in=with_states(Webhook.objects.all()).filter(found).values('pk'))

    def filter_suspended(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        """Keep webhooks whose endpoint is suspended, or all others."""
        return queryset.filter(IS_SUSPENDED) if value else queryset.exclude(IS_SUSPENDED)


@register_filterset
class CredentialFilterSet(NamedFilterSet):
    """Filters of credentials."""

    type = django_filters.MultipleChoiceFilter(choices=CredentialTypeChoices, distinct=False)
    host = MultiValueCharFilter(method='filter_hosts', label=_('Host'))
    managed_by = MultiValueCharFilter(distinct=False, label=_('Managed by'))

    class Meta:
        model = Credential
        form = FilterForm
        fields = ('id', *credential_fields.shown_in('filters'))

    def filter_hosts(self, queryset: QuerySet, name: str, value: list[str]) -> QuerySet:
        """Keep credentials for any such host, as people enter it: it is brought into one form first."""
        return queryset.filter(hosts__overlap=[normalized(host) for host in value])


@register_filterset
class DefinitionFilterSet(NetBoxModelFilterSet):
    """Filters of definitions."""

    data_source_id, data_source = _by_id_and_name(
        'data_source', DataSource.objects.all(), _('Data source (ID)'), _('Data source (name)'), distinct=False
    )

    class Meta:
        model = Definition
        form = FilterForm
        fields = ('id', 'name', 'path', 'prune', 'apply_on_sync')

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        """Keep definitions with the text in their name or path."""
        return queryset.filter(Q(name__icontains=value) | Q(path__icontains=value))


class LogFilterSet(BaseFilterSet):
    """Filters that events and deliveries share.

    A row whose object the reader may not view is not found by hidden values.
    """

    q = django_filters.CharFilter(method='search', label=SEARCH_LABEL)
    uuid = django_filters.UUIDFilter(label='UUID')
    object_type = MultiValueContentTypeFilter(distinct=False)
    object_type_id = django_filters.ModelMultipleChoiceFilter(
        field_name='object_type', queryset=ContentType.objects.all(), distinct=False, label=_('Object type (ID)')
    )
    object_id = MultiValueBigNumberFilter(distinct=False)
    sequence = MultiValueBigNumberFilter(distinct=False)

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        """Filter the rows. If a filter asks for a hidden column, leave only rows whose object the reader may view."""
        asked = {name.partition('__')[0] for name, value in self.form.cleaned_data.items() if value not in EMPTY_VALUES}
        if asked & CONFIDENTIAL_FIELDS:
            queryset = queryset.filter(self.visible())
        # The search comes last: it looks through the newest rows that match all other filters.
        self.form.cleaned_data['q'] = self.form.cleaned_data.pop('q', '')
        return super().filter_queryset(queryset)

    def least(self, queryset: QuerySet, *names: str) -> list[int]:
        """Return the least value of each column in the newest MAX_SEARCHED rows, 0 without rows."""
        newest = queryset.order_by('-pk')[:MAX_SEARCHED]
        found = newest.aggregate(**{f'least_{name}': Min(name) for name in names})
        return [value or 0 for value in found.values()]

    def visible(self, prefix: str = '') -> Q:
        """Return the condition for rows whose object the reader may view. `prefix` leads to the object's columns."""
        return visibility.query(self.reader, prefix)

    @property
    def reader(self) -> visibility.Reader:
        """Return who asks. NetBox's widget *Object Counts* passes no request, but restricts the rows.

        If nobody restricted the rows, as in a script, nothing hidden is found.
        """
        if self.request:
            return self.request.user
        return getattr(self.queryset, 'reader', None) or AnonymousUser()


@register_filterset
class EventFilterSet(LogFilterSet):
    """Filters of events. The search takes a uuid, or a part of the object's or the user's name."""

    kind = django_filters.MultipleChoiceFilter(choices=KindChoices, distinct=False)
    object_repr = MultiValueCharFilter(distinct=False)
    username = MultiValueCharFilter(distinct=False)
    request_id = django_filters.UUIDFilter()
    timestamp = MultiValueDateTimeFilter(distinct=False)
    delivery_id = django_filters.ModelMultipleChoiceFilter(
        queryset=Delivery.objects.all(), null_label=None, method='filter_deliveries', label=_('Delivery (ID)')
    )
    has_error = django_filters.BooleanFilter(method='filter_has_error', label=_('Has an error'))
    backfill = django_filters.BooleanFilter(
        field_name='backfill_for', lookup_expr='isnull', exclude=True, label=_('Backfill')
    )

    class Meta:
        model = Event
        form = FilterForm
        fields = ('id', 'test')

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        if found := uuid_of(value):
            return queryset.filter(uuid=found)
        named = Q(object_repr__icontains=value) | Q(username__icontains=value)
        (first,) = self.least(queryset, 'pk')
        return queryset.filter(named & self.visible(), pk__gte=first)

    def filter_deliveries(self, queryset: QuerySet, name: str, value: list[Delivery]) -> QuerySet:
        """Keep only the deliveries' events."""
        if not value:
            return queryset
        return queryset.filter(pk__in=[delivery.event_id for delivery in value])

    def filter_has_error(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        """Keep events with an error, or all others."""
        return queryset.exclude(error='') if value else queryset.filter(error='')


@extend_schema_field({'type': 'string', 'enum': StatusChoices.values()})
class StatusFilter(django_filters.MultipleChoiceFilter):
    """Filters by the status, which has no column of its own. The same for the lookups that NetBox makes of it."""


class KindFilter(django_filters.MultipleChoiceFilter):
    """Filters by the kind of change that a request reports (Delivery.kind), which may differ from that of its event."""

    def filter(self, qs: QuerySet, value: list[str]) -> QuerySet:
        # Otherwise each list and count of deliveries would be joined with all events of the log.
        if not value:
            return qs
        kind = Coalesce(KeyTextTransform('kind', 'span'), 'event__kind')
        return super().filter(qs.alias(reported_kind=kind), value)

    def get_filter_predicate(self, v: str) -> dict[str, str]:
        predicate = super().get_filter_predicate(v)
        return {name.replace(self.field_name, 'reported_kind'): wanted for name, wanted in predicate.items()}


@register_filterset
class DeliveryFilterSet(LogFilterSet):
    """Filters of deliveries.

    The search takes a uuid, or a part of the object's name, the webhook's name or the error.
    """

    webhook_id, webhook = _by_id_and_name(
        'webhook', Webhook.objects.all(), _('Webhook (ID)'), _('Webhook (name)'), distinct=False
    )
    event_id = django_filters.ModelMultipleChoiceFilter(
        queryset=Event.objects.all(), null_label=None, method='filter_events', label=_('Event (ID)')
    )
    kind = KindFilter(field_name='event__kind', choices=KindChoices, distinct=False)
    status = StatusFilter(choices=StatusChoices, distinct=False)
    test = django_filters.BooleanFilter(field_name='event__test', label=_('Test'))
    response_status = MultiValueNumberFilter(distinct=False)
    attempt_count = MultiValueNumberFilter(distinct=False)
    error = MultiValueCharFilter(method='filter_error', label=_('Error'))
    change_set = MultiValueBigNumberFilter(distinct=False)
    position = MultiValueBigNumberFilter(distinct=False)
    created = MultiValueDateTimeFilter(distinct=False)
    finished_at = MultiValueDateTimeFilter(distinct=False)

    class Meta:
        model = Delivery
        form = FilterForm
        fields = ('id', 'backfill')

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        if found := uuid_of(value):
            return queryset.filter(uuid=found)
        webhooks = Webhook.objects.filter(name__icontains=value).values_list('pk', flat=True)
        errors = Q(error__icontains=value) & ~Q(error='') & where_error_is_found(self.reader)
        first, first_event = self.least(queryset, 'pk', 'event_id')
        # For a join with events by their names, PostgreSQL would read all events of the log.
        events = Event.objects.filter(pk__gte=first_event)
        named = Q(event__in=events.filter(self.visible(), object_repr__icontains=value))
        return queryset.filter(named | Q(webhook__in=list(webhooks)) | errors, pk__gte=first)

    def filter_error(self, queryset: QuerySet, name: str, value: list[str]) -> QuerySet:
        """Take errors as the reader sees them. Their beginning counts (`cause_of`)."""
        if not value:
            return queryset
        return queryset.with_cause(self.reader).filter(cause__in=[cause_of(text) for text in value])

    def filter_events(self, queryset: QuerySet, name: str, value: list[Event]) -> QuerySet:
        """Keep only the events' deliveries."""
        if not value:
            return queryset
        return queryset.filter(event__in=value)
