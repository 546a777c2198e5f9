"""Matching: which webhooks asked for an event, and do its conditions let it pass?"""

import logging
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass

from django.db.models import Q

from ..interruptions import INTERRUPTIONS
from ..models import Event, Subscription, Webhook
from ..storable import printable
from . import conditions
from .event_rendering import Shown

logger = logging.getLogger('webhooks.dispatch')


@dataclass(frozen=True)
class Candidate:
    """A webhook whose subscription covers an event, and the names of those whose changes it ignores."""

    webhook: Webhook
    ignored: Set[str]


def match(events: Sequence[Event]) -> dict[int, list[Candidate]]:
    """Return {event id: the webhooks whose subscription covers it}."""
    types = {event.object_type_id for event in events}
    oldest = min(event.sequence for event in events)
    covering = Subscription.objects.filter(Q(until=None) | Q(until__gte=oldest), object_type_id__in=types)
    candidates = _candidates({s.webhook_id for s in covering})
    by_change = defaultdict(list)
    for subscription in covering:
        # A webhook may have been deleted since.
        if subscription.webhook_id in candidates:
            by_change[subscription.object_type_id, subscription.kind].append(subscription)
    return {
        event.pk: [
            candidates[s.webhook_id] for s in by_change[event.object_type_id, event.kind] if s.covers(event.sequence)
        ]
        for event in events
    }


def _candidates(webhook_ids: Set[int]) -> dict[int, Candidate]:
    webhooks = Webhook.objects.prefetch_related('ignore_users').in_bulk(webhook_ids)
    return {
        pk: Candidate(webhook, {user.username for user in webhook.ignore_users.all()})
        for pk, webhook in webhooks.items()
    }


def accepts(candidate: Candidate, shown: Shown) -> bool:
    if shown.event.username in candidate.ignored:
        return False
    webhook = candidate.webhook
    if not webhook.conditions or shown.data is None:
        return True
    try:
        return conditions.are_met(webhook.conditions, {**shown.data, 'snapshots': shown.snapshots})
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # Not only InvalidCondition: a script may have saved conditions that were never checked.
        reason = printable(f'{type(error).__name__}: {error}')
        logger.warning('webhook=%s event=%s conditions="%s"', webhook.pk, shown.event.uuid, reason)
        return False
