"""Querysets for lists and pages. They prefetch: a join would run for the rows of all earlier pages too."""

from collections.abc import Iterable

from django.db.models import Prefetch, QuerySet

from ..choices import WAITING_STATUSES
from . import Attempt, Delivery, Event, Webhook

# Columns of Event that may have megabytes.
LONG_COLUMNS = ('data', 'expanded', 'snapshot', 'prechange', 'snapshots', 'request')


def events() -> QuerySet[Event]:
    """Return all events without their long columns, which are read one by one when they are accessed."""
    return Event.objects.defer(*LONG_COLUMNS)


def deliveries() -> QuerySet[Delivery]:
    """Return all deliveries, with event, webhook, and the webhook's health and backfill.

    Takes three queries for any number.
    """
    webhooks = Webhook.objects.select_related('health', 'backfill')
    return Delivery.objects.prefetch_related(Prefetch('webhook', webhooks), Prefetch('event', events()))


def attempts_of(deliveries: Iterable[int], *only: str) -> dict[int, list[Attempt]]:
    """Return {id of a delivery: the attempts that sent it, the newest first} for these deliveries.

    `only`: the columns that are wanted. Takes one query for any number.
    """
    found: dict[int, list[Attempt]] = {pk: [] for pk in deliveries}
    attempts = Attempt.objects.of(found) if found else []
    for attempt in attempts.only('delivery', 'members', *only) if only and found else attempts:
        for pk in found.keys() & attempt.deliveries:
            found[pk].append(attempt)
    return found


def earlier_of(delivery: Delivery) -> Delivery | None:
    """Return the first waiting delivery of an earlier change of its object, to the same webhook.

    None: nothing is before it.
    """
    earlier = Delivery.objects.filter(
        object_type=delivery.object_type_id,
        object_id=delivery.object_id,
        webhook=delivery.webhook_id,
        status__in=WAITING_STATUSES,
        sequence__lt=delivery.sequence,
    )
    return earlier.order_by('sequence').first()
