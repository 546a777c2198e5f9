"""For `only_if_changed`: the values of keys, before and after a change, as the payload shows both."""

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
    """Whether a webhook asks for the values before. Backfills and components' owners show no change."""
    is_change = event.kind == KindChoices.UPDATED and not event.backfill and not event.caused_by
    return is_change and any(webhook.only_if_changed for webhook in webhooks)


def data_before(model: type[Model], prechanges: Sequence[Any]) -> list[Data | None]:
    """Return the payload's data of these snapshots. None: what was before is unknown, so the change is sent.

    Related objects are as they are now: else their own changes would count.
    """
    known = [one for one in prechanges if one and UNLOCKED not in one]
    with transaction.atomic():
        rendered = iter(rendering.render(model, known) if known else ())
    return [next(rendered).data if one and UNLOCKED not in one else None for one in prechanges]


def accepts(webhook: Webhook, before: Data | None, after: Data | None) -> bool:
    """Whether one of the webhook's keys is new, or unknown."""
    if not webhook.only_if_changed or before is None or after is None:
        return True
    return any(value_at(before, key) != value_at(after, key) for key in webhook.only_if_changed)


def value_at(data: Any, key: str) -> Any:
    """Of a list, the values in each of its items. None where there is no such key."""
    for name in key.split('.'):
        if isinstance(data, list):
            data = [one.get(name) for one in data if isinstance(one, dict)]
        else:
            data = data.get(name) if isinstance(data, dict) else None
    return data
