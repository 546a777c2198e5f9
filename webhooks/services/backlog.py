"""Counts the backlog: all that is recorded and not sent yet, for monitoring and for the pages."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from core.models import ObjectChange
from django.db.models import Count, Manager, Min, Q, QuerySet
from django.db.models.functions import Now

from .. import conf
from ..choices import BackfillStateChoices
from ..delivery_states import WAITING_STATES, DeliveryState
from ..models import Backfill, Delivery, Event, Webhook, Worker
from ..outbox import redis_queue
from ..presentation.states import GONE, IS_HELD
from ..visibility import Reader
from . import not_sending
from .not_sending import NotSending


@dataclass(frozen=True)
class Unsent:
    """The figures of recorded changes that are not sent yet.

    `undispatched` counts events, `pending` deliveries, undecided ones too; both include suspects. `oldest`: since when
    the oldest unsent change waits, not counting paused ones.
    """

    undispatched: int
    suspect_events: int
    pending: int
    suspect_deliveries: int
    oldest: datetime | None


@dataclass(frozen=True)
class Backlog(Unsent):
    """The figures of the backlog. Without Redis, `workers` is None and `redis` False.

    `failed` leaves out tests. `gone` counts webhooks that an answer 410 has disabled.
    """

    sending: int
    failed: int
    suspended: list[NotSending]
    paused: list[NotSending]
    gone: int
    workers: int | None
    redis: bool


def measure(user: Reader | None = None) -> Backlog:
    """Count the backlog: the part that the user may view, or all of it. Does not raise without Redis."""
    log = _visible(Delivery.objects, user)
    webhooks = _visible(Webhook.objects, user)
    workers = redis_queue.count_workers()
    return Backlog(
        **vars(unsent(_visible(Event.objects, user), log)),
        failed=log.failures().count(),
        suspended=not_sending.suspended(webhooks),
        paused=not_sending.paused(webhooks, _visible(ObjectChange.objects, user)),
        gone=webhooks.filter(GONE.query).count(),
        workers=workers,
        redis=workers is not None,
        sending=log.filter(pk__in=_in_hand()).count(),
    )


def unsent(events: QuerySet[Event], deliveries: QuerySet[Delivery]) -> Unsent:
    """Count which of these events and deliveries are not sent yet."""
    undispatched = events.filter(dispatched_at=None).aggregate(
        undispatched=Count('pk'), suspect_events=Count('pk', filter=Q(lapses__gt=0)), oldest=Min('timestamp')
    )
    pending = deliveries.filter(state__in=WAITING_STATES).aggregate(
        pending=Count('pk'), suspect_deliveries=Count('pk', filter=Q(state=DeliveryState.SUSPECT))
    )
    moments = (undispatched.pop('oldest'), waiting_since(not_held(deliveries)))
    return Unsent(**undispatched, **pending, oldest=min(filter(None, moments), default=None))


def _in_hand() -> list[int]:
    return [pk for deliveries in Worker.objects.values_list('deliveries', flat=True) for pk in deliveries]


def _visible(manager: Manager, user: Reader | None) -> QuerySet:
    return manager.all() if user is None else manager.restrict(user, 'view')


def not_held(deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Leave out deliveries that people hold up: their webhook is paused or disabled, or their backfill is paused."""
    webhooks = list(Webhook.objects.filter(IS_HELD).values_list('pk', flat=True))
    backfills = list(Backfill.objects.filter(state=BackfillStateChoices.PAUSED).values_list('pk', flat=True))
    return deliveries.exclude(webhook__in=webhooks).exclude(webhook__in=backfills, backfill=True)


def waiting_since(deliveries: QuerySet[Delivery]) -> datetime | None:
    """Return since when the oldest of `deliveries` waits, pending or undecided. None: nothing waits.

    The first to expire counts as the oldest, because an index finds it. The wait begins with its event, or with a
    redelivery. A delivery that waits until its object is quiet is not late, and does not count.
    """
    deliveries = deliveries.filter(state__in=WAITING_STATES).exclude(state=DeliveryState.RESTING, waits_until__gt=Now())
    first = deliveries.order_by('expires_at').only('created', 'expires_at', 'attempt_limit').first()
    if first is None:
        return None
    reopened = first.expires_at - timedelta(seconds=conf.get().expire_after)
    since = first.created if first.attempt_limit is None else max(first.created, reopened)
    # The event may have waited for dispatch. A redelivery waits since it was asked for.
    alike = deliveries.filter(expires_at=first.expires_at, created=since)
    at_dispatch = alike.filter(event__dispatched_at=since)
    return at_dispatch.aggregate(oldest=Min('event__timestamp'))['oldest'] or since
