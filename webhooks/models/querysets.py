"""Lists do not read the long columns of a thousand payloads.

They prefetch, since a join would run for all pages before.
"""

from django.db.models import Prefetch, QuerySet

from . import Attempt, Delivery, Event, Webhook

EARLIER = """
    SELECT first.id AS id FROM (
        SELECT webhook_id, object_type_id, object_id, sequence FROM webhooks_delivery
        WHERE id = %(id)s AND event_count = 1
        UNION ALL
        SELECT webhook_id, object_type_id, object_id, sequence FROM webhooks_batchitem
        WHERE delivery_id = %(id)s AND open
    ) own CROSS JOIN LATERAL (
        (SELECT d.id, d.sequence FROM webhooks_delivery d
         WHERE d.webhook_id = own.webhook_id AND d.object_type_id = own.object_type_id AND d.object_id = own.object_id
           AND d.status IN ('pending', 'sending') AND d.event_count = 1 AND d.sequence < own.sequence
         ORDER BY d.sequence LIMIT 1)
        UNION ALL
        (SELECT i.delivery_id, i.sequence FROM webhooks_batchitem i
         WHERE i.webhook_id = own.webhook_id AND i.object_type_id = own.object_type_id AND i.object_id = own.object_id
           AND i.open AND i.sequence < own.sequence
         ORDER BY i.sequence LIMIT 1)
    ) first ORDER BY first.sequence LIMIT 1"""

LONG_COLUMNS = ('data', 'expanded', 'snapshot', 'prechange', 'snapshots', 'request')


def events() -> QuerySet[Event]:
    """Return events without their long columns."""
    return Event.objects.defer(*LONG_COLUMNS)


def deliveries() -> QuerySet[Delivery]:
    """Return deliveries with event, webhook, health and backfill, in three queries."""
    webhooks = Webhook.objects.select_related('health', 'backfill')
    return Delivery.objects.prefetch_related(Prefetch('webhook', webhooks), Prefetch('event', events()))


def listed_deliveries() -> QuerySet[Delivery]:
    """Return deliveries with `last_attempts`, which has one at most."""
    last = Attempt.objects.order_by('delivery_id', '-pk').distinct('delivery_id').only('delivery', 'duration')
    return deliveries().prefetch_related(Prefetch('attempts', last, to_attr='last_attempts'))


def earlier_of(delivery: Delivery) -> Delivery | None:
    """Return the first open delivery with an earlier change of its objects."""
    return next(iter(Delivery.objects.raw(EARLIER, {'id': delivery.pk})), None)
