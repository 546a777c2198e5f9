"""Figures about the backlog, read in a few queries: for `webhooks_status`, the metrics and the dashboard."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min, Q

from . import queue
from .choices import OPEN_STATUSES, StatusChoices
from .models import Delivery, Event, Health


@dataclass(frozen=True)
class Backlog:
    """`oldest` is the time of the oldest event that is not delivered yet; `workers` is None without Redis."""

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
        oldest=Min('created', filter=Q(status__in=OPEN_STATUSES)),
    )
    oldest = [moment for moment in (undispatched['oldest'], deliveries.pop('oldest')) if moment]
    workers = queue.count_workers()
    return Backlog(
        undispatched=undispatched['count'],
        oldest=min(oldest, default=None),
        suspended=Health.objects.filter(suspended_since__isnull=False).count(),
        workers=workers,
        redis=workers is not None,
        **deliveries,
    )
