"""A test event, sent at once: of the newest object that a webhook is subscribed to."""

import copy
import dataclasses
import json
from contextlib import closing
from datetime import datetime, timedelta

from django.contrib import messages
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, transaction
from django.db.models import Model
from django.utils import timezone
from django.utils.translation import gettext as _

from ..choices import StatusChoices
from ..engine import sql, transactions
from ..engine.deliver import endpoint, feed, order, record
from ..engine.deliver.build import Sent
from ..engine.dispatch import render
from ..exceptions import Busy, DefinitionError
from ..models import Delivery, Event, Webhook
from ..models.sequence import draw
from ..outbox import snapshots
from ..payload.http_request import Builder
from ..transport.client import Client
from ..transport.exchange import Outcome

# Seconds. Somebody waits for the answer, and a thread of NetBox with them.
LONGEST = 10
# Tests under way at the same time, of all webhooks: each holds a thread of NetBox.
MOST = 4
# Seconds after which a test whose process has stopped is one no more.
GONE = 60
# Milliseconds to wait for others who begin a test.
WAIT = 5_000
# The advisory lock under which they are counted.
COUNTING = 0x7765626A


def send_test(webhook: Webhook, user: Model | None = None) -> Delivery:
    """Send a test event now, of the newest object that the webhook is subscribed to, and return its closed delivery.

    It is marked as a test, jumps the line and is tried once, whether the webhook is enabled or not. It waits LONGEST
    for an answer. Raises DefinitionError where there is no object to show, and Busy where others are being tested or
    somebody else holds the locks.
    """
    tried = copy.copy(webhook)
    tried.timeout = min(webhook.effective_timeout, LONGEST)
    delivery = _make_test(tried, user)
    sent = Sent(delivery, Builder(tried))
    is_built = sent.build()
    if is_built and webhook.is_feed:
        _publish(delivery)
        delivery.refresh_from_db()
        return delivery
    if is_built:
        with closing(Client(1)) as client:
            sent.outcome = _explain(client.send(sent.request), webhook)
    _record(sent)
    delivery.refresh_from_db()
    return delivery


def _publish(delivery: Delivery) -> None:
    with transactions.short() as now:
        if not order.lock([delivery.webhook_id]):
            raise Busy(_('A worker publishes changes just now: try again in some seconds.'))
        endpoint.write(feed.publish_at_once([delivery.pk], now), now, tells_failures=False)


def _record(sent: Sent) -> None:
    # Whoever sends a test sees what comes of it.
    with transactions.short() as now:
        endpoint.write(record.record([record.judge(sent, now)], now), now, tells_failures=False)


def announce(delivery: Delivery) -> tuple[int, str]:
    """Say what came of a test, as a level and a text of Django's messages."""
    if delivery.error:
        return messages.ERROR, _('The test of {webhook} failed: {error}').format(
            webhook=delivery.webhook, error=delivery.error
        )
    if delivery.position:
        return messages.SUCCESS, _('The test of {webhook} is in its feed.').format(webhook=delivery.webhook)
    return messages.SUCCESS, _('The test of {webhook} was answered with HTTP {status}.').format(
        webhook=delivery.webhook, status=delivery.response_status
    )


def _explain(outcome: Outcome, webhook: Webhook) -> Outcome:
    """An endpoint that may take longer than a test waits is not out of reach."""
    if not outcome.unreachable or outcome.duration < LONGEST or webhook.effective_timeout <= LONGEST:
        return outcome
    error = _('{error}: a test waits no longer, a delivery {timeout} seconds').format(
        error=outcome.error, timeout=webhook.effective_timeout
    )
    return dataclasses.replace(outcome, error=error, unreachable=False)


def _check_room(webhook: Webhook, now: datetime) -> None:
    """Raise Busy where the webhook is being tested, or as many are as may hold threads.

    From here to the commit, one at a time.
    """
    transactions.set_lock_timeout(WAIT)
    try:
        sql.fetch('SELECT pg_advisory_xact_lock(%s)', [COUNTING])
    except OperationalError as error:
        if not transactions.is_lock_timeout(error):
            raise
        raise Busy(_('Others are being tested: try again in some seconds.')) from error
    under_way = Delivery.objects.filter(event__test=True, status=StatusChoices.SENDING, expires_at__gt=now)
    testing = list(under_way.values_list('webhook', flat=True))
    if webhook.pk in testing:
        raise Busy(_('A test of this webhook is under way: wait for its answer.'))
    if len(testing) >= MOST:
        raise Busy(_('Others are being tested: try again in some seconds.'))


@transaction.atomic
def _make_test(webhook: Webhook, user: Model | None) -> Delivery:
    event = _test_event(webhook, user)
    now = timezone.now()
    _check_room(webhook, now)
    return Delivery.objects.create(
        webhook=webhook,
        event=event,
        object_type=event.object_type,
        object_id=event.object_id,
        sequence=event.sequence,
        expanded=bool(webhook.expand),
        status=StatusChoices.SENDING,
        created=now,
        expires_at=now + timedelta(seconds=LONGEST + GONE),
        attempt_limit=1,
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
    asked = {event.pk} if webhook.needs_before else set()
    render.render_again([event], asked, {event.pk: webhook.expand})
    event.refresh_from_db()
    return event
