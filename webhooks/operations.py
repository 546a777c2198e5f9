"""What people do with deliveries: redeliver, replay, test. Under the same order and lease rules as everything else."""

import json
import time
import uuid
from datetime import datetime

from django.db import transaction
from django.db.models import F, Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from . import delivery as engine
from . import dispatch, line, queue, snapshots, status
from .batches import Group
from .choices import StatusChoices
from .exceptions import DefinitionError, DeliveryFailed
from .health import Ledger
from .models import Delivery, Event, Webhook
from .models.sequence import draw
from .transport import Client


def redeliver(deliveries: QuerySet[Delivery]) -> int:
    """Send closed deliveries again, and return how many.

    A failed one goes out under the same `webhook-id`, with one attempt more than it had. One that had been delivered
    becomes a new delivery with an id of its own, so that a receiver which deduplicates acts on it.
    """
    with engine.turn():
        failed = list(deliveries.filter(status=StatusChoices.FAILED).values_list('pk', 'uuid'))
        delivered = list(deliveries.filter(status=StatusChoices.DELIVERED).select_related('event').order_by('sequence'))
        _reopen([pk for pk, _uuid in failed])
        dispatch.deliver([Group(one.webhook_id, [event.pk for event in one.events()]) for one in delivered])
        transaction.on_commit(lambda: status.unlist(str(uuid) for _pk, uuid in failed), robust=True)
        transaction.on_commit(queue.wake, robust=True)
    return len(failed) + len(delivered)


def _reopen(pks: list[int]) -> None:
    # What could not be rendered then may be now, by a later version of NetBox or of a plugin.
    dispatch.render(list(Event.objects.filter(deliveries__in=pks).exclude(error='').distinct()), frozenset())
    now = timezone.now()
    Delivery.objects.filter(pk__in=pks).update(
        status=StatusChoices.PENDING,
        due_at=now,
        expires_at=engine.expiry(now),
        finished_at=None,
        error='',
        attempt_limit=F('attempt_count') + 1,
        listed=False,
    )
    line.rejoin(pks)


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
    with engine.turn():
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
    sent = engine.prepare([delivery], {webhook.pk: webhook}, time.time())[0]
    if sent.request:
        client = Client(1)
        try:
            sent.outcome = client.send(sent.request)
        finally:
            client.close()
    ledger = Ledger()
    with engine.turn():
        engine.record(lease, [sent], ledger)
        ledger.flush(timezone.now(), force=True)
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
        expires_at=engine.expiry(now),
        attempt_limit=1,
        lease=lease,
        lease_until=engine.lease_end(webhook, now),
    )


def _test_event(webhook: Webhook, user: Model | None) -> Event:
    for object_type in webhook.object_types.order_by('pk'):
        model = object_type.model_class()
        newest = model._base_manager.order_by('-pk').values_list('pk', flat=True).first() if model else None
        if newest is not None:
            return _save_test_event(object_type, model, newest, webhook, user)
    raise DefinitionError('object_types', _('There is no object of these types to test with: create one first.'))


def _save_test_event(object_type, model: type[Model], pk: int, webhook: Webhook, user: Model | None) -> Event:
    event = Event(
        sequence=draw(),
        kind=webhook.kinds[0],
        object_type=object_type,
        object_id=pk,
        timestamp=timezone.now(),
        username=user.username if user else None,
        snapshot=json.loads(snapshots.take(model, [pk])[pk]),
        test=True,
        transaction_id=0,
        transaction_time=timezone.now(),
        dispatched_at=timezone.now(),
    )
    event.save()
    dispatch.render([event], {event.pk} if webhook.needs_before else frozenset())
    event.refresh_from_db()
    return event
