"""Permissions in GraphQL. It asks once for all rows of a query."""

from collections.abc import Callable, Iterable
from typing import Any

from django.db.models import Model
from strawberry.types import Info
from users.models import User

from ..models import Attempt, Delivery
from ..payload_visibility import visible_attempts

Visible = Callable[[User, Iterable[Model]], set[int]]


def is_visible(record: Model, info: Info, visible: Visible) -> bool:
    """Whether the asker may view the object of this record, which `visible` decides for all of the query's rows at
    once.
    """
    if not hasattr(record, '_payload_visible'):
        peers = _peers(record)
        shown = visible(info.context.request.user, peers)
        for peer in peers:
            peer._payload_visible = peer.pk in shown
    return record._payload_visible


def sent(delivery: Delivery, info: Info) -> list[Attempt]:
    """Return the attempts that sent the delivery, the oldest first, concealed where the asker may not see them."""
    if not hasattr(delivery, '_sent'):
        peers = _peers(delivery)
        found = visible_attempts(info.context.request.user, [peer.pk for peer in peers])
        for peer in peers:
            peer._sent = found[peer.pk][::-1]
    return delivery._sent


def _peers(record: Model) -> list[Any]:
    return [peer for reference in record._state.peers if (peer := reference()) is not None] or [record]
