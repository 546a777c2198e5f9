"""Evaluates conditions that may take long, a little of each webhook at a time, beside the dispatch of events.

A regular expression may take 50 ms, as may a hundred comparisons of long texts. If 30 webhooks with one were decided
together with all others, each change would take seconds for everybody. So dispatch makes an undecided delivery. No
sender sees it, but later changes of its object wait for it. When it is its webhook's turn, it becomes pending, or it
goes.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from ...interruptions import Shortage
from ...models import Webhook, querysets
from .. import sql
from ..deliver import order, quiet
from . import matching
from .render import Shown

logger = logging.getLogger('webhooks.dispatch')

# All webhooks together have at most this time between two batches of events.
STEP_SECONDS = 0.1
# A webhook has this time in its turn, but at least one evaluation. So it reads no more deliveries than that may take.
TURN_SECONDS = 0.02
TURN_DELIVERIES = 50

# The next webhook by id that has an undecided delivery.
FIND_NEXT_WEBHOOK = """
    SELECT webhook_id FROM webhooks_delivery WHERE status = 'undecided' AND webhook_id > %s
    ORDER BY webhook_id LIMIT 1"""

# A webhook's undecided deliveries, the oldest first, but none that another dispatcher evaluates.
LOCK_UNDECIDED = """
    SELECT id, event_id FROM webhooks_delivery WHERE status = 'undecided' AND webhook_id = %s
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"""

# Undecided to pending: their conditions are met.
RELEASE_MET = f"""
    UPDATE webhooks_delivery d SET status = 'pending', due_at = v.due_at, waits_until = v.waits_until
    FROM (
        SELECT d.id, {quiet.DUE_AT} AS due_at, q.latest AS waits_until
        FROM webhooks_delivery d
        JOIN webhooks_event e ON e.id = d.event_id JOIN webhooks_webhook w ON w.id = d.webhook_id
        CROSS JOIN LATERAL (SELECT d.change_set, d.created AS since) s LEFT JOIN LATERAL ({quiet.WINDOW}) q ON true
        WHERE d.id = ANY(%s)
    ) v
    WHERE d.id = v.id AND d.status = 'undecided'"""

# Undecided to gone: their conditions are not met, which their events count.
REMOVE_UNMET = """
    WITH removed AS (DELETE FROM webhooks_delivery WHERE id = ANY(%s) AND status = 'undecided' RETURNING event_id)
    UPDATE webhooks_event e SET skipped = skipped + 1 FROM removed WHERE e.id = removed.event_id"""


class Undecided:
    """Whose turn it is to have undecided deliveries decided. Each dispatcher has its own."""

    def __init__(self) -> None:
        self._last_webhook = 0

    def step(self) -> int:
        """Decide deliveries of webhooks in turn, for STEP_SECONDS: each is pending, or gone. Returns how many.

        Raises OperationalError or InternalError if PostgreSQL ends a transaction: its deliveries stay undecided.
        """
        until = time.monotonic() + STEP_SECONDS
        decided, in_vain = 0, set()
        while (webhook_id := self._next_webhook()) not in {None, *in_vain}:
            count = _decide_some(webhook_id)
            decided += count
            # A deleted webhook, or a locked lane, must not keep others from their turn.
            in_vain = set() if count else in_vain | {webhook_id}
            if time.monotonic() > until:
                break
        return decided

    def _next_webhook(self) -> int | None:
        for after in (self._last_webhook, 0):
            if found := sql.fetch_column(FIND_NEXT_WEBHOOK, [after]):
                (self._last_webhook,) = found
                return self._last_webhook
        return None


def _decide_some(webhook_id: int) -> int:
    """Evaluate a webhook's conditions for TURN_SECONDS, and record that. Returns how many deliveries were decided."""
    with sql.transaction() as now:
        webhook = Webhook.objects.filter(pk=webhook_id).first()
        rows = sql.fetch(LOCK_UNDECIDED, [webhook_id, TURN_DELIVERIES]) if webhook else []
        verdicts = dict(_evaluate(webhook, rows))
        met = [pk for pk, is_met in verdicts.items() if is_met]
        unmet = [pk for pk, is_met in verdicts.items() if not is_met]
        sql.execute(RELEASE_MET, [met])
        return len(met) + _remove(webhook_id, unmet, now)


def _evaluate(webhook: Webhook, rows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bool]]:
    """Yield (id of a delivery, whether its event meets the conditions), as many as the time allows, at least one."""
    until = time.monotonic() + TURN_SECONDS
    events = querysets.events().in_bulk([event_id for _pk, event_id in rows])
    for pk, event_id in rows:
        try:
            yield pk, matching.meets(webhook, Shown.of_dispatched(events[event_id]))
        except Shortage as error:
            logger.warning(
                'webhook=%s name=%r conditions=undecided reason="%s" (it is tried again)',
                webhook.pk,
                webhook.name,
                error,
            )
            return
        if time.monotonic() > until:
            return


def _remove(webhook_id: int, unmet: Sequence[int], now: datetime) -> int:
    """Remove deliveries; the next of their objects are due. Returns how many: none if a sender has locked the lane.

    If a later delivery of an object was parked in that moment, nobody would make it due. So they stay undecided.
    """
    if not unmet or not order.try_lock_lanes([webhook_id]):
        return 0
    order.unpark(unmet, now)
    return sql.execute(REMOVE_UNMET, [unmet])
