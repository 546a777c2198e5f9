"""The backlog in figures, read in a few queries: for `webhooks_status`, the metrics and the status pages."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Manager, Min, Q, QuerySet

from .. import conf
from ..choices import OPEN_STATUSES, StatusChoices
from ..models import Delivery, Event, Health, Webhook, Worker
from ..outbox import queue
from ..visibility import Reader


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


def measure(user: Reader | None = None) -> Backlog:
    """Return the backlog as it is now, of what the user may view if one is given. Does not raise for want of Redis."""
    undispatched = _visible(Event.objects, user).filter(dispatched_at=None)
    changes = undispatched.aggregate(
        count=Count('pk'), suspects=Count('pk', filter=Q(lapses__gt=0)), oldest=Min('timestamp')
    )
    log = _visible(Delivery.objects, user)
    deliveries = log.filter(status__in=(*OPEN_STATUSES, StatusChoices.FAILED)).aggregate(
        pending=Count('pk', filter=Q(status=StatusChoices.PENDING)),
        suspect_deliveries=Count('pk', filter=Q(status__in=OPEN_STATUSES, lapses__gt=0)),
        failed=Count('pk', filter=Q(status=StatusChoices.FAILED)),
    )
    oldest = [moment for moment in (changes['oldest'], waiting_since(log)) if moment]
    workers = queue.count_workers()
    return Backlog(
        undispatched=changes['count'],
        suspect_events=changes['suspects'],
        oldest=min(oldest, default=None),
        suspended=_suspended(user).count(),
        workers=workers,
        redis=workers is not None,
        sending=log.filter(pk__in=_in_hand()).count(),
        **deliveries,
    )


def _in_hand() -> list[int]:
    """Return the ids of the deliveries that workers have in hand."""
    return [pk for deliveries in Worker.objects.values_list('deliveries', flat=True) for pk in deliveries]


def _visible(manager: Manager, user: Reader | None) -> QuerySet:
    return manager.all() if user is None else manager.restrict(user, 'view')


def _suspended(user: Reader | None) -> QuerySet[Health]:
    # What is disabled is not probed: nobody waits for its endpoint.
    suspended = Health.objects.filter(suspended_since__isnull=False, webhook__enabled=True)
    return suspended if user is None else suspended.filter(webhook__in=Webhook.objects.restrict(user, 'view'))


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
