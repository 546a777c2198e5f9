"""Counts the deliveries that wait for a webhook, and sends them now."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import batched, chain

from django.contrib.humanize.templatetags.humanize import intcomma
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..choices import StatusChoices
from ..engine import sql
from ..engine.deliver import endpoint, merge, order
from ..models import Delivery, Health, Webhook
from ..outbox import wakeup
from ..presentation import states
from .backlog import waiting_since

# So many are counted at most, as in lists.
MAX_CHANGES_COUNTED = states.MAX_WAITING_COUNTED

# Count pending deliveries, and the objects that they are about.
COUNT_WAITING = """
    SELECT count(*), count(DISTINCT (object_type_id, object_id)) FROM (
        SELECT object_type_id, object_id FROM webhooks_delivery
        WHERE webhook_id = %(webhook)s AND status = 'pending' LIMIT %(most)s
    ) d"""

# Read the objects that have more than one pending delivery, with the webhook.
READ_SEVERAL = """
    SELECT webhook_id, object_type_id, object_id FROM webhooks_delivery
    WHERE webhook_id = %(webhook)s AND status = 'pending'
    GROUP BY webhook_id, object_type_id, object_id HAVING count(*) > 1"""

# Read the ids of deliveries that the lane's owner has in hand. They are left alone.
IN_HAND = """
    SELECT w.deliveries FROM webhooks_worker w JOIN webhooks_health h ON h.owner_id = w.id
    WHERE h.webhook_id = %(webhook)s"""

# From waiting for a retry, or for a quiet object, to due. Suspects and deliveries of stopped workers are left out:
# their requests may still be under way.
RETRY_NOW = """
    UPDATE webhooks_delivery SET due_at = now(), waits_until = NULL
    WHERE webhook_id = %(webhook)s AND status = 'pending' AND lapses = 0 AND NOT stopped AND due_at > now()"""


@dataclass(frozen=True)
class Waiting:
    """How many changes of how many objects wait.

    `since`: the oldest one. A count of MAX_CHANGES_COUNTED means that or more.
    """

    changes: int
    objects: int
    since: datetime | None

    def __str__(self) -> str:
        changes = ngettext('%(shown)s change', '%(shown)s changes', self.changes) % {'shown': _shown(self.changes)}
        objects = ngettext('%(shown)s object', '%(shown)s objects', self.objects) % {'shown': _shown(self.objects)}
        return f'{changes} · {objects}'


def _shown(count: int) -> str:
    return f'{intcomma(count)}+' if count >= MAX_CHANGES_COUNTED else intcomma(count)


def measure(webhook: Webhook) -> Waiting:
    """Count the pending deliveries of a webhook, and their objects, up to MAX_CHANGES_COUNTED."""
    changes, objects = sql.fetch(COUNT_WAITING, {'webhook': webhook.pk, 'most': MAX_CHANGES_COUNTED})[0]
    since = waiting_since(Delivery.objects.filter(webhook=webhook)) if changes else None
    return Waiting(changes, objects, since)


def is_held(webhook: Webhook) -> bool:
    """Whether its deliveries are held until somebody enables or resumes it."""
    return webhook.paused or not webhook.enabled


def send(webhook: Webhook, *, latest_only: bool = False) -> int:
    """Make waiting deliveries due, without a probe or retry first. Return how many were superseded.

    `latest_only`: only the latest change of each object stays. It supersedes earlier ones, in a transaction for some
    objects at a time.
    """
    superseded = _supersede(webhook) if latest_only else 0
    _retry_now(webhook)
    wakeup.wake()
    return superseded


def announce(webhook: Webhook, superseded: int, *, latest_only: bool) -> str:
    """Return the message to the user after `send`."""
    if is_held(webhook):
        text = _('{webhook} is disabled or paused: nothing is sent yet. Replaced deliveries: {count}.')
        return text.format(webhook=webhook, count=intcomma(superseded))
    if not latest_only:
        return _('{webhook}: all waiting deliveries are sent now.').format(webhook=webhook)
    text = ngettext(
        '{webhook}: only the latest changes are sent now. They replace {count} delivery.',
        '{webhook}: only the latest changes are sent now. They replace {count} deliveries.',
        superseded,
    )
    return text.format(webhook=webhook, count=intcomma(superseded))


def _supersede(webhook: Webhook) -> int:
    total = 0
    for portion in batched(sql.fetch(READ_SEVERAL, {'webhook': webhook.pk}), merge.OBJECTS_PER_READ):
        while closed := _supersede_some(webhook, portion):
            total += closed
    return total


def _supersede_some(webhook: Webhook, objects: Collection[merge.Object]) -> int:
    with transaction.atomic():
        order.lock_lanes([webhook.pk])
        in_hand = chain.from_iterable(sql.fetch_column(IN_HAND, {'webhook': webhook.pk}))
        now = sql.fetch_value('SELECT clock_timestamp()')
        closed = merge.supersede(objects, now, list(in_hand))
        endpoint.note(StatusChoices.SUPERSEDED, closed, now)
        return closed.total()


def _retry_now(webhook: Webhook) -> None:
    Health.objects.filter(webhook=webhook, suspended_since__isnull=False).update(probe_at=Now())
    sql.execute(RETRY_NOW, {'webhook': webhook.pk})
