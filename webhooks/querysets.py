"""Deliveries and events without their long columns: a page of a list must not read a thousand payloads."""

from django.db.models import FloatField, OuterRef, QuerySet, Subquery

from .models import Attempt, Delivery, Event

LONG_COLUMNS = ('data', 'snapshot', 'prechange', 'snapshots', 'request')


def events() -> QuerySet[Event]:
    return Event.objects.defer(*LONG_COLUMNS)


def deliveries() -> QuerySet[Delivery]:
    """Return deliveries with their webhook and event, in one query."""
    return Delivery.objects.select_related('webhook', 'event').defer(*(f'event__{name}' for name in LONG_COLUMNS))


def listed_deliveries() -> QuerySet[Delivery]:
    """Return deliveries as the lists show them: with `last_duration`, the seconds that the last attempt took."""
    last = Attempt.objects.filter(delivery=OuterRef('pk')).order_by('-pk').values('duration')[:1]
    return deliveries().annotate(last_duration=Subquery(last, output_field=FloatField()))
