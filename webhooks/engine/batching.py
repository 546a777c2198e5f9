"""Which events go out in one request: those of one transaction, model and kind, for a webhook that asks for batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..models import Event, Webhook

MAX_EVENTS = 1000
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Pair:
    """An event for a webhook; `size` is what it takes of a batch's body, in bytes."""

    webhook: Webhook
    event: Event
    size: int
    failed: bool


@dataclass
class Group:
    """The events of one delivery, in the order of their sequence."""

    webhook_id: int
    event_ids: list[int] = field(default_factory=list)
    size: int = 0

    def has_room(self, size: int) -> bool:
        """Whether an event of `size` bytes fits as well. The first always does."""
        return len(self.event_ids) < MAX_EVENTS and (not self.event_ids or self.size + size <= MAX_BYTES)

    def add(self, event_id: int, size: int) -> None:
        self.event_ids.append(event_id)
        self.size += size


def group(pairs: Sequence[Pair]) -> list[Group]:
    """Return the groups, in the order of their first events. What failed, or goes to no batch, is a group of one."""
    groups: list[Group] = []
    open_groups: dict[tuple, Group] = {}
    for pair in pairs:
        key = _key(pair)
        current = open_groups.get(key)
        if current is None or not current.has_room(pair.size):
            current = open_groups[key] = Group(pair.webhook.pk)
            groups.append(current)
        current.add(pair.event.pk, pair.size)
    return groups


def _key(pair: Pair) -> tuple:
    event = pair.event
    if not pair.webhook.batch or pair.failed:
        return pair.webhook.pk, event.pk
    return pair.webhook.pk, event.transaction_id, event.transaction_time, event.object_type_id, event.kind
