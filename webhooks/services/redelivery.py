"""What people do with deliveries: redeliver, replay, test. Under the same order and lease rules as everything else."""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import batched

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import F, Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from ..choices import OPEN_STATUSES, StatusChoices
from ..engine import claims, dispatch, event_rendering, expiry, locks, ordering, outcomes
from ..engine.batching import Group
from ..engine.claimed import prepare
from ..engine.ledger import Ledger
from ..exceptions import DefinitionError, DeliveryFailed
from ..models import BatchItem, Delivery, Event, Webhook
from ..models.sequence import draw
from ..outbox import snapshots, wakeup
from ..transport.client import Client
from . import failed_jobs as status_page

# Deliveries that are sent again in one transaction: meanwhile nothing is sent.
PART = 500


def redeliver(
    deliveries: QuerySet[Delivery], watch: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter
) -> int:
    """Send closed deliveries again, some at a time in the order of their sequence, and return how many.

    A failed one goes out under the same `webhook-id`, with one attempt more than it had. One that had been delivered
    becomes a new delivery with an id of its own, so that a receiver which deduplicates acts on it. `watch` is given
    the parts, and hands them on: for a progress bar.
    """
    # All ids first: what is made here is not to be sent again by a later part.
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
            transaction.on_commit(lambda: status_page.unlist(listed), robust=True)
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
    """Send the webhook's closed deliveries of a time range again, those of one status if given. Returns how many."""
    return redeliver(select(webhook, since, until, status))


#
# The status page
#


def requeue(delivery_uuid: str) -> None:
    """Open a failed delivery again for the job that requeueing started. Raises DeliveryFailed where it is gone."""
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


#
# Test
#


def send_test(webhook: Webhook, user: Model | None = None) -> Delivery:
    """Send a test event now, of the newest object that the webhook is subscribed to, and return its closed delivery.

    It is marked as a test, jumps the line and is tried once, whether the webhook is enabled or not. Raises
    DefinitionError where there is no object to show.
    """
    lease = uuid.uuid4()
    delivery = _make_test(webhook, user, lease)
    sent = prepare(delivery, webhook, time.time())
    if sent.request:
        client = Client(1)
        try:
            sent.outcome = client.send(sent.request)
        finally:
            client.close()
    # Whoever sends a test sees what comes of it.
    ledger = Ledger(tells_failures=False)
    with locks.turn() as now:
        outcomes.record(lease, [sent], ledger, now)
        ledger.flush(now, force=True)
    delivery.refresh_from_db()
    return delivery


@transaction.atomic
def _make_test(webhook: Webhook, user: Model | None, lease: uuid.UUID) -> Delivery:
    event = _test_event(webhook, user)
    now = timezone.now()
    return Delivery.objects.create(
        webhook=webhook,
        event=event,
        object_type=event.object_type,
        object_id=event.object_id,
        sequence=event.sequence,
        status=StatusChoices.SENDING,
        created=now,
        expires_at=expiry.expiry(now),
        attempt_limit=1,
        lease=lease,
        lease_until=claims.lease_end(webhook, now),
    )


def _test_event(webhook: Webhook, user: Model | None) -> Event:
    for object_type in webhook.object_types.order_by('pk'):
        model = object_type.model_class()
        newest = model._base_manager.order_by('-pk').values_list('pk', flat=True).first() if model else None
        # It may be deleted meanwhile.
        snapshot = None if newest is None else snapshots.take(model, [newest]).get(newest)
        if snapshot is not None:
            return _save_test_event(object_type, newest, snapshot, webhook, user)
    raise DefinitionError('object_types', _('There is no object of these types to test with: create one first.'))


def _save_test_event(object_type: ContentType, pk: int, snapshot: str, webhook: Webhook, user: Model | None) -> Event:
    event = Event(
        sequence=draw(),
        kind=webhook.kinds[0],
        object_type=object_type,
        object_id=pk,
        timestamp=timezone.now(),
        username=user.username if user else None,
        snapshot=json.loads(snapshot),
        test=True,
        transaction_id=0,
        transaction_time=timezone.now(),
        dispatched_at=timezone.now(),
    )
    event.save()
    event_rendering.render([event], {event.pk} if webhook.needs_before else frozenset())
    event.refresh_from_db()
    return event
