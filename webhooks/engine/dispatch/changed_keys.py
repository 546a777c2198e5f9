"""Compares the values of keys before and after a change, as the payload shows both: for `only_if_changed`."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Model

from ... import rendering
from ...choices import KindChoices
from ...models import Event, Webhook
from ...outbox.snapshots import UNLOCKED

Data = dict[str, Any]


def asks(event: Event, webhooks: Iterable[Webhook]) -> bool:
    """Whether a webhook among these needs data_before() of the event.

    Events of backfills and of components' owners show no change, so they are sent in any case.
    """
    is_change = event.kind == KindChoices.UPDATED and not event.backfill and not event.caused_by
    return is_change and any(webhook.only_if_changed for webhook in webhooks)


def data_before(model: type[Model], prechanges: Sequence[Any]) -> list[Data | None]:
    """Return the `data` that a payload would have shown before each change, from the snapshots before them.

    None: the object's state before is unknown, so the change is sent. Related objects are shown as they are now: else
    their own changes would count. Raises the errors of NetBox's serializer.
    """
    known = [one for one in prechanges if one and UNLOCKED not in one]
    with transaction.atomic():
        rendered = iter(rendering.render(model, known) if known else ())
    return [next(rendered).data if one and UNLOCKED not in one else None for one in prechanges]


def accepts(webhook: Webhook, before: Data | None, after: Data | None) -> bool:
    """Whether the webhook takes the change: a value at its keys `only_if_changed` differs between the two.

    It also does if it has no such keys, or if a state is unknown (None).
    """
    if not webhook.only_if_changed or before is None or after is None:
        return True
    return any(value_at(before, key) != value_at(after, key) for key in webhook.only_if_changed)


def value_at(data: Any, key: str) -> Any:
    """Return the value at a dotted key, such as `status.value`. None if an object on the way has no such key.

    Where a list is on the way, it is the list of the values in its items. A text or number on the way is the value
    itself, as is a list whose item a number names: so a key that leads no further loses no change.
    """
    for name in key.split('.'):
        data = _enter(data, name)
    return data


def _enter(data: Any, name: str) -> Any:
    if isinstance(data, dict):
        return data.get(name)
    if isinstance(data, list) and not name.isdecimal():
        return [_enter(one, name) for one in data]
    return data
