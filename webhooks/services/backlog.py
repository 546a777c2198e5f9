"""The backlog in figures, read in a few queries: for `webhooks_status`, the metrics and the dashboard."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q, QuerySet

from .. import conf
from ..choices import OPEN_STATUSES, StatusChoices
from ..engine import event_claims
from ..models import Delivery, Event, Health
from ..outbox import queue


@dataclass(frozen=True)
class Backlog:
    """`oldest` is since when the oldest that is not delivered yet waits, None if nothing does.

    `suspect_events` and `suspect_deliveries` were in hand when a worker stopped (engine/quarantine.py). `workers` is
    None where Redis does not answer, which is what `redis` says.
    """

    undispatched: int
    suspect_events: int
    pending: int
    sending: int
    suspect_deliveries: int
    failed: int
    oldest: datetime | None
    suspended: int
    workers: int | None
    redis: bool


def measure() -> Backlog:
    """Return the backlog as it is now. Does not raise for want of Redis."""
    undispatched = Event.objects.filter(dispatched_at=None).aggregate(
        count=Count('pk'), suspects=Count('pk', filter=event_claims.SUSPECTS), oldest=Min('timestamp')
    )
    deliveries = Delivery.objects.filter(status__in=(*OPEN_STATUSES, StatusChoices.FAILED)).aggregate(
        pending=Count('pk', filter=Q(status=StatusChoices.PENDING)),
        sending=Count('pk', filter=Q(status=StatusChoices.SENDING)),
        suspect_deliveries=Count('pk', filter=Q(status__in=OPEN_STATUSES, lapses__gt=0)),
        failed=Count('pk', filter=Q(status=StatusChoices.FAILED)),
    )
    oldest = [moment for moment in (undispatched['oldest'], waiting_since(Delivery.objects.all())) if moment]
    workers = queue.count_workers()
    return Backlog(
        undispatched=undispatched['count'],
        suspect_events=undispatched['suspects'],
        oldest=min(oldest, default=None),
        suspended=Health.objects.filter(suspended_since__isnull=False).count(),
        workers=workers,
        redis=workers is not None,
        **deliveries,
    )


def waiting_since(deliveries: QuerySet[Delivery]) -> datetime | None:
    """Return since when the oldest of them that is not delivered yet waits.

    It is the one that expires first, which an index tells without a look at the others.
    """
    moments = [_since(deliveries.filter(status=status)) for status in OPEN_STATUSES]
    return min((moment for moment in moments if moment), default=None)


def _since(waiting: QuerySet[Delivery]) -> datetime | None:
    first = waiting.order_by('expires_at').only('created', 'expires_at', 'attempt_limit').first()
    if first is None:
        return None
    reopened = first.expires_at - timedelta(seconds=conf.get().expire_after)
    since = first.created if first.attempt_limit is None else max(first.created, reopened)
    # The event may have waited for a worker before. One that was replayed waits since then.
    at_dispatch = waiting.filter(created=since, event__dispatched_at=since)
    return at_dispatch.aggregate(oldest=Min('event__timestamp'))['oldest'] or since
