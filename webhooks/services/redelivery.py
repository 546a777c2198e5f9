"""Redeliveries, of chosen deliveries or of a range of time: under the same rules of order as everything else."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import batched

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Least
from django.utils.translation import ngettext

from .. import conf
from ..choices import OPEN_STATUSES, StatusChoices
from ..engine import sql
from ..engine.dispatch import render
from ..engine.dispatch.loop import make_deliveries
from ..engine.registry import COMPANY
from ..exceptions import DeliveryFailed
from ..models import Delivery, Webhook, querysets
from ..outbox import wakeup
from . import failed_jobs

# What the receiver has not had goes out under its own id.
AS_ITSELF = (StatusChoices.FAILED, StatusChoices.SUPERSEDED)
# Deliveries of one transaction.
PART = 500

# Whoever prunes an event locks it: it is left out, with its deliveries.
HOLD_EVENTS = """
    SELECT e.id FROM webhooks_event e WHERE e.id IN (SELECT event_id FROM webhooks_delivery WHERE id = ANY(%(ids)s))
    FOR KEY SHARE SKIP LOCKED"""

# What was delivered is told again as it was. The receiver knows of it: what was created is not deleted unheard of.
TELL_AGAIN = """
    UPDATE webhooks_delivery n SET span = coalesce(d.span, '{}') || '{"seen": true}'
    FROM unnest(%(olds)s::bigint[], %(news)s::bigint[]) AS v(old, new)
    JOIN webhooks_delivery d ON d.id = v.old JOIN webhooks_event e ON e.id = d.event_id
    WHERE n.id = v.new AND (d.span IS NOT NULL OR e.kind = 'created')"""


def redeliver(
    deliveries: QuerySet[Delivery], watch: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter
) -> int:
    """Redeliver closed deliveries, some at a time in the order of their sequence, and return how many.

    A failed or superseded one goes out under the same `webhook-id`, with one attempt more than it had, and with all
    that went out in its request. One that had been delivered becomes a new delivery with an id of its own, so that a
    receiver which deduplicates acts on it. `watch` is given the parts, and hands them on: for a progress bar.
    """
    # All ids first: what is made here is not to be redelivered by a later part.
    closed = deliveries.exclude(status__in=OPEN_STATUSES)
    batches = closed.filter(batch__isnull=False, status__in=AS_ITSELF).values('batch')
    with_others = Delivery.objects.filter(Q(pk__in=closed.values('pk')) | Q(batch__in=batches, status__in=AS_ITSELF))
    found = list(with_others.order_by('sequence', 'pk').values_list('pk', 'status'))
    delivered = {pk for pk, status in found if status == StatusChoices.DELIVERED}
    parts = list(batched([pk for pk, _status in found], PART))
    return sum(_redeliver(part, delivered.intersection(part)) for part in watch(parts))


def _redeliver(part: Sequence[int], delivered: Collection[int]) -> int:
    """What failed, and was delivered meanwhile since somebody else was quicker, is not among the `delivered`."""
    deliveries = Delivery.objects.filter(pk__in=part)
    _render_again(deliveries.filter(status__in=AS_ITSELF))
    with transaction.atomic():
        there = _hold(deliveries)
        unsent = list(there.filter(status__in=AS_ITSELF).values_list('pk', 'uuid', 'listed'))
        listed = [str(found) for _pk, found, is_listed in unsent if is_listed]
        reopened = _reopen([pk for pk, *_ in unsent])
        told = _tell_again(there.filter(status=StatusChoices.DELIVERED, pk__in=delivered))
        if listed:
            transaction.on_commit(lambda: failed_jobs.unlist(listed), robust=True)
        transaction.on_commit(wakeup.wake, robust=True)
        return reopened + told


def _tell_again(delivered: QuerySet[Delivery]) -> int:
    """Make new deliveries of what was delivered. Returns how many."""
    found = list(delivered.order_by('sequence', 'pk').values_list('pk', 'webhook_id', 'event_id'))
    olds = {(webhook_id, event_id): pk for pk, webhook_id, event_id in found}
    made = make_deliveries([(webhook_id, event_id) for _pk, webhook_id, event_id in found])
    news = [pk for pk, *_ in made]
    sql.execute(TELL_AGAIN, {'olds': [olds[webhook_id, event_id] for _pk, webhook_id, event_id in made], 'news': news})
    return len(made)


def _hold(deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Hold the events of deliveries against pruning, and return those whose events are held."""
    pks = list(deliveries.values_list('pk', flat=True))
    return deliveries.filter(event__in=sql.fetch_column(HOLD_EVENTS, {'ids': pks}))


def _reopen(pks: Sequence[int]) -> int:
    """Open deliveries again, and return how many."""
    now = sql.fetch_value('SELECT clock_timestamp()')
    return Delivery.objects.filter(pk__in=pks, status__in=AS_ITSELF).update(
        status=StatusChoices.PENDING,
        due_at=now,
        expires_at=now + timedelta(seconds=conf.get().expire_after),
        finished_at=None,
        error='',
        attempt_limit=F('attempt_count') + 1,
        # What has stopped workers is tried alone again.
        lapses=Least(F('lapses'), COMPANY + 1),
        # Somebody has asked for it: it is no part of a backfill any more.
        backfill=False,
        listed=False,
    )


def _render_again(unsent: QuerySet[Delivery]) -> None:
    """What could not be rendered then may be now, by a later version of NetBox or of a plugin."""
    pks = set(unsent.exclude(event__error='').values_list('event_id', flat=True))
    events = list(querysets.events().filter(pk__in=pks)) if pks else []
    webhooks = Webhook.objects.filter(deliveries__event__in=events).distinct().in_bulk()
    wanted = Delivery.objects.filter(event__in=events).values_list('event_id', 'webhook_id')
    # Once rendered, an event has nothing left to make its snapshots of: those too whose turn comes later may want them.
    asked = {event_id for event_id, webhook_id in wanted if webhooks[webhook_id].needs_before}
    keys = defaultdict(set)
    for event_id, webhook_id in wanted:
        keys[event_id].update(webhooks[webhook_id].expand)
    for event in events:
        event.lapses = 0  # also what was given up
    render.render_again(events, asked, keys)


def select(
    webhook: Webhook | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    status: str | None = None,
    object_type: int | None = None,
) -> QuerySet[Delivery]:
    """Return the closed deliveries of events from `since` to before `until`, both with a time zone.

    `status` is a value of StatusChoices, `object_type` the id of a content type. What is None does not narrow them, but
    that superseded ones have to be asked for: a later one has told the receiver.
    """
    closed = Delivery.objects.closed()
    if status is None:
        closed = closed.exclude(status=StatusChoices.SUPERSEDED)
    filters = {
        'webhook': webhook,
        'event__timestamp__gte': since,
        'event__timestamp__lt': until,
        'status': status,
        'object_type': object_type,
    }
    return closed.filter(**{name: value for name, value in filters.items() if value is not None})


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
    found = Delivery.objects.filter(uuid=delivery_uuid)
    if not found.exists():
        raise DeliveryFailed('the delivery is no longer in the log')
    redeliver(found.filter(status=StatusChoices.FAILED))


def outcome(delivery_uuid: str) -> str:
    """Return what became of a delivery in words.

    Raises DeliveryFailed, with the reason, where it failed, and Delivery.DoesNotExist where it is gone.
    """
    delivery = Delivery.objects.get(uuid=delivery_uuid)
    if delivery.status == StatusChoices.FAILED:
        raise DeliveryFailed(delivery.error)
    if delivery.status == StatusChoices.DELIVERED:
        return '1 delivered'
    if delivery.status == StatusChoices.SUPERSEDED:
        return '1 superseded'
    return '1 to retry' if delivery.error else '1 waits its turn'
