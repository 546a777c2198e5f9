"""The state of a webhook in a word, and why it does not send."""

from typing import NamedTuple

from django.db.models import Exists, IntegerField, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _
from extras.models import EventRule

from .. import constants, delivery_states
from ..models import Event, Health, Webhook
from ..security import references
from .moments import moment


class State(NamedTuple):
    """A state for people.

    `color` is from NetBox's choices. `query` finds it among webhooks in none of the states before it.
    """

    label: str
    color: str
    query: Q


# The first matching state counts. GONE: an answer 410 has disabled the webhook, and nobody has enabled it since.
GONE = State(_('Disabled by its receiver'), 'red', Q(enabled=False, health__last_status=constants.STATUS_GONE))
DISABLED = State(pgettext_lazy('webhooks', 'Disabled'), 'gray', Q(enabled=False))
PAUSED = State(_('Paused'), 'yellow', Q(paused=True))
SUSPENDED = State(_('Suspended'), 'orange', Q(health__suspended_since__isnull=False))
FAILING = State(_('Failing'), 'red', Q(health__isnull=False) & ~Q(health__last_error=''))
# The webhook has no object types, and no enabled event rule uses it.
UNUSED = State(_('Nothing is sent'), 'gray', Q(is_used=False))
ACTIVE = State(_('Active'), 'green', Q())

# Among all webhooks. A disabled one may still have `suspended_since`, but nobody probes its endpoint.
IS_SUSPENDED = Q(enabled=True) & SUSPENDED.query
IS_PAUSED = Q(enabled=True) & PAUSED.query
# Somebody has switched it off or paused it, so its deliveries are not late.
IS_HELD = PAUSED.query | (DISABLED.query & ~GONE.query)

# {key of the filter: state}, the first that matches counts
STATES = {
    'gone': GONE,
    'disabled': DISABLED,
    'paused': PAUSED,
    'suspended': SUSPENDED,
    'failing': FAILING,
    'unused': UNUSED,
    'active': ACTIVE,
}


def with_states(webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Annotate `is_used`, as `in_state` needs it. With it, `state_of` takes no query."""
    types = Webhook.object_types.through.objects.filter(webhook=OuterRef('pk'))
    return webhooks.annotate(is_used=Exists(types) | Exists(event_rules(OuterRef('pk'))))


def event_rules(webhook_id: int | OuterRef) -> QuerySet[EventRule]:
    """Return the enabled event rules that send through the webhook."""
    return EventRule.objects.filter(
        action_object_type__app_label='webhooks',
        action_object_type__model='webhook',
        action_object_id=webhook_id,
        enabled=True,
    )


# With a million waiting deliveries of a suspended webhook, counting all of them would make the list slow.
MAX_WAITING_COUNTED = 100_000
# Count the pending and undecided deliveries of a webhook. An index alone answers it.
COUNT_WAITING = f"""
    SELECT count(*) FROM (
        SELECT FROM webhooks_delivery d
        WHERE d.webhook_id = webhooks_webhook.id AND d.status {delivery_states.WAITING} LIMIT %s
    ) d"""


def with_waiting(webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Annotate `waiting`: how many deliveries of the webhook are pending or undecided, MAX_WAITING_COUNTED at most."""
    return webhooks.annotate(waiting=RawSQL(COUNT_WAITING, [MAX_WAITING_COUNTED], output_field=IntegerField()))


def reason_of(webhook: Webhook) -> str:
    """Return in one line why the webhook does not send, or how its last request failed. '' if nothing is wrong."""
    health = getattr(webhook, 'health', None)
    if health is None or not health.last_error:
        return ''
    if not health.suspended_since:
        return health.last_error
    since = health.refused_since if refuses(health) else health.suspended_since
    return gettext('since {since}: {error}').format(since=moment(since), error=health.last_error)


def is_used(webhook: Webhook) -> bool:
    """Whether the webhook has object types, or an enabled event rule sends through it.

    Takes a query without `with_states`.
    """
    if 'is_used' in vars(webhook):
        return vars(webhook)['is_used']
    return with_states(Webhook.objects.filter(pk=webhook.pk)).values_list('is_used', flat=True).get()


def hindering(webhook: Webhook) -> State | None:
    """Return the state in which the webhook sends nothing now, None if it sends.

    Takes no query if its health is loaded.
    """
    health = getattr(webhook, 'health', None)
    if not webhook.enabled:
        return GONE if health and health.last_status == constants.STATUS_GONE else DISABLED
    if webhook.paused:
        return PAUSED
    return SUSPENDED if health and health.suspended_since else None


def state_of(webhook: Webhook) -> State:
    """Return the state of the webhook: the first in STATES that matches.

    Takes a query at most, none after `with_states`.
    """
    health = getattr(webhook, 'health', None)
    if found := hindering(webhook):
        return found
    if health and health.last_error:
        return FAILING
    return ACTIVE if is_used(webhook) else UNUSED


def refuses(health: Health) -> bool:
    """Whether a suspended webhook's endpoint answers, but only with failures."""
    return health.refused_since is not None and not health.unreachable


def lacks_secret(health: Health) -> bool:
    """Whether a suspended webhook waits for a secret that the operator provides: its error begins with a reference."""
    return references.is_reference(health.last_error.partition(': ')[0])


def in_state(key: str) -> Q:
    """Return the condition for webhooks in this state, given as a key of STATES. Only after `with_states`."""
    earlier = list(STATES)[: list(STATES).index(key)]
    query = STATES[key].query
    for taken in earlier:
        query &= ~STATES[taken].query
    return query


def both_sign(webhook: Webhook) -> str:
    """Return a sentence that says until when both secrets sign. '' if only one does."""
    if not webhook.is_previous_secret_valid:
        return ''
    return gettext('Until {until}, requests are signed with the previous secret as well.').format(
        until=moment(webhook.previous_secret_expires)
    )


def rotation_warning(webhook: Webhook) -> str:
    """Return a warning for forms: a new secret would end the previous one at once.

    '' if there is no valid previous one.
    """
    if not webhook.is_previous_secret_valid:
        return ''
    text = gettext(
        'If you replace the secret now, the previous one stops being valid at once, and receivers that still use '
        'it reject the requests.'
    )
    return f'{both_sign(webhook)} {text}'


def marks_of(event: Event) -> list[str]:
    """Return the words that mark an event as a test or a part of a backfill. Empty for a usual change."""
    marks = ((event.test, gettext('Test')), (event.backfill, gettext('Backfill')))
    return [mark for is_marked, mark in marks if is_marked]
