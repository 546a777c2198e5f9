"""Tells which webhooks asked for an event, and whether their conditions are met."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from extras.conditions import Condition, ConditionSet

from ...choices import KindChoices
from ...interruptions import INTERRUPTIONS, Locked
from ...models import Event, Subscription, Webhook
from ...models.subscription import COMPONENT, DERIVED, SOURCE
from ...outbox import unchanged
from ...storable import nodes, printable
from ...templating import renderer
from . import changed_keys, components
from .put_off import PutOff
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

ENCODER = json.JSONEncoder(ensure_ascii=False)
# At most this many comparisons are evaluated at once, without waiting for the webhook's turn.
CHEAP_COMPARISONS = 20


class Matched(NamedTuple):
    """What subscriptions say about some events."""

    # {event id: webhooks that asked for it}
    webhooks: dict[int, list[Webhook]]
    # Owners of components may have to be told of these.
    changed: list[Event]
    # Owners of config contexts may have to be told of these.
    sources: list[Event]
    # {event id: webhooks that ask for config contexts}, of events of their owners
    derived: dict[int, list[Webhook]]
    # Creations of owners that some of these webhooks did not ask for.
    untold: list[Event]


def match(events: Sequence[Event], put_off: PutOff) -> Matched:
    """Return which webhooks asked for the events, and what else follows from these.

    It asks by model, kind and sequence, and whether the object is unchanged. accepts() asks for the rest. Events that
    need a held table of components are put off.
    """
    changes = [event for event in events if not event.backfill]
    near = Subscription.objects.near(changes) if changes else ()
    webhook_ids = {one.webhook_id for one in near} | {event.backfill_for for event in events if event.backfill}
    webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk(webhook_ids)
    by_change = defaultdict(list)
    for subscription in near:
        by_change[subscription.object_type_id, subscription.kind].append(subscription)

    def subscribed(event: Event, kind: str) -> list[Webhook]:
        if event.backfill:
            pks = [event.backfill_for]
        else:
            found = by_change.get((event.object_type_id, kind), ())
            # Two cover it if the webhook was disabled and enabled during its transaction.
            pks = dict.fromkeys(one.webhook_id for one in found if one.covers(event))
        # Somebody may have deleted the webhook since.
        return [webhooks[pk] for pk in pks if pk in webhooks]

    same = unchanged.among(changes) if any(webhook.compares for webhook in webhooks.values()) else set()
    # A device may be saved unchanged while its interface changes: a change for webhooks that include components.
    owners = [event for event in changes if event.pk in same and components.is_owner(event)]
    asked = [event for event in owners if any(one.compares for one in subscribed(event, COMPONENT))]
    with_component: set[int] = set()
    try:
        with_component = components.with_changed(asked)
    except Locked as error:
        for event in asked:
            put_off.add(event, error)

    def changes_for(event: Event, webhook: Webhook) -> bool:
        if event.pk not in same or not webhook.compares:
            return True
        return event.pk in with_component and webhook in subscribed(event, COMPONENT)

    def asking(event: Event, kind: str) -> list[Webhook]:
        return [one for one in subscribed(event, kind) if changes_for(event, one)]

    matches = {event.pk: asking(event, asked_kind(event)) for event in events}
    # An event without a kind was created and deleted in one transaction: nobody is told.
    own = [event for event in changes if event.kind and not event.caused_by]
    told = [event for event in changes if event.kind in (KindChoices.CREATED, KindChoices.UPDATED)]
    derived = {event.pk: asking_for for event in told if (asking_for := subscribed(event, DERIVED))}
    return Matched(
        matches,
        changed=[event for event in own if asking(event, COMPONENT)],
        sources=[event for event in own if subscribed(event, SOURCE)],
        derived=derived,
        untold=[
            event
            for event in told
            if event.kind == KindChoices.CREATED
            and any(one not in matches[event.pk] for one in derived.get(event.pk, ()))
        ],
    )


def asked_kind(event: Event) -> str:
    """Return the kind of the subscriptions that cover the event."""
    if event.is_derived:
        return DERIVED
    return COMPONENT if event.caused_by else event.kind


def accepts(webhook: Webhook, shown: Shown) -> bool | None:
    """Return whether a webhook takes a rendered event, by its user and by the webhook's conditions.

    None: the conditions may take long. undecided.py evaluates them when it is the webhook's turn.
    """
    # The user of a backfill's event sends the object, and has not changed it.
    if not shown.event.backfill and any(user.username == shown.event.username for user in webhook.ignore_users.all()):
        return False
    if not changed_keys.accepts(webhook, shown.before, shown.data):
        return False
    if not webhook.conditions or shown.data is None:
        return True
    return None if _are_costly(webhook.conditions) else meets(webhook, shown)


def meets(webhook: Webhook, shown: Shown) -> bool:
    """Return whether a rendered event meets a webhook's conditions. Conditions that do not fit it are not met.

    Raises Shortage if there is no process for regular expressions, and errors of a connection that is lost.
    """
    if not webhook.conditions:
        return True  # somebody has removed them since
    message = shown.event.changelog_message or ''
    try:
        data = {**(shown.data_for(webhook) or {}), 'snapshots': shown.snapshots, 'changelog_message': message}
        return are_met(webhook.conditions, data)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # A script may have saved unchecked conditions.
        reason = printable(f'{type(error).__name__}: {error}')
        logger.warning(
            'webhook=%s name=%r event=%s conditions="%s"', webhook.pk, webhook.name, shown.event.uuid, reason
        )
        return False


def are_met(conditions: dict[str, Any], data: dict[str, Any]) -> bool:
    """Return whether the data meet NetBox's conditions. Those with a regular expression go to a process of their own.

    Raises InvalidCondition for conditions that do not fit the data, its subclass SlowCondition, and Shortage.
    """
    if has_pattern(conditions):
        return renderer.are_met(ENCODER.encode(conditions), ENCODER.encode(data))
    return ConditionSet(conditions).eval(data)


def _are_costly(conditions: dict[str, Any]) -> bool:
    """Return whether a regular expression is among these conditions, or they compare more than CHEAP_COMPARISONS."""
    return has_pattern(conditions) or sum(isinstance(one, dict) and 'attr' in one for one in nodes(conditions)) > (
        CHEAP_COMPARISONS
    )


def has_pattern(conditions: dict[str, Any]) -> bool:
    """Return whether a regular expression is among these conditions."""
    return any(isinstance(node, dict) and node.get('op') == Condition.REGEX for node in nodes(conditions))
