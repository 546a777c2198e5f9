"""Matching: which webhooks asked for an event, and do its conditions let it pass?"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from ...choices import BackfillStateChoices
from ...interruptions import INTERRUPTIONS
from ...models import Event, Subscription, Webhook
from ...models.subscription import COMPONENT
from ...storable import printable
from .conditions import Decider
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

# Ids of webhooks whose backfill goes on, and of the object types that they ask for.
Backfilled = Set[tuple[int, int]]


@dataclass(frozen=True)
class Candidate:
    """A webhook whose subscription covers an event, and the names of those whose changes it ignores."""

    webhook: Webhook
    ignored: Set[str]


def match(events: Sequence[Event]) -> tuple[dict[int, list[Candidate]], list[Event]]:
    """Return {event id: the webhooks whose subscription covers it}, and those that are changes of their owners as well.

    Those are events of components (`include_components`). One of a backfill is for its webhook alone.
    """
    changes = [event for event in events if not event.backfill]
    near = Subscription.objects.near(changes) if changes else ()
    backfills = open_backfills(events)
    candidates = _candidates({s.webhook_id for s in near} | {webhook_id for webhook_id, _object_type_id in backfills})
    by_change = defaultdict(list)
    for subscription in near:
        # A webhook may have been deleted since.
        if subscription.webhook_id in candidates:
            by_change[subscription.object_type_id, subscription.kind].append(subscription)
    wanted = {event.pk: _covering(event, by_change[_change(event)], candidates) for event in changes}
    wanted |= {
        event.pk: [candidates[pk] for pk in {event.backfill_for} & candidates.keys() if is_asked_for(event, backfills)]
        for event in events
        if event.backfill
    }
    components = [event for event in changes if _is_component(event, by_change, candidates)]
    return wanted, components


def _change(event: Event) -> tuple[int, str]:
    return event.object_type_id, COMPONENT if event.caused_by else event.kind


def _is_component(event: Event, by_change: Mapping, candidates: dict[int, Candidate]) -> bool:
    # What was created and deleted in one transaction has changed nothing.
    if not event.kind or event.caused_by:
        return False
    return bool(_covering(event, by_change.get((event.object_type_id, COMPONENT), ()), candidates))


def open_backfills(events: Iterable[Event]) -> Backfilled:
    """Return the webhooks whose backfill goes on, with the object types that they ask for by now."""
    webhook_ids = {event.backfill_for for event in events if event.backfill}
    if not webhook_ids:
        return set()
    found = Webhook.objects.filter(pk__in=webhook_ids, backfill__state__in=BackfillStateChoices.OPEN)
    return set(found.values_list('pk', 'object_types'))


def is_asked_for(event: Event, backfills: Backfilled) -> bool:
    """Whether the event, if it is one of a backfill, is still to be sent: it may have been canceled, for one."""
    return not event.backfill or (event.backfill_for, event.object_type_id) in backfills


def _covering(event: Event, subscriptions: Sequence[Subscription], candidates: dict[int, Candidate]) -> list[Candidate]:
    # Of a webhook that was disabled and enabled during the event's transaction, two may cover it.
    webhook_ids = dict.fromkeys(one.webhook_id for one in subscriptions if one.covers(event))
    return [candidates[pk] for pk in webhook_ids]


def _candidates(webhook_ids: Set[int]) -> dict[int, Candidate]:
    webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk(webhook_ids)
    return {
        pk: Candidate(webhook, {user.username for user in webhook.ignore_users.all()})
        for pk, webhook in webhooks.items()
    }


def accepts(candidate: Candidate, shown: Shown, decider: Decider) -> bool:
    """Whether the webhook is told of the event: not what an ignored user did, nor what its conditions do not meet.

    Conditions that cannot be decided are not met: the log says why.
    """
    if shown.event.username in candidate.ignored:
        return False
    webhook = candidate.webhook
    data = shown.data_for(webhook) if webhook.conditions else None
    if data is None:
        return True
    try:
        return decider.are_met(webhook, {**data, 'snapshots': shown.snapshots})
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # Not only InvalidCondition: a script may have saved conditions that were never checked.
        reason = printable(f'{type(error).__name__}: {error}')
        logger.warning('webhook=%s event=%s conditions="%s"', webhook.pk, shown.event.uuid, reason)
        return False
