"""A webhook's health in a word and its reason, for the admin's list, filter and form."""

from typing import NamedTuple

from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Webhook
from .display import moment

SUSPENDED = Q(health__suspended_since__isnull=False)
NEVER_CALLED = Q(health=None) | Q(health__last_attempt_at=None)
FAILING = ~Q(health__last_error='')


class State(NamedTuple):
    """`color` is one of those of NetBox's choices; `query` finds the webhooks in this state."""

    label: str
    color: str
    query: Q


STATES = {
    'ok': State(gettext_lazy('OK'), 'green', ~SUSPENDED & ~NEVER_CALLED & ~FAILING),
    'failing': State(gettext_lazy('Failing'), 'red', ~SUSPENDED & ~NEVER_CALLED & FAILING),
    'suspended': State(gettext_lazy('Suspended'), 'orange', SUSPENDED),
    'never': State(gettext_lazy('Never called'), 'gray', ~SUSPENDED & NEVER_CALLED),
}


def state_of(webhook: Webhook) -> str:
    """Return the key in STATES. Costs no query where `health` was selected with the webhook."""
    health = getattr(webhook, 'health', None)
    if health is not None and health.suspended_since:
        return 'suspended'
    if health is None or health.last_attempt_at is None:
        return 'never'
    return 'failing' if health.last_error else 'ok'


def reason(webhook: Webhook) -> str:
    """Say in a sentence why the webhook is in its state, '' where there is nothing to say."""
    health = getattr(webhook, 'health', None)
    state = state_of(webhook)
    if state == 'suspended':
        return _('since {since}: {error}').format(since=moment(health.suspended_since), error=health.last_error)
    if state == 'failing':
        return health.last_error
    return _('last call {when}').format(when=moment(health.last_attempt_at)) if state == 'ok' else ''
