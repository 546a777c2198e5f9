"""The filters of GraphQL lists. None reads encrypted or masked fields, payloads, requests or responses.

Filters by hidden columns find only rows whose object the asker may view.
"""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import strawberry
import strawberry_django
from django.db.models import BooleanField, CharField, IntegerField, Model, Q, QuerySet
from extras.graphql.enums import WebhookHttpMethodEnum
from extras.models import NotificationGroup
from netbox.graphql.filters import BaseModelFilter, NetBoxModelFilter, register_filter
from strawberry import ID
from strawberry.types import Info
from strawberry_django import BaseFilterLookup, DateFilterLookup, DatetimeFilterLookup, FilterLookup, StrFilterLookup
from users.models import User

from .. import visibility
from ..choices import CredentialTypeChoices, FormatChoices, KindChoices, StatusChoices
from ..models import Credential, Delivery, Event, Health, Webhook
from ..models.delivery import where_error_is_found
from ..presentation import fields

if TYPE_CHECKING:
    from core.graphql.filters import ContentTypeFilter
    from extras.graphql.filters import NotificationGroupFilter
    from netbox.graphql.filter_lookups import BigIntegerLookup, IntegerLookup
    from users.graphql.filters import UserFilter

CredentialTypeEnum = strawberry.enum(CredentialTypeChoices.as_enum('WebhooksCredentialTypeEnum', prefix='type'))
FormatEnum = strawberry.enum(FormatChoices.as_enum('WebhooksFormatEnum', prefix='format'))
KindEnum = strawberry.enum(KindChoices.as_enum('WebhooksKindEnum', prefix='kind'))
StatusEnum = strawberry.enum(StatusChoices.as_enum('WebhooksStatusEnum', prefix='status'))

ObjectTypeFilter = Annotated['ContentTypeFilter', strawberry.lazy('core.graphql.filters')]
IgnoredUserFilter = Annotated['UserFilter', strawberry.lazy('users.graphql.filters')]
NotifiedFilter = Annotated['NotificationGroupFilter', strawberry.lazy('extras.graphql.filters')]
Integer = Annotated['IntegerLookup', strawberry.lazy('netbox.graphql.filter_lookups')]
BigInteger = Annotated['BigIntegerLookup', strawberry.lazy('netbox.graphql.filter_lookups')]


@register_filter(Health, name='WebhooksHealthFilter', lookups=True)
class HealthFilter:
    """Filters of a webhook's health."""

    delivered: BigInteger | None = strawberry_django.filter_field()
    failed: BigInteger | None = strawberry_django.filter_field()
    superseded: BigInteger | None = strawberry_django.filter_field()
    last_status: Integer | None = strawberry_django.filter_field()
    last_attempt_at: DatetimeFilterLookup | None = strawberry_django.filter_field()
    last_success_at: DatetimeFilterLookup | None = strawberry_django.filter_field()
    refused_since: DatetimeFilterLookup | None = strawberry_django.filter_field()
    suspended_since: DatetimeFilterLookup | None = strawberry_django.filter_field()


@register_filter(Credential, name='WebhooksCredentialFilter', lookups=True)
class CredentialFilter(NetBoxModelFilter):
    """Filters of credentials. None is about the secret."""

    name: StrFilterLookup | None = strawberry_django.filter_field()
    description: StrFilterLookup | None = strawberry_django.filter_field()
    type: BaseFilterLookup[CredentialTypeEnum] | None = strawberry_django.filter_field()
    valid_until: DateFilterLookup | None = strawberry_django.filter_field()


Found = tuple[QuerySet, Q]


def _related(name: str, model: type[Model], value_type: Any) -> Any:
    """Return a filter by related objects that the asker may view: any other match would confirm its hidden values."""

    def find(info: Info, queryset: QuerySet, value: value_type, prefix: str) -> Found:
        viewable = visibility.viewable(info.context.request.user, model)
        viewable, found = strawberry_django.process_filters(value, viewable, info)
        return queryset, Q(**{f'{prefix}{name}__in': viewable.filter(found).values('pk')})

    return strawberry_django.filter_field(find)


def _hidden(name: str, value_type: Any) -> Any:
    """Return a filter by a column of the log that some may not see. It finds objects that the asker may view."""

    def find(info: Info, queryset: QuerySet, value: value_type, prefix: str) -> Found:
        queryset, found = strawberry_django.process_filters(value, queryset, info, prefix=f'{prefix}{name}__')
        return queryset, found & visibility.query(info.context.request.user, prefix)

    return strawberry_django.filter_field(find)


# The filters of a webhook's plain columns, by their kinds: for each one that presentation/fields.py does not leave out.
PLAIN = {BooleanField: FilterLookup[bool], IntegerField: Integer, CharField: StrFilterLookup}


def _plain() -> type[Any]:
    """Return a class with a filter for each switch, number and text of a webhook that is not chosen from something."""
    kinds = {
        name: kind | None
        for name in fields.shown_in('GraphQL filters')
        for column, kind in PLAIN.items()
        if isinstance(fields.field(name), column) and not fields.field(name).choices
    }
    filters = {name: strawberry_django.filter_field() for name in kinds}
    return strawberry.input(type('WebhookColumnsFilter', (), {'__annotations__': kinds, **filters}))


@register_filter(Webhook, name='WebhooksWebhookFilter', lookups=True)
class WebhookFilter(_plain(), NetBoxModelFilter):
    """Filters of webhooks, also by related objects that the asker may view."""

    object_types: ObjectTypeFilter | None = strawberry_django.filter_field()
    http_method: BaseFilterLookup[WebhookHttpMethodEnum] | None = strawberry_django.filter_field()
    payload_format: BaseFilterLookup[FormatEnum] | None = strawberry_django.filter_field()
    credential_id: ID | None = strawberry_django.filter_field()
    health: HealthFilter | None = strawberry_django.filter_field()
    credential = _related('credential', Credential, CredentialFilter)
    ignore_users = _related('ignore_users', User, IgnoredUserFilter)
    notification_groups = _related('notification_groups', NotificationGroup, NotifiedFilter)


@strawberry.input
class LogFilter(BaseModelFilter):
    """Filters that events and deliveries share."""

    uuid: BaseFilterLookup[UUID] | None = strawberry_django.filter_field()
    sequence: BigInteger | None = strawberry_django.filter_field()
    object_type: ObjectTypeFilter | None = strawberry_django.filter_field()
    object_type_id: ID | None = strawberry_django.filter_field()
    object_id = _hidden('object_id', BigInteger)


@register_filter(Event, name='WebhooksEventFilter', lookups=True)
class EventFilter(LogFilter):
    """Filters of events."""

    kind: BaseFilterLookup[KindEnum] | None = strawberry_django.filter_field()
    timestamp: DatetimeFilterLookup | None = strawberry_django.filter_field()
    object_repr = _hidden('object_repr', StrFilterLookup)
    username = _hidden('username', StrFilterLookup)
    request_id = _hidden('request_id', BaseFilterLookup[UUID])
    error = _hidden('error', StrFilterLookup)

    @strawberry_django.filter_field
    def backfill(self, value: bool, prefix: str) -> Q:
        """Keep events of backfills, or all others."""
        return Q(**{f'{prefix}backfill_for__isnull': not value})

    test: FilterLookup[bool] | None = strawberry_django.filter_field()
    skipped: Integer | None = strawberry_django.filter_field()
    dispatched_at: DatetimeFilterLookup | None = strawberry_django.filter_field()


@register_filter(Delivery, name='WebhooksDeliveryFilter', lookups=True)
class DeliveryFilter(LogFilter):
    """Filters of deliveries."""

    webhook_id: ID | None = strawberry_django.filter_field()
    event_id: ID | None = strawberry_django.filter_field()
    change_set: BigInteger | None = strawberry_django.filter_field()
    position: BigInteger | None = strawberry_django.filter_field()
    backfill: FilterLookup[bool] | None = strawberry_django.filter_field()
    status: BaseFilterLookup[StatusEnum] | None = strawberry_django.filter_field()
    response_status: Integer | None = strawberry_django.filter_field()
    attempt_count: Integer | None = strawberry_django.filter_field()
    created: DatetimeFilterLookup | None = strawberry_django.filter_field()
    due_at: DatetimeFilterLookup | None = strawberry_django.filter_field()
    finished_at: DatetimeFilterLookup | None = strawberry_django.filter_field()
    expires_at: DatetimeFilterLookup | None = strawberry_django.filter_field()
    webhook = _related('webhook', Webhook, WebhookFilter)
    event = _related('event', Event, EventFilter)

    @strawberry_django.filter_field
    def error(self, info: Info, queryset: QuerySet, value: StrFilterLookup, prefix: str) -> Found:
        """Keep deliveries with such an error, if the asker may view the whole error."""
        queryset, found = strawberry_django.process_filters(value, queryset, info, prefix=f'{prefix}error__')
        return queryset, found & where_error_is_found(info.context.request.user)
