"""The body of a change set: all changes of a transaction, or a part of them, each as it is alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from core.models import ObjectChange

from ..choices import FormatChoices
from ..models import Delivery, Event, Webhook
from . import formats

CHANGE_SET = 'change_set'


class Part(NamedTuple):
    """The part of a change set that a request holds: one of so many, of so many changes in all."""

    number: int = 1
    parts: int = 1
    count: int = 1


def part_of(webhook: Webhook, delivery: Delivery) -> Part | None:
    """Return the part that a delivery goes in. None: it goes without a change set."""
    if delivery.parts is not None:
        return Part(delivery.part, delivery.parts, delivery.change_count)
    return Part() if webhook.change_set else None


def body(webhook: Webhook, events: Sequence[Event], expand: formats.Keys, part: Part) -> bytes:
    """Return the body without a template. Events are in order."""
    if webhook.payload_format == FormatChoices.CLOUDEVENTS:
        return formats.dumps([_cloudevent(webhook, event, expand, part) for event in events]).encode()
    return formats.encoded(webhook, _envelope(webhook, events, expand, part))


def template_context(webhook: Webhook, events: Sequence[Event], expand: formats.Keys, part: Part) -> str:
    """Return the templates' context as JSON."""
    return formats.dumps(_envelope(webhook, events, expand, part))


def _envelope(webhook: Webhook, events: Sequence[Event], expand: formats.Keys, part: Part) -> dict[str, Any]:
    show = formats.FORMATS[webhook.payload_format]
    return {
        'event': CHANGE_SET,
        'transaction': _transaction(events, part),
        'part': part.number,
        'parts': part.parts,
        'changes': [show(webhook, [event], expand) for event in events],
    }


def _transaction(events: Sequence[Event], part: Part) -> dict[str, Any]:
    event = next((event for event in events if event.request_id), events[0])
    return {
        'id': _id(event),
        'username': event.username,
        'request_id': str(event.request_id) if event.request_id else None,
        'message': _message(event),
        'count': part.count,
    }


def _id(event: Event) -> str | None:
    """A test, a job event and the objects of a backfill are no change of a transaction."""
    return str(event.transaction_id) if event.transaction_id and not event.backfill else None


def _message(event: Event) -> str | None:
    """Return what the user wrote into NetBox's change log."""
    if event.request_id is None:
        return None
    changes = ObjectChange.objects.filter(request_id=event.request_id).exclude(message='')
    return changes.order_by('pk').values_list('message', flat=True).first()


def _cloudevent(webhook: Webhook, event: Event, expand: formats.Keys, part: Part) -> dict[str, Any]:
    transaction = {'transaction': _id(event)} if _id(event) else {}
    shown = formats.cloudevents(webhook, [event], expand)
    return {**shown, **transaction, 'part': part.number, 'parts': part.parts}
