"""Redeliveries, of chosen deliveries or of a range of time: under the same order and lease rules as everything else."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Least
from django.utils.translation import ngettext

from ..choices import OPEN_STATUSES, StatusChoices
from ..engine import dispatch, event_rendering, expiry, lanes, ordering, sql, superseding
from ..engine.batching import Group
from ..engine.lanes import PART
from ..exceptions import DeliveryFailed
from ..models import BatchItem, Delivery, Webhook, querysets
from ..outbox import wakeup
from . import failed_jobs

# What the receiver has not had goes out under its own id.
AS_ITSELF = (StatusChoices.FAILED, StatusChoices.SUPERSEDED)

# Whoever prunes an event locks it: it is left out, with its deliveries.
HOLD_EVENTS = """
    SELECT e.id FROM webhooks_event e WHERE e.id IN (
        SELECT event_id FROM webhooks_delivery WHERE id = ANY(%(ids)s)
        UNION ALL SELECT event_id FROM webhooks_batchitem WHERE delivery_id = ANY(%(ids)s)
    )
    FOR KEY SHARE SKIP LOCKED"""

# What was delivered is told again as it was. The receiver knows of it: what was created is not deleted unheard of.
TELL_AGAIN = """
    WITH v AS (
        SELECT * FROM unnest(%(olds)s::bigint[], %(news)s::bigint[]) AS v(old, new)
    ), told AS (
        SELECT v.new, d.event_id, d.span
        FROM v JOIN webhooks_delivery d ON d.id = v.old WHERE d.event_count = 1
        UNION ALL
        SELECT v.new, i.event_id, i.span
        FROM v JOIN webhooks_batchitem i ON i.delivery_id = v.old WHERE NOT i.superseded
    ), again AS MATERIALIZED (
        SELECT t.new, t.event_id, coalesce(t.span, '{}') || '{"seen": true}' AS span
        FROM told t JOIN webhooks_event e ON e.id = t.event_id WHERE t.span IS NOT NULL OR e.kind = 'created'
    ), single AS (
        UPDATE webhooks_delivery d SET span = a.span FROM again a WHERE d.id = a.new AND d.event_count = 1
    )
    UPDATE webhooks_batchitem i SET span = a.span
    FROM again a WHERE i.delivery_id = a.new AND i.event_id = a.event_id"""


def redeliver(
    deliveries: QuerySet[Delivery], watch: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter
) -> int:
    """Redeliver closed deliveries, some at a time in the order of their sequence, and return how many.

    A failed or superseded one goes out under the same `webhook-id`, with one attempt more than it had. One that had
    been delivered becomes a new delivery with an id of its own, so that a receiver which deduplicates acts on it.
    `watch` is given the parts, and hands them on: for a progress bar. Raises Busy where a lane is not free in time;
    what came before it is redelivered.
    """
    # All ids first: what is made here is not to be redelivered by a later part.
    closed = deliveries.exclude(status__in=OPEN_STATUSES).order_by('sequence', 'pk')
    of_webhook = defaultdict(list)
    for pk, event_count, webhook_id in closed.values_list('pk', 'event_count', 'webhook_id'):
        of_webhook[webhook_id].append((pk, event_count))
    parts = [part for _pk, found in sorted(of_webhook.items()) for part in superseding.portions(found, PART)]
    return sum(_redeliver(deliveries.filter(pk__in=part)) for part in watch(parts))


def _redeliver(deliveries: QuerySet[Delivery]) -> int:
    """Redeliver deliveries of one webhook."""
    _render_again(deliveries.filter(status__in=AS_ITSELF))
    webhook_id = deliveries.values_list('webhook_id', flat=True).first()
    if webhook_id is None:
        return 0
    with lanes.hold(webhook_id) as now:
        there = _hold(deliveries)
        unsent = list(there.filter(status__in=AS_ITSELF).values_list('pk', 'uuid', 'listed'))
        listed = [str(found) for _pk, found, is_listed in unsent if is_listed]
        groups = _groups(there.filter(status=StatusChoices.DELIVERED))
        _reopen([pk for pk, *_ in unsent], now)
        _tell_again(groups)
        if listed:
            transaction.on_commit(lambda: failed_jobs.unlist(listed), robust=True)
        transaction.on_commit(wakeup.wake, robust=True)
        return len(unsent) + len(groups)


def _tell_again(groups: dict[int, Group]) -> None:
    """Make new deliveries of what was delivered: {id of a delivery: what it told of}."""
    made = dispatch.make_deliveries(list(groups.values()))
    if made:
        sql.execute(TELL_AGAIN, {'olds': list(groups), 'news': [pk for pk, _group in made]})


def _hold(deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Hold the events of deliveries against pruning, and return those whose events are all held."""
    pks = list(deliveries.values_list('pk', flat=True))
    held = sql.fetch_column(HOLD_EVENTS, {'ids': pks})
    lost = BatchItem.objects.filter(delivery__in=pks).exclude(event__in=held).values('delivery')
    return deliveries.filter(pk__in=pks, event__in=held).exclude(pk__in=lost)


def _groups(delivered: QuerySet[Delivery]) -> dict[int, Group]:
    """Return {id: what it told of} of each of them."""
    columns = ('pk', 'webhook_id', 'event_id', 'event_count')
    found = list(delivered.order_by('sequence', 'pk').values_list(*columns))
    batches = defaultdict(list)
    of_batches = [pk for pk, _webhook, _event, count in found if count > 1]
    items = BatchItem.objects.filter(delivery__in=of_batches, superseded=False)
    for pk, event_id in items.order_by('sequence').values_list('delivery_id', 'event_id'):
        batches[pk].append(event_id)
    return {pk: Group(webhook_id, batches.get(pk, [event_id])) for pk, webhook_id, event_id, _count in found}


def _reopen(pks: list[int], now: datetime) -> None:
    """Open deliveries again. The caller holds their lane."""
    superseded = BatchItem.objects.filter(delivery__in=pks, delivery__status=StatusChoices.SUPERSEDED)
    superseded.update(superseded=False)
    Delivery.objects.filter(pk__in=pks, status__in=AS_ITSELF).update(
        status=StatusChoices.PENDING,
        due_at=now,
        overtake_at=None,
        expires_at=expiry.expiry(now),
        finished_at=None,
        error='',
        attempt_limit=F('attempt_count') + 1,
        # What has stopped workers is tried alone again.
        lapses=Least(F('lapses'), 1),
        # Somebody has asked for it: it is no part of a backfill any more.
        backfill=False,
        listed=False,
    )
    ordering.open_batches(pks)


def _render_again(unsent: QuerySet[Delivery]) -> None:
    """What could not be rendered then may be now, by a later version of NetBox or of a plugin. Holds no lane."""
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
        event.dispatch_count = 0  # also what was given up
    event_rendering.render_again(events, asked, keys)


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
    _redeliver(found.filter(status=StatusChoices.FAILED))


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
