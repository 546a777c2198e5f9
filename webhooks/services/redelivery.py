"""Redeliveries, of chosen deliveries or of a range of time: under the same order and lease rules as everything else."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import batched

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Least
from django.utils import timezone
from django.utils.translation import ngettext

from ..choices import OPEN_STATUSES, StatusChoices
from ..engine import dispatch, event_rendering, expiry, locks, ordering
from ..engine.batching import Group
from ..exceptions import DeliveryFailed
from ..models import BatchItem, Delivery, Event, Webhook
from ..outbox import wakeup
from . import failed_jobs

# Deliveries that are redelivered in one transaction: meanwhile nothing is sent.
PART = 500


def redeliver(
    deliveries: QuerySet[Delivery], watch: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter
) -> int:
    """Redeliver closed deliveries, some at a time in the order of their sequence, and return how many.

    A failed one goes out under the same `webhook-id`, with one attempt more than it had. One that had been delivered
    becomes a new delivery with an id of its own, so that a receiver which deduplicates acts on it. `watch` is given
    the parts, and hands them on: for a progress bar.
    """
    # All ids first: what is made here is not to be redelivered by a later part.
    pks = deliveries.exclude(status__in=OPEN_STATUSES).order_by('sequence', 'pk').values_list('pk', flat=True)
    parts = list(batched(pks, PART))
    return sum(_redeliver(deliveries.filter(pk__in=part)) for part in watch(parts))


def _redeliver(deliveries: QuerySet[Delivery]) -> int:
    with locks.turn():
        failed = list(deliveries.filter(status=StatusChoices.FAILED).values_list('pk', 'uuid', 'listed'))
        listed = [str(found) for _pk, found, is_listed in failed if is_listed]
        _reopen([pk for pk, *_ in failed])
        groups = _groups(deliveries.filter(status=StatusChoices.DELIVERED))
        ordering.hold_back(dispatch.deliver(groups))
        if listed:
            transaction.on_commit(lambda: failed_jobs.unlist(listed), robust=True)
        transaction.on_commit(wakeup.wake, robust=True)
        return len(failed) + len(groups)


def _groups(delivered: QuerySet[Delivery]) -> list[Group]:
    """Return what each of them told of."""
    columns = ('pk', 'webhook_id', 'event_id', 'event_count')
    found = list(delivered.order_by('sequence', 'pk').values_list(*columns))
    batches = defaultdict(list)
    items = BatchItem.objects.filter(delivery__in=[pk for pk, _webhook, _event, count in found if count > 1])
    for pk, event_id in items.order_by('sequence').values_list('delivery_id', 'event_id'):
        batches[pk].append(event_id)
    return [Group(webhook_id, batches.get(pk, [event_id])) for pk, webhook_id, event_id, _count in found]


def _reopen(pks: list[int]) -> None:
    _render_again(pks)
    now = timezone.now()
    Delivery.objects.filter(pk__in=pks).update(
        status=StatusChoices.PENDING,
        due_at=now,
        expires_at=expiry.expiry(now),
        finished_at=None,
        error='',
        attempt_limit=F('attempt_count') + 1,
        # What has stopped workers is tried alone again.
        lapses=Least(F('lapses'), 1),
        listed=False,
    )
    ordering.rejoin(pks)


def _render_again(pks: list[int]) -> None:
    """What could not be rendered then may be now, by a later version of NetBox or of a plugin."""
    events = list(Event.objects.filter(deliveries__in=pks).exclude(error='').distinct())
    webhooks = Webhook.objects.filter(deliveries__event__in=events).distinct().in_bulk()
    wanted = Delivery.objects.filter(event__in=events).values_list('event_id', 'webhook_id')
    # Once rendered, an event has nothing left to make its snapshots of: those too whose turn comes later may want them.
    event_rendering.render(events, {event_id for event_id, webhook_id in wanted if webhooks[webhook_id].needs_before})


def select(
    webhook: Webhook | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    status: str | None = None,
    object_type: int | None = None,
) -> QuerySet[Delivery]:
    """Return the closed deliveries of events from `since` to before `until`; what is None does not narrow them."""
    filters = {
        'webhook': webhook,
        'event__timestamp__gte': since,
        'event__timestamp__lt': until,
        'status': status,
        'object_type': object_type,
    }
    return Delivery.objects.closed().filter(**{name: value for name, value in filters.items() if value is not None})


def replay(
    webhook: Webhook, since: datetime | None = None, until: datetime | None = None, status: str | None = None
) -> int:
    """Redeliver the webhook's closed deliveries of a time range, those of one status if given. Returns how many."""
    return redeliver(select(webhook, since, until, status))


def announce(count: int) -> str:
    """Say that so many deliveries are on their way."""
    return ngettext('%d delivery is being redelivered.', '%d deliveries are being redelivered.', count) % count


#
# The status page
#


def redeliver_failed(delivery_uuid: str) -> None:
    """Redeliver a failed delivery in its own job. Raises DeliveryFailed where it is gone."""
    with locks.turn():
        found = Delivery.objects.filter(uuid=delivery_uuid).first()
        if found is None:
            raise DeliveryFailed('the delivery is no longer in the log')
        if found.status == StatusChoices.FAILED:
            _reopen([found.pk])


def outcome(delivery_uuid: str) -> str:
    """Return what became of a delivery in words. Raises DeliveryFailed, with the reason, where it failed."""
    delivery = Delivery.objects.get(uuid=delivery_uuid)
    if delivery.status == StatusChoices.FAILED:
        raise DeliveryFailed(delivery.error)
    if delivery.status == StatusChoices.DELIVERED:
        return '1 delivered'
    return '1 to retry' if delivery.error else '1 waits its turn'
