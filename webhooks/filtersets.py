"""Filters of the lists, in the API and on the pages.

None looks into what is stored encrypted or shown masked, for matches would tell what it is. Those of events and
deliveries say `distinct=False`, as comparing whole rows is what makes a long log slow.
"""

import uuid

import django_filters
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _
from extras.choices import WebhookHttpMethodChoices
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

from .choices import FormatChoices, KindChoices, StatusChoices
from .models import BatchItem, Delivery, Event, Webhook


@register_filterset
class WebhookFilterSet(NetBoxModelFilterSet):
    object_type = MultiValueContentTypeFilter(field_name='object_types')
    object_type_id = django_filters.ModelMultipleChoiceFilter(
        field_name='object_types', queryset=ContentType.objects.all(), label=_('Object type (ID)')
    )
    ignore_user_id = django_filters.ModelMultipleChoiceFilter(
        field_name='ignore_users', queryset=User.objects.all(), label=_('Ignored user (ID)')
    )
    http_method = django_filters.MultipleChoiceFilter(choices=WebhookHttpMethodChoices, distinct=False)
    payload_format = django_filters.MultipleChoiceFilter(choices=FormatChoices, distinct=False)
    suspended = django_filters.BooleanFilter(
        field_name='health__suspended_since', lookup_expr='isnull', exclude=True, label=_('Suspended')
    )

    class Meta:
        model = Webhook
        fields = (
            'id', 'name', 'description', 'enabled', 'paused', 'type_create', 'type_update', 'type_delete',
            'http_content_type', 'ssl_verification', 'ca_file_path', 'client_cert_path', 'client_key_path', 'timeout',
            'max_attempts', 'rate_limit', 'concurrency', 'ordered', 'batch', 'include_snapshots',
        )  # fmt: skip

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        if not value.strip():
            return queryset
        return queryset.filter(Q(name__icontains=value) | Q(description__icontains=value))


class LogFilterSet(BaseFilterSet):
    """Of what happened to an object."""

    q = django_filters.CharFilter(method='search', label=_('Search'))
    uuid = django_filters.UUIDFilter(label='UUID')
    object_type = MultiValueContentTypeFilter(distinct=False)
    object_type_id = django_filters.ModelMultipleChoiceFilter(
        field_name='object_type', queryset=ContentType.objects.all(), distinct=False, label=_('Object type (ID)')
    )
    object_id = MultiValueBigNumberFilter(distinct=False)
    sequence = MultiValueBigNumberFilter(distinct=False)


@register_filterset
class EventFilterSet(LogFilterSet):
    kind = django_filters.MultipleChoiceFilter(choices=KindChoices, distinct=False)
    object_repr = MultiValueCharFilter(distinct=False)
    username = MultiValueCharFilter(distinct=False)
    request_id = django_filters.UUIDFilter()
    timestamp = MultiValueDateTimeFilter(distinct=False)
    delivery_id = django_filters.ModelMultipleChoiceFilter(
        queryset=Delivery.objects.all(), method='filter_deliveries', label=_('Delivery (ID)')
    )
    has_error = django_filters.BooleanFilter(method='filter_has_error', label=_('Has an error'))

    class Meta:
        model = Event
        fields = ('id', 'test')

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return _search(queryset, value, Q(object_repr__icontains=value) | Q(username__icontains=value))

    def filter_deliveries(self, queryset: QuerySet, name: str, value: list[Delivery]) -> QuerySet:
        if not value:
            return queryset
        told = BatchItem.objects.filter(delivery__in=value).values('event')
        return queryset.filter(Q(pk__in=[delivery.event_id for delivery in value]) | Q(pk__in=told))

    def filter_has_error(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        return queryset.exclude(error='') if value else queryset.filter(error='')


@register_filterset
class DeliveryFilterSet(LogFilterSet):
    webhook_id = django_filters.ModelMultipleChoiceFilter(
        queryset=Webhook.objects.all(), distinct=False, label=_('Webhook (ID)')
    )
    webhook = django_filters.ModelMultipleChoiceFilter(
        field_name='webhook__name',
        queryset=Webhook.objects.all(),
        to_field_name='name',
        distinct=False,
        label=_('Webhook (name)'),
    )
    event_id = django_filters.ModelMultipleChoiceFilter(
        queryset=Event.objects.all(), method='filter_events', label=_('Event (ID)')
    )
    kind = django_filters.MultipleChoiceFilter(field_name='event__kind', choices=KindChoices, distinct=False)
    status = django_filters.MultipleChoiceFilter(choices=StatusChoices, distinct=False)
    response_status = MultiValueNumberFilter(distinct=False)
    attempt_count = MultiValueNumberFilter(distinct=False)
    event_count = MultiValueNumberFilter(distinct=False)
    created = MultiValueDateTimeFilter(distinct=False)
    finished_at = MultiValueDateTimeFilter(distinct=False)

    class Meta:
        model = Delivery
        fields = ('id',)

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return _search(
            queryset,
            value,
            Q(event__object_repr__icontains=value) | Q(webhook__name__icontains=value) | Q(error__icontains=value),
        )

    def filter_events(self, queryset: QuerySet, name: str, value: list[Event]) -> QuerySet:
        if not value:
            return queryset
        batches = BatchItem.objects.filter(event__in=value).values('delivery')
        return queryset.filter(Q(event__in=value) | Q(pk__in=batches))


def _search(queryset: QuerySet, value: str, query: Q) -> QuerySet:
    """Return what matches the query, or has the text as its UUID: that is what a receiver knows of it."""
    value = value.strip()
    if not value:
        return queryset
    try:
        return queryset.filter(uuid=uuid.UUID(value))
    except ValueError:
        return queryset.filter(query)
