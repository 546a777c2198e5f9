"""Figures about the backlog, read in a few queries: for `webhooks_status`, the metrics and the dashboard."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, Min, Q, QuerySet

from . import conf, queue
from .choices import OPEN_STATUSES, StatusChoices
from .models import Delivery, Event, Health


@dataclass(frozen=True)
class Backlog:
    """`oldest` is since when the oldest that is not delivered yet waits; `workers` is None without Redis."""

    undispatched: int
    pending: int
    sending: int
    failed: int
    oldest: datetime | None
    suspended: int
    workers: int | None
    redis: bool


def backlog() -> Backlog:
    undispatched = Event.objects.filter(dispatched_at=None).aggregate(count=Count('pk'), oldest=Min('timestamp'))
    deliveries = Delivery.objects.filter(status__in=(*OPEN_STATUSES, StatusChoices.FAILED)).aggregate(
        pending=Count('pk', filter=Q(status=StatusChoices.PENDING)),
        sending=Count('pk', filter=Q(status=StatusChoices.SENDING)),
        failed=Count('pk', filter=Q(status=StatusChoices.FAILED)),
    )
    oldest = [moment for moment in (undispatched['oldest'], waiting_since(Delivery.objects.all())) if moment]
    workers = queue.count_workers()
    return Backlog(
        undispatched=undispatched['count'],
        oldest=min(oldest, default=None),
        suspended=Health.objects.filter(suspended_since__isnull=False).count(),
        workers=workers,
        redis=workers is not None,
        **deliveries,
    )


def waiting_since(deliveries: QuerySet[Delivery]) -> datetime | None:
    """Return since when the oldest of them that is not delivered yet waits."""
    waiting = deliveries.filter(status__in=OPEN_STATUSES)
    found = waiting.aggregate(
        made=Min('created', filter=Q(attempt_limit=None)),
        expires=Min('expires_at', filter=Q(attempt_limit__isnull=False)),
    )
    since = _since_change(waiting, found['made']), _since_reopening(found['expires'])
    return min((moment for moment in since if moment), default=None)


def _since_change(waiting: QuerySet[Delivery], made: datetime | None) -> datetime | None:
    """Return when the event was recorded whose delivery was made then: it may have waited for a worker.

    One that was made by a replay waits since it was made.
    """
    at_dispatch = waiting.filter(created=made, event__dispatched_at=F('created'))
    return at_dispatch.aggregate(oldest=Min('event__timestamp'))['oldest'] or made


def _since_reopening(expires: datetime | None) -> datetime | None:
    """Return when the delivery was opened again that expires then."""
    return expires and expires - timedelta(seconds=conf.get().expire_after)
