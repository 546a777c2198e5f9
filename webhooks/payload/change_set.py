"""Makes the envelope of a change set: its transaction, and which part of it the request is."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..models import Delivery, Event, Webhook


class Part(NamedTuple):
    """Part `number` of `total` parts of a change set. The whole set has `count` changes."""

    number: int = 1
    total: int = 1
    count: int = 1


def part_of(webhook: Webhook, delivery: Delivery, count: int) -> Part | None:
    """Return which part of its change set the delivery is. None: it belongs to no change set.

    A delivery that was not divided, such as a test, is a set of its own, with `count` changes.
    """
    if delivery.parts is not None:
        return Part(delivery.part, delivery.parts, delivery.change_count)
    return Part(count=count) if webhook.change_set else None


def envelope(events: Sequence[Event], changes: Sequence[Any], part: Part) -> dict[str, Any]:
    """Return the body of a change set: the transaction, the part, and `changes` as its list.

    All events are of one transaction. User and request are taken from the first one that came from a request.
    """
    event = next((event for event in events if event.request_id), events[0])
    branch = next((event.branch for event in events if event.branch), None)
    transaction = {
        'id': _transaction_id(event),
        'username': event.username,
        'request_id': str(event.request_id) if event.request_id else None,
        'message': next((event.changelog_message for event in events if event.changelog_message), None),
        'count': part.count,
        **({'branch': branch} if branch else {}),
    }
    return {
        'event': 'change_set',
        'transaction': transaction,
        'part': part.number,
        'parts': part.total,
        'changes': list(changes),
    }


def merge_of(event: Event) -> dict[str, Any]:
    """Return {"transaction": id and branch}, the key of an event that a branch's merge brought. {}: none did."""
    return {'transaction': {'id': str(event.transaction_id), 'branch': event.branch}} if event.branch else {}


def extensions(event: Event, part: Part) -> dict[str, Any]:
    """Return the attributes that a CloudEvent has only as part of a change set."""
    transaction_id = _transaction_id(event)
    more = {'transaction': transaction_id} if transaction_id else {}
    return {**more, 'transactioncount': part.count, 'part': part.number, 'parts': part.total}


def _transaction_id(event: Event) -> str | None:
    """Return the id of the event's transaction. None: tests, job events and objects of a backfill are of none."""
    return str(event.transaction_id) if event.transaction_id and not event.backfill else None
