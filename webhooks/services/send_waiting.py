"""Counts the deliveries that wait for a webhook, and sends them now."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import delivery_states
from ..engine import commands, sql
from ..models import Delivery, Webhook
from ..outbox import wakeup
from ..presentation import states
from . import switching
from .backlog import waiting_since

# Count pending deliveries, and the objects that they are about.
COUNT_WAITING_OBJECTS = f"""
    SELECT count(*), count(DISTINCT (object_type_id, object_id)) FROM (
        SELECT object_type_id, object_id FROM webhooks_delivery
        WHERE webhook_id = %(webhook)s AND status {delivery_states.PENDING} LIMIT %(most)s
    ) d"""


@dataclass(frozen=True)
class Waiting:
    """How many changes of how many objects wait.

    `since`: the oldest one. A count of MAX_WAITING_COUNTED means that or more.
    """

    changes: int
    objects: int
    since: datetime | None

    def __str__(self) -> str:
        changes = ngettext('%(shown)s change', '%(shown)s changes', self.changes) % {'shown': _shown(self.changes)}
        objects = ngettext('%(shown)s object', '%(shown)s objects', self.objects) % {'shown': _shown(self.objects)}
        return f'{changes} · {objects}'


def _shown(count: int) -> str:
    return f'{intcomma(count)}+' if count >= states.MAX_WAITING_COUNTED else intcomma(count)


def measure(webhook: Webhook) -> Waiting:
    """Count the pending deliveries of a webhook, and their objects, up to MAX_WAITING_COUNTED, as in lists."""
    changes, objects = sql.fetch(COUNT_WAITING_OBJECTS, {'webhook': webhook.pk, 'most': states.MAX_WAITING_COUNTED})[0]
    since = waiting_since(Delivery.objects.filter(webhook=webhook)) if changes else None
    return Waiting(changes, objects, since)


def send(webhook: Webhook, *, latest_only: bool = False) -> int:
    """Make waiting deliveries due, without a probe or retry first. Return how many were superseded.

    `latest_only`: only the latest change of each object stays. It supersedes earlier ones, in a transaction for some
    objects at a time. Raises DefinitionError as switching.check_sends(), and changes nothing then.
    """
    switching.check_sends(webhook)
    superseded = commands.supersede(webhook.pk) if latest_only else 0
    commands.retry_now(webhook.pk)
    wakeup.wake()
    return superseded


def announce(webhook: Webhook, superseded: int, *, latest_only: bool) -> str:
    """Return the message to the user after `send`."""
    if states.hindering(webhook):
        text = _(
            '{webhook} is suspended: one delivery is tried now. If the receiver accepts it, the others follow. '
            'Replaced deliveries: {count}.'
        )
        return text.format(webhook=webhook, count=intcomma(superseded))
    if not latest_only:
        return _('{webhook}: all waiting deliveries are sent now.').format(webhook=webhook)
    text = ngettext(
        '{webhook}: only the latest changes are sent now. They replace {count} delivery.',
        '{webhook}: only the latest changes are sent now. They replace {count} deliveries.',
        superseded,
    )
    return text.format(webhook=webhook, count=intcomma(superseded))
