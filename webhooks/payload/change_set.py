"""Makes the envelope of a change set: its transaction, and which part of it the request is."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..models import Delivery, Event, Webhook


class Part(NamedTuple):
    """Part `number` of `total` parts of a change set. The whole set has `count` changes.

    `transaction` names the set: the id of (one of) its transactions. None: the transaction of the event.
    """

    number: int = 1
    total: int = 1
    count: int = 1
    transaction: int | None = None


def part_of(webhook: Webhook, delivery: Delivery, count: int) -> Part | None:
    """Return which part of its change set the delivery is. None: it belongs to no change set.

    A delivery that was not divided, such as a test, is a set of its own, with `count` changes.
    """
    if delivery.parts is not None:
        return Part(delivery.part, delivery.parts, delivery.change_count, delivery.change_set)
    return Part(count=count) if webhook.change_set else None


def envelope(events: Sequence[Event], changes: Sequence[Any], part: Part) -> dict[str, Any]:
    """Return the body of a change set: the transaction, the part, and `changes` as its list.

    User and request are taken from the first event that came from a request. With several transactions they are None.
    """
    event = next((event for event in events if event.request_id), events[0])
    is_one = len({event.transaction_id for event in events}) == 1
    branch = next((event.branch for event in events if is_one and event.branch), None)
    transaction = {
        'id': _transaction_id(event, part),
        'username': event.username if is_one else None,
        'request_id': str(event.request_id) if is_one and event.request_id else None,
        'message': next((event.changelog_message for event in events if is_one and event.changelog_message), None),
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
    transaction_id = _transaction_id(event, part)
    more = {'transaction': transaction_id} if transaction_id else {}
    return {**more, 'transactioncount': part.count, 'part': part.number, 'parts': part.total}


def _transaction_id(event: Event, part: Part) -> str | None:
    """Return the id of the set's transaction, or of the event's, or None.

    Tests, job events and objects of a backfill are no changes of a transaction.
    """
    known = part.transaction or event.transaction_id
    return str(known) if known and not event.backfill else None
