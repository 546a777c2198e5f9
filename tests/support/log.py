"""Rows of the log, without the engine."""

import itertools
import json
from datetime import timedelta
from typing import Any

from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.utils import timezone

from support.builders import NOWHERE, UPDATED, subscribe
from webhooks.choices import StatusChoices
from webhooks.delivery_states import STATES_OF_STATUS, DeliveryState
from webhooks.models import Attempt, Delivery, Event, Webhook

_numbers = itertools.count(1)


def event(instance: Model, **fields: Any) -> Event:
    """Return a dispatched event with the instance's name as payload."""
    number = next(_numbers)
    defaults = {
        'sequence': number,
        'kind': UPDATED,
        'object_type': ContentType.objects.get_for_model(instance),
        'object_id': instance.pk,
        'object_repr': str(instance),
        'timestamp': timezone.now(),
        'data': json.dumps({'id': instance.pk, 'name': str(instance)}),
        'dispatched_at': timezone.now(),
        'transaction_id': number,
        'transaction_time': timezone.now(),
    }
    return Event.objects.create(**defaults | fields)


def delivery(of: Event, webhook: Webhook | None = None, attempts: int = 1, **fields: Any) -> Delivery:
    """Return a failed delivery. By default its attempts got 500."""
    defaults = {
        'webhook': webhook or subscribe(NOWHERE, Site),
        'event': of,
        'object_type': of.object_type,
        'object_id': of.object_id,
        'sequence': of.sequence,
        'error': 'HTTP 500',
        'response_status': 500,
        'created': of.timestamp,
        'expires_at': of.timestamp + timedelta(days=3),
        'attempt_count': attempts,
    }
    status = fields.pop('status', StatusChoices.FAILED)
    made = Delivery(**defaults | fields)
    made.state = state_of(made) if status == StatusChoices.PENDING else STATES_OF_STATUS[status][0]
    made.save()
    for number in range(1, attempts + 1):
        attempt(made, number)
    return made


def state_of(pending: Delivery) -> str:
    """Return the state that the engine would give to such a delivery."""
    if pending.lapses:
        return DeliveryState.SUSPECT
    if pending.due_at is None:
        return DeliveryState.HELD
    if pending.attempt_count:
        return DeliveryState.RETRYING
    return DeliveryState.RESTING if pending.waits_until else DeliveryState.READY


def change_set(events: list[Event], webhook: Webhook, attempts: int = 1, **fields: Any) -> list[Delivery]:
    """Return deliveries that went out as a change set of one part. The first has the attempts."""
    made = [delivery(one, webhook, attempts=0, **{'attempt_count': attempts} | fields) for one in events]
    for one in made:
        one.change_set, one.part, one.parts = events[0].transaction_id, 1, 1
        one.lead, one.change_count = made[0].pk, len(made)
        one.save()
    for number in range(1, attempts + 1):
        attempt(made[0], number, members=[one.pk for one in made])
    return made


def attempt(of: Delivery, number: int, members: list[int] | None = None) -> Attempt:
    return Attempt.objects.create(
        delivery=of,
        members=members,
        number=number,
        started_at=of.created,
        duration=0.25,
        method='POST',
        url='http://receiver.example/hook',
        request_headers={'webhook-id': str(of.uuid), 'webhook-signature': 'v1,' + 'A' * 44},
        response_status=500,
        response_headers={'Server': 'sample'},
        response_body='the answer of the receiver',
        error='HTTP 500',
    )
