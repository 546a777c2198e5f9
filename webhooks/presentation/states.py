"""The states of a webhook: one word and one colour each. Those of a delivery are in choices.StatusChoices."""

from typing import NamedTuple

from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..models import Webhook


class State(NamedTuple):
    """`color` is one of those of NetBox's choices. `query` finds the webhooks that no earlier state has taken."""

    label: str
    color: str
    query: Q


# The first that applies is the state: what is disabled is neither paused nor suspended.
DISABLED = State(_('Disabled'), 'gray', Q(enabled=False))
PAUSED = State(_('Paused'), 'yellow', Q(paused=True))
SUSPENDED = State(_('Suspended'), 'orange', Q(health__suspended_since__isnull=False))
FAILING = State(_('Failing'), 'red', Q(health__isnull=False) & ~Q(health__last_error=''))
ACTIVE = State(_('Active'), 'green', Q())

STATES = {
    'disabled': DISABLED,
    'paused': PAUSED,
    'suspended': SUSPENDED,
    'failing': FAILING,
    'active': ACTIVE,
}


def state_of(webhook: Webhook) -> State:
    """Return the state. Costs no query where `health` was selected with the webhook."""
    health = getattr(webhook, 'health', None)
    if not webhook.enabled:
        return DISABLED
    if webhook.paused:
        return PAUSED
    if health and health.suspended_since:
        return SUSPENDED
    return FAILING if health and health.last_error else ACTIVE


def in_state(key: str) -> Q:
    """Return what finds the webhooks in the state of that key of STATES."""
    earlier = list(STATES)[: list(STATES).index(key)]
    query = STATES[key].query
    for taken in earlier:
        query &= ~STATES[taken].query
    return query
