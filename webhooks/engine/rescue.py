"""Rescue: what a worker held when it stopped is tried again, after a while and by itself.

A lease that runs out without an outcome is an attempt that came to nothing: it has its place in the log, and the next
one comes after the same wait as after any failure. It may have been this delivery that stopped the worker, so it is
claimed alone (claims.choose_lapsed), and fails where its lease runs out three times in a row. A test is not repeated.
"""

import random
import uuid
from collections import Counter
from datetime import datetime, timedelta

from django.db import connection

from ..choices import StatusChoices
from ..constants import LEASE_MARGIN
from ..models import Delivery
from ..models.querysets import LONG_COLUMNS
from ..transport.exchange import Outcome
from . import backoff, lanes, ledger, outcomes
from .claimed import Claimed
from .outcomes import Judged
from .verdict import Verdict

# Leases in a row that may run out before a delivery fails by it: a deploy that kills its workers fails nothing.
LAPSES = 3
LAPSED = 'its worker stopped, or was cut off, before an outcome was recorded'

# Columns of the event that are long.
UNREAD = tuple(f'event__{name}' for name in LONG_COLUMNS)

# Deliveries in one transaction.
PART = 100

LAPSED_LANES = """
    SELECT DISTINCT webhook_id FROM (
        SELECT webhook_id FROM webhooks_delivery WHERE status = 'sending' AND lease_until < %(now)s LIMIT %(part)s
    ) d"""

TAKE_OVER = """
    UPDATE webhooks_delivery SET lease = %(lease)s WHERE status = 'sending' AND id = ANY(ARRAY(
        SELECT id FROM webhooks_delivery
        WHERE status = 'sending' AND lease_until < %(now)s AND webhook_id = ANY(%(lanes)s) LIMIT %(part)s
    ))
    RETURNING id"""


def rescue() -> bool:
    """Record what lapsed as an attempt without an outcome, some at a time. Returns whether there was any."""
    lease = uuid.uuid4()
    with lanes.turn() as now:
        lapsed = _take_over(lease, now)
        recorded = outcomes.save(lease, [_judge(one, now) for one in lapsed], now)
        failed = [one.delivery for one, verdict in recorded if verdict.status == StatusChoices.FAILED]
        ledger.note_failed(Counter(one.webhook_id for one in failed), now)
    return bool(lapsed)


def _take_over(lease: uuid.UUID, now: datetime) -> list[Delivery]:
    with connection.cursor() as cursor:
        cursor.execute(LAPSED_LANES, {'now': now, 'part': PART})
        held = lanes.take([pk for (pk,) in cursor.fetchall()])
        if not held:
            return []
        cursor.execute(TAKE_OVER, {'lease': lease, 'now': now, 'part': PART, 'lanes': list(held)})
        pks = [pk for (pk,) in cursor.fetchall()]
    return list(Delivery.objects.filter(pk__in=pks).select_related('webhook', 'event').defer(*UNREAD).order_by('pk'))


def _judge(one: Delivery, now: datetime) -> Judged:
    began = one.lease_until - timedelta(seconds=one.webhook.effective_timeout + LEASE_MARGIN)
    duration = max((now - began).total_seconds(), 0)
    lapsed = Claimed(one, outcome=Outcome(started_at=began.timestamp(), duration=duration, error=LAPSED))
    verdict = decide_lapsed(one, now, random.random())
    return lapsed, verdict, outcomes.row(lapsed, verdict, lapsed=True)


def decide_lapsed(one: Delivery, now: datetime, chance: float) -> Verdict:
    """Return what becomes of a delivery whose lease has run out. `chance` in [0, 1)."""
    tries, limit = one.attempt_count + 1, one.attempt_limit
    if one.event.test or one.lapses + 1 >= LAPSES:
        return Verdict(StatusChoices.FAILED, tries, limit)
    return Verdict(StatusChoices.PENDING, tries, limit, now + backoff.delay(tries, chance))
