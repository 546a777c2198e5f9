"""What waits for a webhook, and sending it when the endpoint is back: all of it, or of each object only the latest."""

from dataclasses import dataclass
from datetime import datetime
from itertools import batched

from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..engine import lanes, sql, superseding
from ..engine.lanes import PART
from ..models import Delivery, Health, Webhook
from ..outbox import wakeup
from .backlog import waiting_since

# Changes that are counted at most: a page must not read a backlog of millions.
MOST = 100_000

PENDING = f"""
    SELECT d.id, d.object_type_id, d.object_id FROM webhooks_delivery d
    WHERE d.webhook_id = %(webhook)s AND {sql.pending('d')} AND d.event_count = 1
    UNION ALL
    SELECT d.id, i.object_type_id, i.object_id
    FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id
    WHERE i.webhook_id = %(webhook)s AND i.open AND d.status = 'pending'"""

COUNT = f"""
    SELECT count(*), count(DISTINCT (object_type_id, object_id)) FROM ({PENDING} LIMIT %(most)s) p"""

# Of each object that has several deliveries one: its id, and how many events it tells of.
WITH_COMPANY = f"""
    SELECT d.id, d.event_count FROM webhooks_delivery d WHERE d.id IN (
        SELECT min(id) FROM ({PENDING}) p GROUP BY object_type_id, object_id HAVING count(*) > 1
    )"""

RETRIED = """
    SELECT id FROM webhooks_delivery WHERE webhook_id = %(webhook)s AND status = 'pending' AND due_at > %(now)s"""
RETRY_NOW = """
    UPDATE webhooks_delivery SET due_at = %(now)s
    WHERE id = ANY(%(ids)s) AND status = 'pending' AND due_at > %(now)s"""


@dataclass(frozen=True)
class Waiting:
    """Changes that wait for a webhook, of how many objects, and since when the oldest does. MOST: that or more."""

    changes: int
    objects: int
    since: datetime | None

    def __str__(self) -> str:
        changes = ngettext('%(shown)s change', '%(shown)s changes', self.changes) % {'shown': _shown(self.changes)}
        objects = ngettext('%(shown)s object', '%(shown)s objects', self.objects) % {'shown': _shown(self.objects)}
        return _('{changes} of {objects}').format(changes=changes, objects=objects)


def _shown(count: int) -> str:
    return f'{intcomma(count)}+' if count >= MOST else intcomma(count)


def measure(webhook: Webhook) -> Waiting:
    """Return what has been dispatched for the webhook, and is neither sent nor under way."""
    changes, objects = sql.fetch(COUNT, {'webhook': webhook.pk, 'most': MOST})[0]
    since = waiting_since(Delivery.objects.filter(webhook=webhook)) if changes else None
    return Waiting(changes, objects, since)


def send(webhook: Webhook, *, latest_only: bool = False) -> int:
    """Let what waits go now: nothing waits any longer for a probe or a retry. Returns how many were superseded.

    `latest_only`: of each object only its last change, once, whatever the webhook's own option says. Of a webhook that
    is paused or disabled nothing is sent all the same. Raises Busy where the lane is not free in time.
    """
    superseded = _supersede(webhook) if latest_only else 0
    _retry_now(webhook)
    wakeup.wake()
    return superseded


def announce(webhook: Webhook, superseded: int, *, latest_only: bool) -> str:
    """Say what became of what waited."""
    if not latest_only:
        return _('{webhook}: what waits is sent.').format(webhook=webhook)
    text = ngettext(
        '{webhook}: only the latest is sent, {count} delivery was superseded.',
        '{webhook}: only the latest is sent, {count} deliveries were superseded.',
        superseded,
    )
    return text.format(webhook=webhook, count=intcomma(superseded))


def _supersede(webhook: Webhook) -> int:
    total, more = 0, True
    while more:
        more = False
        for portion in superseding.portions(sql.fetch(WITH_COMPANY, {'webhook': webhook.pk})):
            with lanes.hold(webhook.pk) as now:
                closed = superseding.supersede(portion, now)
            total += closed.count
            more |= closed.more
    return total


def _retry_now(webhook: Webhook) -> None:
    with lanes.hold(webhook.pk) as now:
        Health.objects.filter(webhook=webhook, suspended_since__isnull=False).update(probe_at=now)
        retried = sql.fetch_column(RETRIED, {'webhook': webhook.pk, 'now': now})
    for part in batched(retried, PART):
        with lanes.hold(webhook.pk) as now:
            sql.execute(RETRY_NOW, {'ids': list(part), 'now': now})
