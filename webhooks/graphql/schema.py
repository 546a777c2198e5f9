"""The queries that NetBox adds to its GraphQL schema."""

import strawberry
import strawberry_django

from .types import CredentialType, DeliveryType, EventType, WebhookType


@strawberry.type(name='Query')
class WebhooksQuery:
    """An object by its id, and a list with filters, for each of our models."""

    webhooks_webhook: WebhookType = strawberry_django.field()
    webhooks_webhook_list: list[WebhookType] = strawberry_django.field()

    webhooks_credential: CredentialType = strawberry_django.field()
    webhooks_credential_list: list[CredentialType] = strawberry_django.field()

    webhooks_event: EventType = strawberry_django.field()
    webhooks_event_list: list[EventType] = strawberry_django.field()

    webhooks_delivery: DeliveryType = strawberry_django.field()
    webhooks_delivery_list: list[DeliveryType] = strawberry_django.field()


schema = [WebhooksQuery]
