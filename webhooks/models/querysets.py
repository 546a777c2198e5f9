"""They prefetch: a join would run for all earlier pages too."""

from django.db.models import Prefetch, QuerySet

from ..choices import WAITING_STATUSES
from . import Attempt, Delivery, Event, Webhook

LONG_COLUMNS = ('data', 'expanded', 'snapshot', 'prechange', 'snapshots', 'request')


def events() -> QuerySet[Event]:
    return Event.objects.defer(*LONG_COLUMNS)


def deliveries() -> QuerySet[Delivery]:
    webhooks = Webhook.objects.select_related('health', 'backfill')
    return Delivery.objects.prefetch_related(Prefetch('webhook', webhooks), Prefetch('event', events()))


def listed_deliveries() -> QuerySet[Delivery]:
    """With `last_attempts`, which holds at most one."""
    last = Attempt.objects.order_by('delivery_id', '-pk').distinct('delivery_id').only('delivery', 'duration')
    return deliveries().prefetch_related(Prefetch('attempts', last, to_attr='last_attempts'))


def earlier_of(delivery: Delivery) -> Delivery | None:
    """Return the object's first earlier delivery that is pending."""
    earlier = Delivery.objects.filter(
        object_type=delivery.object_type_id,
        object_id=delivery.object_id,
        webhook=delivery.webhook_id,
        status__in=WAITING_STATUSES,
        sequence__lt=delivery.sequence,
    )
    return earlier.order_by('sequence').first()
