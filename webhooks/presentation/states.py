"""The states of a webhook: one word and one colour each. Those of a delivery are in choices.StatusChoices."""

from typing import NamedTuple

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from extras.models import EventRule

from ..models import Event, Webhook
from .moments import moment


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
# It has no object types, and no event rule sends with it.
UNUSED = State(_('Nothing is sent'), 'gray', Q(is_used=False))
ACTIVE = State(_('Active'), 'green', Q())

STATES = {
    'disabled': DISABLED,
    'paused': PAUSED,
    'suspended': SUSPENDED,
    'failing': FAILING,
    'unused': UNUSED,
    'active': ACTIVE,
}


def with_states(webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Add the annotation that `in_state` and `state_of` use."""
    types = Webhook.object_types.through.objects.filter(webhook=OuterRef('pk'))
    rules = EventRule.objects.filter(
        action_object_type__app_label='webhooks',
        action_object_type__model='webhook',
        action_object_id=OuterRef('pk'),
        enabled=True,
    )
    return webhooks.annotate(is_used=Exists(types) | Exists(rules))


def is_used(webhook: Webhook) -> bool:
    """Whether anything is sent with it: of its object types, or by an event rule."""
    if 'is_used' in vars(webhook):
        return vars(webhook)['is_used']
    return with_states(Webhook.objects.filter(pk=webhook.pk)).values_list('is_used', flat=True).get()


def state_of(webhook: Webhook) -> State:
    """Return the state. Costs no query where the webhook was read by `with_states`, with its health."""
    health = getattr(webhook, 'health', None)
    if not webhook.enabled:
        return DISABLED
    if webhook.paused:
        return PAUSED
    if health and health.suspended_since:
        return SUSPENDED
    if health and health.last_error:
        return FAILING
    return ACTIVE if is_used(webhook) else UNUSED


def in_state(key: str) -> Q:
    """Return the query for the state with this key of STATES. It needs webhooks that were read by `with_states`."""
    earlier = list(STATES)[: list(STATES).index(key)]
    query = STATES[key].query
    for taken in earlier:
        query &= ~STATES[taken].query
    return query


def both_sign(webhook: Webhook) -> str:
    """Say until when the secret before the present one signs beside it, '' where it does not."""
    if not webhook.is_previous_secret_valid:
        return ''
    return gettext('The one before it signs too until {until}.').format(until=moment(webhook.previous_secret_expires))


def marks_of(event: Event) -> list[str]:
    """Say what makes the event no change of an object."""
    marks = ((event.test, gettext('Test')), (event.backfill, gettext('Backfill')))
    return [mark for is_marked, mark in marks if is_marked]
