"""A test event, sent at once: of the newest object that a webhook is subscribed to."""

import copy
import dataclasses
import json
import time
import uuid
from contextlib import closing, suppress
from datetime import datetime

from django.contrib import messages
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from django.utils import timezone
from django.utils.translation import gettext as _

from ..choices import StatusChoices
from ..engine import claims, event_rendering, expiry, lanes, outcomes, sql
from ..engine.claimed import Claimed, prepare
from ..engine.lanes import Busy
from ..engine.ledger import Ledger
from ..exceptions import DefinitionError
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
# How often the lane is waited for once there is an answer, 5 seconds each (engine/lanes.py). PostgreSQL ends the
# transaction of a worker that holds it for longer.
TRIES = 4
# The advisory lock under which they are counted.
COUNTING = 0x7765626A


def send_test(webhook: Webhook, user: Model | None = None) -> Delivery:
    """Send a test event now, of the newest object that the webhook is subscribed to, and return its closed delivery.

    It is marked as a test, jumps the line and is tried once, whether the webhook is enabled or not. It waits LONGEST
    for an answer. Raises DefinitionError where there is no object to show, and Busy where others are being tested or
    somebody else holds the locks.
    """
    lease = uuid.uuid4()
    tried = copy.copy(webhook)
    tried.timeout = min(webhook.effective_timeout, LONGEST)
    delivery = _make_test(tried, user, lease)
    sent = prepare(delivery, Builder(tried), time.time())
    if sent.request:
        with closing(Client(1)) as client:
            sent.outcome = _explain(client.send(sent.request), webhook)
    _record(lease, sent)
    delivery.refresh_from_db()
    return delivery


def _record(lease: uuid.UUID, sent: Claimed) -> None:
    """Record what came of a test. It is known only here: a busy lane is asked for again, until its holder must be gone.

    Raises Busy, which tells the outcome, if even that does not help.
    """
    for _try in range(TRIES):
        with suppress(Busy):
            return _record_once(lease, sent)
    told = sent.outcome.error or f'HTTP {sent.outcome.status}'
    text = _('A worker is busy with this webhook, so the outcome of the test is not recorded: {outcome}')
    raise Busy(text.format(outcome=told))


def _record_once(lease: uuid.UUID, sent: Claimed) -> None:
    # Whoever sends a test sees what comes of it.
    ledger, webhook_id = Ledger(tells_failures=False), sent.delivery.webhook_id
    with lanes.hold(webhook_id) as now:
        outcomes.record(lease, [outcomes.judge(sent, now)], ledger, (), now)
        ledger.flush(now, [webhook_id], force=True)


def announce(delivery: Delivery) -> tuple[int, str]:
    """Say what came of a test, as a level and a text of Django's messages."""
    if delivery.error:
        return messages.ERROR, _('The test of {webhook} failed: {error}').format(
            webhook=delivery.webhook, error=delivery.error
        )
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
    lanes.set_lock_timeout(lanes.WAIT)
    with lanes.or_busy(_('Others are being tested: try again in some seconds.')):
        sql.fetch('SELECT pg_advisory_xact_lock(%s)', [COUNTING])
    under_way = Delivery.objects.filter(event__test=True, status=StatusChoices.SENDING, lease_until__gt=now)
    testing = list(under_way.values_list('webhook', flat=True))
    if webhook.pk in testing:
        raise Busy(_('A test of this webhook is under way: wait for its answer.'))
    if len(testing) >= MOST:
        raise Busy(_('Others are being tested: try again in some seconds.'))


@transaction.atomic
def _make_test(webhook: Webhook, user: Model | None, lease: uuid.UUID) -> Delivery:
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
    asked = {event.pk} if webhook.needs_before else set()
    event_rendering.render_again([event], asked, {event.pk: webhook.expand})
    event.refresh_from_db()
    return event
