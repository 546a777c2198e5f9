"""Sends a test event at once, in the process of the user who asks."""

import copy
import dataclasses
import json
import time
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from users.models import User

from .. import object_types
from ..choices import PING_KIND
from ..delivery_states import DeliveryState
from ..engine import commands, sql
from ..engine.deliver.build import Call
from ..exceptions import Busy
from ..models import Delivery, Event, Webhook
from ..models.sequence import draw
from ..outbox import snapshots
from ..payload.http_request import Builder
from ..transport.client import Client
from ..transport.exchange import Outcome
from . import switching

# A test's request ends after this time: a person and a thread of NetBox wait for it.
MAX_TEST_SECONDS = 10
# At a time, in all processes: each test holds a thread of NetBox.
MAX_TESTS = 4
TOO_MANY_TESTS = gettext_lazy('Too many tests are running at the moment. Try again in a few seconds.')
# Beyond MAX_TEST_SECONDS. A test that is older has lost its process, and no longer counts as running.
LOST_AFTER_SECONDS = 60
# How long a test waits for others to be counted.
LOCK_TIMEOUT_MS = 5_000
# The advisory lock under which running tests are counted: "webj" in ASCII.
TEST_LOCK = 0x7765626A
# Wait for the advisory lock, and hold it until the transaction ends.
LOCK_TESTS = 'SELECT pg_advisory_xact_lock(%s)'


def send_test(webhook: Webhook, user: User | None = None) -> Delivery:
    """Send a test event, or a ping if there is no object. Return its delivery as the user may see it.

    The object is the newest of the first of the webhook's types that has any. The log has it like any other delivery. A
    feed's test is only published. A disabled webhook is tested too. There is one attempt, of MAX_TEST_SECONDS at most.
    Raises Busy if too many tests run, or one of this webhook.
    """
    tried = copy.copy(webhook)
    tried.timeout = min(webhook.effective_timeout, MAX_TEST_SECONDS)
    delivery, builder = _make_test(tried, user), Builder(tried)
    call = Call(delivery, builder) if webhook.is_feed else _call(delivery, builder, webhook)
    if webhook.is_feed and call.build():
        commands.publish(webhook.pk, delivery.pk)
    else:
        commands.close(call)
    log = Delivery.objects.select_related('webhook', 'event')
    return (log.seen_by(user) if user else log).get(pk=delivery.pk)


def _call(delivery: Delivery, builder: Builder, webhook: Webhook) -> Call:
    with closing(Client(1)) as client:
        call = _send(delivery, builder, client)
        if call.outcome is None:
            # This request fetched an access token, or the endpoint refused the old one. Only the next one tests.
            call = _send(delivery, call.builder, client)
    if call.outcome is None:
        error = _('The access token is being fetched. Test again.')
        call.outcome = Outcome(started_at=time.time(), duration=0, error=error)
    call.outcome = _explain(call.outcome, webhook)
    return call


def _send(delivery: Delivery, builder: Builder, client: Client) -> Call:
    call = Call(delivery, builder)
    if call.build():
        call.send(client.send)
        call.update_token()
    return call


def announce(delivery: Delivery) -> tuple[int, str]:
    """Return the level (of django.contrib.messages) and the text of the message to the tester."""
    level, text = _result(delivery)
    return level, switching.with_warning(text)


def _result(delivery: Delivery) -> tuple[int, str]:
    if delivery.error:
        return messages.ERROR, _('The test of {webhook} failed: {error}').format(
            webhook=delivery.webhook, error=delivery.error
        )
    if delivery.position:
        return messages.SUCCESS, _('The test of {webhook} is in its feed.').format(webhook=delivery.webhook)
    if delivery.response_status is None:
        return messages.SUCCESS, _('The test of {webhook} succeeded: the broker confirmed it.').format(
            webhook=delivery.webhook
        )
    return messages.SUCCESS, _('The test of {webhook} succeeded: the receiver answered HTTP {status}.').format(
        webhook=delivery.webhook, status=delivery.response_status
    )


def _explain(outcome: Outcome, webhook: Webhook) -> Outcome:
    """Return the outcome with a hint if the test ended early. Then a slow endpoint does not count as unreachable."""
    if not outcome.unreachable or outcome.duration < MAX_TEST_SECONDS or webhook.effective_timeout <= MAX_TEST_SECONDS:
        return outcome
    error = _('{error}. A test does not wait any longer, but a delivery waits up to {timeout} seconds.').format(
        error=outcome.error, timeout=webhook.effective_timeout
    )
    return dataclasses.replace(outcome, error=error, unreachable=False)


def _check_room(webhook: Webhook, now: datetime) -> None:
    """Raise Busy if too many tests run, or one of this webhook. Others are counted only after this one's commit."""
    sql.set_lock_timeout(LOCK_TIMEOUT_MS)
    try:
        sql.fetch(LOCK_TESTS, [TEST_LOCK])
    except OperationalError as error:
        if not sql.is_lock_timeout(error):
            raise
        raise Busy(str(TOO_MANY_TESTS)) from error
    under_way = Delivery.objects.filter(event__test=True, state=DeliveryState.TESTING, expires_at__gt=now)
    testing = list(under_way.values_list('webhook', flat=True))
    if webhook.pk in testing:
        raise Busy(_('A test of this webhook is already running. Wait for its result.'))
    if len(testing) >= MAX_TESTS:
        raise Busy(str(TOO_MANY_TESTS))


@transaction.atomic
def _make_test(webhook: Webhook, user: User | None) -> Delivery:
    event = _test_event(webhook, user)
    now = sql.now()
    _check_room(webhook, now)
    return Delivery.objects.create(
        webhook=webhook,
        event=event,
        object_type=event.object_type,
        object_id=event.object_id,
        sequence=event.sequence,
        expanded=bool(webhook.expand),
        state=DeliveryState.TESTING,
        created=now,
        expires_at=now + timedelta(seconds=MAX_TEST_SECONDS + LOST_AFTER_SECONDS),
        attempt_limit=1,
    )


def _test_event(webhook: Webhook, user: User | None) -> Event:
    for object_type in object_types.allowed().filter(pk__in=webhook.object_types.all()).order_by('pk'):
        model = object_type.model_class()
        newest = model._base_manager.order_by('-pk').values_list('pk', flat=True).first() if model else None
        snapshot = None if newest is None else snapshots.take(model, [newest]).get(newest)
        if snapshot is not None:
            return _save_test_event(object_type, newest, snapshot, webhook, user)
    return _save_ping(webhook, user)


def _save_ping(webhook: Webhook, user: User | None) -> Event:
    """Save an event about the webhook itself: there is no object of its types."""
    data = {
        'id': webhook.pk,
        'url': reverse('plugins-api:webhooks-api:webhook-detail', args=[webhook.pk]),
        'display_url': webhook.get_absolute_url(),
        'display': webhook.name,
        'name': webhook.name,
        'description': webhook.description,
    }
    return _save(
        user,
        kind=PING_KIND,
        object_type=ContentType.objects.get_for_model(Webhook),
        object_id=webhook.pk,
        object_repr=webhook.name,
        data=json.dumps(data, ensure_ascii=False),
        snapshots={'prechange': None, 'postchange': None},
    )


def _save_test_event(object_type: ContentType, pk: int, snapshot: str, webhook: Webhook, user: User | None) -> Event:
    event = _save(user, kind=webhook.kinds[0], object_type=object_type, object_id=pk, snapshot=json.loads(snapshot))
    commands.render_again([event], {event.pk: [webhook]})
    event.refresh_from_db()
    return event


def _save(user: User | None, **fields: Any) -> Event:
    now = timezone.now()
    return Event.objects.create(
        sequence=draw(),
        timestamp=now,
        username=user.username if user else None,
        test=True,
        transaction_id=0,
        transaction_time=now,
        dispatched_at=now,
        **fields,
    )
