"""Rescue: what a worker held when it stopped is tried again, by itself.

A lease that runs out without an outcome is an attempt that came to nothing: it has its place in the log, and is not
one of those that the webhook allows. It may have been this delivery that stopped the worker. So it is a suspect, which
is tried in a process of its own (quarantine.py), and fails only by what that dies of. A test is not repeated.
"""

import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from ..choices import StatusChoices
from ..constants import LEASE_MARGIN
from ..models import Delivery
from ..models.querysets import LONG_COLUMNS
from ..payload.http_request import Builder
from ..transport.exchange import Outcome
from . import lanes, ledger, outcomes, sql
from .claimed import Claimed
from .outcomes import Judged
from .verdict import Verdict, fail, try_again

LAPSED = 'its worker stopped, or was cut off, before an outcome was recorded'

# `lapses` of a delivery that was in hand when a worker stopped. Each death of its own process is one more.
SUSPECT = 1

# Columns of the event that are long.
UNREAD = tuple(f'event__{name}' for name in LONG_COLUMNS)

# Deliveries in one transaction.
PART = 100

# Lanes that are free: what lapsed in one that somebody holds keeps none of the others from it. What a deleted webhook
# has left is purged.
TAKE = """
    SELECT w.id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
    WHERE (
        SELECT true FROM webhooks_delivery d
        WHERE d.webhook_id = w.id AND d.status = 'sending' AND d.lease_until < %(now)s ORDER BY d.lease_until LIMIT 1
    ) LIMIT %(part)s
    FOR UPDATE OF h SKIP LOCKED"""

TAKE_OVER = """
    UPDATE webhooks_delivery SET lease = %(lease)s WHERE status = 'sending' AND id = ANY(ARRAY(
        SELECT id FROM webhooks_delivery
        WHERE status = 'sending' AND lease_until < %(now)s AND webhook_id = ANY(%(lanes)s) LIMIT %(part)s
    ))
    RETURNING id"""


END_LEASE = (
    'UPDATE webhooks_event SET lease_until = now() WHERE dispatched_at IS NULL AND lease = %s',
    "UPDATE webhooks_delivery SET lease_until = now() WHERE status = 'sending' AND lease = %s",
)


def rescue() -> bool:
    """Record what lapsed as an attempt without an outcome, some at a time. Returns whether there was any."""
    lease = uuid.uuid4()
    with lanes.turn() as now:
        lapsed = _take_over(lease, now)
        save(lease, [judge(one, LAPSED, max(one.lapses, SUSPECT), decide_lapsed(one, now), now) for one in lapsed], now)
    return bool(lapsed)


def end_lease(lease: uuid.UUID) -> None:
    """Let others take what is held under the lease: its holder is dead. It needs no lane, for nobody counts leases."""
    with lanes.turn():
        for statement in END_LEASE:
            sql.execute(statement, [lease])


def _take_over(lease: uuid.UUID, now: datetime) -> list[Delivery]:
    held = sql.fetch_column(TAKE, {'now': now, 'part': PART})
    if not held:
        return []
    return fetch(sql.fetch_column(TAKE_OVER, {'lease': lease, 'now': now, 'part': PART, 'lanes': held}))


def fetch(pks: Iterable[int]) -> list[Delivery]:
    """Return deliveries for `judge`."""
    return list(Delivery.objects.filter(pk__in=pks).select_related('webhook', 'event').defer(*UNREAD).order_by('pk'))


def decide_lapsed(one: Delivery, now: datetime) -> Verdict:
    """Return what becomes of a delivery whose lease has run out. It has waited for that, and need not wait again."""
    if one.event.test:
        return fail(one)
    return try_again(one, now)


def judge(one: Delivery, error: str, lapses: int, verdict: Verdict, now: datetime) -> Judged:
    """Return the record of an attempt without an outcome."""
    began = one.lease_until - timedelta(seconds=one.webhook.effective_timeout + LEASE_MARGIN)
    duration = max((now - began).total_seconds(), 0)
    outcome = Outcome(started_at=began.timestamp(), duration=duration, error=error)
    claimed = Claimed(one, Builder(one.webhook), outcome=outcome)
    return claimed, verdict, outcomes.row(claimed, verdict, lapses)


def save(lease: uuid.UUID, judged: list[Judged], now: datetime) -> None:
    """Record attempts without an outcome, of deliveries that are held under the lease in lanes of the caller."""
    recorded = outcomes.save(lease, judged, now)
    failed = [one.delivery for one, verdict in recorded if verdict.status == StatusChoices.FAILED]
    ledger.note_failed(Counter(one.webhook_id for one in failed), now)
