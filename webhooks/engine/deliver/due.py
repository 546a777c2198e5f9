"""What the queue says of a delivery that is due, and what is asked of it. Pure."""

from datetime import datetime
from typing import NamedTuple


class Due(NamedTuple):
    """A delivery that is due; `size` is about that of its payload, in bytes."""

    pk: int
    webhook_id: int
    due_at: datetime
    object_type_id: int
    object_id: int
    backfill: bool
    batch: int | None
    event_id: int
    is_blocked: bool
    size: int
    transaction_id: int
    kind: str
    # Whether its event could not be rendered.
    is_failed: bool


class Wish(NamedTuple):
    """How much is wanted of a lane, changes or a backfill: of what is due after the mark the oldest, and the newest."""

    webhook_id: int
    backfill: bool
    room: int
    newest: int
    since: datetime
    since_id: int
