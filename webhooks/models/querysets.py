"""Deliveries and events without their long columns: a page of a list must not read a thousand payloads.

What a row points to is fetched once the page is cut out, not joined: a join is made for all the pages before, too.
"""

from django.db.models import Prefetch, QuerySet

from . import Attempt, Delivery, Event

LONG_COLUMNS = ('data', 'expanded', 'snapshot', 'prechange', 'snapshots', 'request')


def events() -> QuerySet[Event]:
    """Return events without their long columns."""
    return Event.objects.defer(*LONG_COLUMNS)


def deliveries() -> QuerySet[Delivery]:
    """Return deliveries with their webhook and event, in three queries."""
    return Delivery.objects.prefetch_related('webhook', Prefetch('event', events()))


def listed_deliveries() -> QuerySet[Delivery]:
    """Return deliveries as the lists show them: with `last_attempts`, a list of the last attempt, if there is one."""
    last = Attempt.objects.order_by('delivery_id', '-pk').distinct('delivery_id').only('delivery', 'duration')
    return deliveries().prefetch_related(Prefetch('attempts', last, to_attr='last_attempts'))
