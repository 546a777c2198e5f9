"""Finds which webhooks asked for an event, and whether their conditions are met."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from extras.conditions import ConditionSet

from ...choices import KindChoices
from ...interruptions import INTERRUPTIONS, Locked
from ...models import Event, Subscription, Webhook
from ...models.subscription import COMPONENT, DERIVED, SOURCE
from ...outbox import unchanged
from ...storable import nodes, printable
from ...templating import renderer
from ...validation.conditions import is_condition, is_pattern
from . import changed_keys, components, memberships
from .put_off import PutOff
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

ENCODER = json.JSONEncoder(ensure_ascii=False)
# At most this many comparisons are evaluated at once, without waiting for the webhook's turn.
CHEAP_COMPARISONS = 20


class Matched(NamedTuple):
    """The webhooks that asked for some events, and further events that may follow from them."""

    # {event id: webhooks that asked for it}
    webhooks: dict[int, list[Webhook]]
    # Changes of components, which may be updates of their owners.
    changed: list[Event]
    # Changes of objects that may change the config contexts of other objects.
    sources: list[Event]
    # {event id: webhooks that ask for the config context of its object}
    derived: dict[int, list[Webhook]]
    # Creations of owners that some of these webhooks did not ask for.
    unreported: list[Event]


def match(events: Sequence[Event], put_off: PutOff) -> Matched:
    """Return which webhooks asked for the events, and further events that may follow.

    It asks by model, kind and sequence, and whether the object is unchanged. accepts() asks for the rest. Events that
    need a locked table of components are put off.
    """
    subscribers = Subscribers(events, put_off)
    matches = {event.pk: subscribers.asking(event, asked_kind(event)) for event in events}
    # The object of an event without a kind was created and deleted in one transaction: nothing is sent.
    changes = [event for event in events if event.kind and not event.backfill]
    own = [event for event in changes if not event.caused_by]
    existing = [event for event in changes if event.kind in (KindChoices.CREATED, KindChoices.UPDATED)]
    derived = {event.pk: found for event in existing if (found := subscribers.of(event, DERIVED))}
    created = [event for event in existing if event.kind == KindChoices.CREATED]
    return Matched(
        matches,
        changed=[event for event in own if subscribers.asking(event, COMPONENT)],
        sources=[event for event in own if subscribers.of(event, SOURCE)],
        derived=derived,
        unreported=[event for event in created if not {*derived.get(event.pk, ())} <= {*matches[event.pk]}],
    )


class Subscribers:
    """The webhooks that subscribed to some events, and the updates among these that changed nothing."""

    def __init__(self, events: Sequence[Event], put_off: PutOff) -> None:
        changes = [event for event in events if not event.backfill]
        near = Subscription.objects.near(changes) if changes else ()
        pks = {one.webhook_id for one in near} | {event.backfill_for for event in events if event.backfill}
        self._webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk(pks)
        self._by_change: defaultdict[tuple[int, str], list[Subscription]] = defaultdict(list)
        for subscription in near:
            self._by_change[subscription.object_type_id, subscription.kind].append(subscription)
        is_asked = any(webhook.compares for webhook in self._webhooks.values())
        self._unchanged = unchanged.among(changes) if is_asked else set()
        self._with_component = self._owners_with_changed([one for one in changes if one.pk in self._unchanged], put_off)

    def of(self, event: Event, kind: str) -> list[Webhook]:
        """Return the webhooks that subscribed to this kind of change of the model, or whose backfill recorded it."""
        if event.backfill:
            pks = [event.backfill_for]
        else:
            found = self._by_change.get((event.object_type_id, kind), ())
            # Two cover it if the webhook was disabled and enabled during its transaction.
            pks = dict.fromkeys(one.webhook_id for one in found if one.covers(event))
        # Somebody may have deleted the webhook since.
        return [self._webhooks[pk] for pk in pks if pk in self._webhooks]

    def asking(self, event: Event, kind: str) -> list[Webhook]:
        """Return the same as of(), without webhooks that ask for real changes only if the event is no such change."""
        return [webhook for webhook in self.of(event, kind) if self._is_change_for(webhook, event)]

    def _is_change_for(self, webhook: Webhook, event: Event) -> bool:
        if event.pk not in self._unchanged or not webhook.compares:
            return True
        return event.pk in self._with_component and webhook in self.of(event, COMPONENT)

    def _owners_with_changed(self, same: Sequence[Event], put_off: PutOff) -> set[int]:
        """Return the ids of unchanged owners with a changed component: a change for webhooks that include components.

        A device may be saved unchanged while its interface changes.
        """
        owners = [event for event in same if components.is_owner(event)]
        asked = [event for event in owners if any(one.compares for one in self.of(event, COMPONENT))]
        try:
            return components.with_changed(asked)
        except Locked as error:
            for event in asked:
                put_off.add(event, error)
            return set()


def asked_kind(event: Event) -> str:
    """Return the kind of the subscriptions that cover the event."""
    if event.is_derived:
        return DERIVED
    return COMPONENT if event.caused_by else event.kind


def accepts(webhook: Webhook, shown: Shown) -> bool | None:
    """Return whether a webhook takes a rendered event, by its user and by the webhook's conditions.

    None: that may take long, as costly conditions and filters of lists do. undecided.py decides it when it is the
    webhook's turn.
    """
    # The user of a backfill's event sends the object, and has not changed it.
    if not shown.event.backfill and any(user.username == shown.event.username for user in webhook.ignore_users.all()):
        return False
    if not changed_keys.accepts(webhook, shown.before, shown.data):
        return False
    if memberships.is_listed(webhook, shown.event.object_type_id):
        return None
    if not webhook.conditions or shown.data is None:
        return True
    return None if _are_costly(webhook.conditions) else meets(webhook, shown)


def meets(webhook: Webhook, shown: Shown) -> bool:
    """Return whether a rendered event meets a webhook's conditions. Conditions that do not fit it are not met.

    Raises Shortage if there is no process for regular expressions, and errors of a connection that is lost.
    """
    try:
        return are_met(webhook.conditions, data_of(webhook, shown))
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # A script may have saved unchecked conditions.
        reason = printable(f'{type(error).__name__}: {error}')
        logger.warning(
            'webhook=%s name=%r event=%s conditions="%s"', webhook.pk, webhook.name, shown.event.uuid, reason
        )
        return False


def data_of(webhook: Webhook, shown: Shown) -> dict[str, Any]:
    """Return the data of a rendered event that the webhook's conditions are about."""
    message = shown.event.changelog_message or ''
    return {**(shown.data_for(webhook) or {}), 'snapshots': shown.snapshots, 'changelog_message': message}


def are_met(conditions: dict[str, Any], data: dict[str, Any]) -> bool:
    """Return whether the data meet NetBox's conditions. Those with a regular expression go to a process of their own.

    Raises InvalidCondition for conditions that do not fit the data, its subclass SlowCondition, and Shortage.
    """
    if has_pattern(conditions):
        return renderer.are_met(ENCODER.encode(conditions), ENCODER.encode(data))
    return ConditionSet(conditions).eval(data)


def _are_costly(conditions: dict[str, Any]) -> bool:
    """Return whether a regular expression is among these conditions, or they compare more than CHEAP_COMPARISONS."""
    return has_pattern(conditions) or sum(map(is_condition, nodes(conditions))) > CHEAP_COMPARISONS


def has_pattern(conditions: dict[str, Any]) -> bool:
    """Return whether a regular expression is among these conditions."""
    return any(map(is_pattern, nodes(conditions)))
