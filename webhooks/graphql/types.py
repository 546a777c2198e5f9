"""The GraphQL types of our models. Masked and restricted fields are resolved here.

The descriptions in GraphQL are the docstrings of the models.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
import strawberry_django
from django.db.models import FETCH_PEERS, QuerySet
from netbox.graphql.scalars import BigInt
from netbox.graphql.types import BaseObjectType, ContentTypeType, NetBoxObjectType, register_type
from strawberry.scalars import JSON
from strawberry.types import Info

from ..models import Attempt, Credential, Delivery, Event, Health, Webhook
from ..payload_visibility import visible_deliveries, visible_events
from ..presentation import credential_fields
from ..presentation.fields import field, shown_in
from ..services import why_not_sent
from .filters import CredentialFilter, DeliveryFilter, EventFilter, WebhookFilter
from .visibility import is_visible, sent

if TYPE_CHECKING:
    from extras.graphql.types import NotificationGroupType
    from users.graphql.types import UserType

# WebhookType masks or converts these fields.
SHOWN_OTHERWISE = (
    'payload_url', 'additional_headers', 'conditions', 'success_conditions', 'fields', 'omit', 'credential',
)  # fmt: skip
COLUMNS = [name for name in shown_in('GraphQL') if name not in SHOWN_OTHERWISE and not field(name).many_to_many]

# The columns that `is_visible` reads.
REFERENCE = ['object_type', 'object_id']
# The columns that services/why_not_sent.py reads.
WAIT = [
    'state', 'webhook', 'due_at', 'waits_until', 'expires_at', 'attempt_count', 'attempt_limit', 'backfill',
    'change_set', 'part', 'parts',
]  # fmt: skip


@register_type(
    Health,
    name='WebhooksHealthType',
    fields=[
        'last_status', 'last_error', 'last_attempt_at', 'last_success_at', 'refused_since', 'suspended_since',
        'probe_at',
    ],
)  # fmt: skip
class HealthType:
    """The health of a webhook's endpoint."""

    delivered: BigInt
    failed: BigInt
    superseded: BigInt


@register_type(
    Credential,
    name='WebhooksCredentialType',
    fields=['id', *credential_fields.shown_in('GraphQL'), 'created', 'last_updated'],
    filters=CredentialFilter,
    pagination=True,
)
class CredentialType(NetBoxObjectType):
    """A credential without its secret."""


@register_type(
    Webhook,
    name='WebhooksWebhookType',
    fields=['id', *COLUMNS, 'created', 'last_updated'],
    filters=WebhookFilter,
    pagination=True,
)
class WebhookType(NetBoxObjectType):
    """A webhook with masked URL and headers. It has no deliveries, for there may be millions."""

    object_types: list[ContentTypeType]
    ignore_users: list[Annotated['UserType', strawberry.lazy('users.graphql.types')]]
    notification_groups: list[Annotated['NotificationGroupType', strawberry.lazy('extras.graphql.types')]]
    credential: CredentialType | None
    conditions: JSON | None
    filters: JSON
    success_conditions: JSON | None
    fields: JSON | None
    omit: JSON | None
    health: HealthType | None

    @strawberry_django.field(only=['payload_url', 'secret_path'])
    def payload_url(self) -> str:
        """Return the URL with masked secrets."""
        return self.masked_url

    @strawberry_django.field(only=['additional_headers'])
    def additional_headers(self) -> str:
        """Return the headers with masked values."""
        return self.masked_headers

    @strawberry_django.field(only=['secret'])
    def public_key(self) -> str:
        """Return the public key that receivers verify with, '' without a key pair."""
        return self.public_key


@strawberry.type
class LogType(BaseObjectType):
    """The fields that events and deliveries share. FETCH_PEERS lets `is_visible` check all rows at once."""

    object_id: BigInt | None
    object_type: ContentTypeType
    sequence: BigInt

    @classmethod
    def get_queryset(cls, queryset: QuerySet, info: Info, **kwargs) -> QuerySet:
        return super().get_queryset(queryset, info, **kwargs).fetch_mode(FETCH_PEERS)


@register_type(
    Event,
    name='WebhooksEventType',
    fields=[
        'id', 'uuid', 'kind', 'object_repr', 'timestamp', 'username', 'request_id', 'test', 'error', 'skipped',
        'dispatched_at',
    ],
    filters=EventFilter,
    pagination=True,
)  # fmt: skip
class EventType(LogType):
    """An event. Its payload is null if the asker may not view the object."""

    deliveries: list[Annotated['DeliveryType', strawberry.lazy('webhooks.graphql.types')]]

    @strawberry_django.field(only=['backfill_for'])
    def backfill(self) -> bool:
        """Return whether a backfill recorded it."""
        return self.backfill

    @strawberry_django.field(only=REFERENCE)
    def restricted(self, info: Info) -> bool:
        """Return whether fields are hidden, because the asker may not view the object."""
        return not is_visible(self, info, visible_events)

    @strawberry_django.field(only=['data', *REFERENCE])
    def data(self, info: Info) -> JSON | None:
        """Return the payload, or null if it is hidden or not rendered yet."""
        return self.payload_data if is_visible(self, info, visible_events) else None

    @strawberry_django.field(only=['partial', *REFERENCE])
    def partial(self, info: Info) -> JSON | None:
        """Return the payload's keys with unknown values, or null if that is hidden."""
        return self.partial if is_visible(self, info, visible_events) else None

    @strawberry_django.field(only=['caused_by', *REFERENCE])
    def caused_by(self, info: Info) -> JSON | None:
        """Return the models of components whose change made it an event of their owner, or null if that is hidden."""
        return self.caused_by if is_visible(self, info, visible_events) else None


@register_type(
    Attempt,
    name='WebhooksAttemptType',
    fields=['id', 'number', 'started_at', 'duration', 'method', 'response_status', 'error'],
)
class AttemptType:
    """An attempt. Restricted fields are null."""

    url: str | None
    request_headers: JSON | None
    response_headers: JSON | None
    response_body: str | None


@register_type(
    Delivery,
    name='WebhooksDeliveryType',
    fields=[
        'id', 'uuid', 'change_set', 'parts', 'backfill', 'error', 'response_status',
        'attempt_count', 'created', 'finished_at', 'expires_at',
    ],
    filters=DeliveryFilter,
    pagination=True,
)  # fmt: skip
class DeliveryType(LogType):
    """A delivery with its attempts."""

    webhook: WebhookType | None
    event: EventType | None
    position: BigInt | None

    @strawberry_django.field(only=['id'])
    def event_count(self) -> int:
        """Return 1. In 1.0.0 a delivery could have several events."""
        return 1

    @strawberry_django.field(only=['state'])
    def status(self) -> str:
        """Return its status, which is computed from its state."""
        return self.status

    @strawberry_django.field(only=['part', 'parts'])
    def part(self) -> int | None:
        """Return its part of the change set, or null before the parts are made."""
        return self.part if self.parts else None

    @strawberry_django.field(only=WAIT)
    def next_attempt_at(self) -> datetime | None:
        """Return the time of the next attempt, or null if nothing is planned."""
        try:
            return why_not_sent.next_attempt_at(self)
        except Webhook.DoesNotExist:  # the reader may not view it, nor why it waits
            return self.due_at if self.is_open else None

    @strawberry_django.field(only=['lead', *REFERENCE])
    def restricted(self, info: Info) -> bool:
        """Return whether fields of its attempts are hidden, because the asker may not view an object of a request."""
        return not is_visible(self, info, visible_deliveries) or any(one.is_restricted for one in sent(self, info))

    @strawberry_django.field(only=['id'])
    def attempts(self, info: Info) -> list[AttemptType]:
        """Return the attempts in which it went out, with null in hidden fields."""
        return sent(self, info)
