"""Permissions in GraphQL. It asks once for all rows of a query."""

from collections.abc import Callable, Iterable

from django.db.models import Model
from strawberry.types import Info
from users.models import User

Visible = Callable[[User, Iterable[Model]], set[int]]


def is_visible(record: Model, info: Info, visible: Visible) -> bool:
    """Whether the asker may view the object of this record, which `visible` decides for all of the query's rows at
    once.
    """
    if not hasattr(record, '_payload_visible'):
        peers = [peer for reference in record._state.peers if (peer := reference()) is not None] or [record]
        shown = visible(info.context.request.user, peers)
        for peer in peers:
            peer._payload_visible = peer.pk in shown
    return record._payload_visible
