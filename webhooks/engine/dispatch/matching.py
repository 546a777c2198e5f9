"""Which webhooks asked for an event, and are their conditions met?

A renderer evaluates regular expressions. After TIME_OUTS in a row the conditions rest for REST seconds: not met.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.cache import cache
from extras.conditions import Condition, ConditionSet
from redis import RedisError

from ...interruptions import INTERRUPTIONS
from ...models import Event, Subscription, Webhook
from ...models.subscription import COMPONENT
from ...storable import nodes, printable
from ...templating import renderer
from ...templating.conditions import SlowCondition
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

TIME_OUTS, REST = 3, 60
ENCODER = json.JSONEncoder(ensure_ascii=False)


def match(events: Sequence[Event]) -> tuple[dict[int, list[Webhook]], list[Event]]:
    """Return {event id: its webhooks}, and the events that `include_components` needs."""
    changes = [event for event in events if not event.backfill]
    near = Subscription.objects.near(changes) if changes else ()
    webhook_ids = {one.webhook_id for one in near} | {event.backfill_for for event in events if event.backfill}
    webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk(webhook_ids)
    by_change = defaultdict(list)
    for subscription in near:
        by_change[subscription.object_type_id, subscription.kind].append(subscription)

    def asking(event: Event, kind: str) -> list[Webhook]:
        if event.backfill:
            pks = [event.backfill_for]
        else:
            found = by_change.get((event.object_type_id, kind), ())
            # Two cover it if the webhook was disabled and enabled during its transaction.
            pks = dict.fromkeys(one.webhook_id for one in found if one.covers(event))
        # Somebody may have deleted the webhook since.
        return [webhooks[pk] for pk in pks if pk in webhooks]

    matches = {event.pk: asking(event, COMPONENT if event.caused_by else event.kind) for event in events}
    # Otherwise it was created and deleted in one transaction.
    own = [event for event in changes if event.kind and not event.caused_by]
    return matches, [event for event in own if asking(event, COMPONENT)]


def accepts(webhook: Webhook, shown: Shown) -> bool:
    if any(user.username == shown.event.username for user in webhook.ignore_users.all()):
        return False
    if not webhook.conditions or (data := shown.data_for(webhook)) is None:
        return True
    message = shown.event.changelog_message or ''
    try:
        return _decide(webhook, {**data, 'snapshots': shown.snapshots, 'changelog_message': message})
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # A script may have saved unchecked conditions.
        reason = printable(f'{type(error).__name__}: {error}')
        logger.warning('webhook=%s event=%s conditions="%s"', webhook.pk, shown.event.uuid, reason)
        return False


def _decide(webhook: Webhook, data: dict[str, Any]) -> bool:
    # Only patterns can take long.
    time_outs = _count(webhook) if _has_pattern(webhook.conditions) else 0
    if time_outs >= TIME_OUTS:
        return False
    try:
        met = are_met(webhook.conditions, data)
    except SlowCondition:
        _note(webhook, time_outs + 1)
        raise
    if time_outs:
        _note(webhook, 0)
    return met


def are_undecided(webhook: Webhook) -> bool:
    return _count(webhook) >= TIME_OUTS


def are_met(conditions: dict[str, Any], data: dict[str, Any]) -> bool:
    """Raises InvalidCondition for conditions that do not fit the data, and its subclass SlowCondition."""
    if _has_pattern(conditions):
        return renderer.are_met(ENCODER.encode(conditions), ENCODER.encode(data))
    return ConditionSet(conditions).eval(data)


def _has_pattern(conditions: dict[str, Any]) -> bool:
    return any(isinstance(node, dict) and node.get('op') == Condition.REGEX for node in nodes(conditions))


def _key(webhook: Webhook) -> str:
    # An edit begins a new count.
    return f'webhooks:conditions:{webhook.pk}:{webhook.last_updated}'


def _count(webhook: Webhook) -> int:
    with suppress(RedisError):
        return cache.get(_key(webhook), 0)
    return 0


def _note(webhook: Webhook, time_outs: int) -> None:
    with suppress(RedisError):
        cache.set(_key(webhook), time_outs, REST)
    if time_outs == TIME_OUTS:
        logger.warning('webhook=%s conditions=undecided (not met) for=%ss', webhook.pk, REST)
