"""A dead worker's lanes are free, and its work in hand is due again."""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from ..choices import StatusChoices
from ..models import Delivery, Event
from ..models.querysets import LONG_COLUMNS
from ..payload.http_request import Builder
from ..transport.exchange import Outcome
from . import sql, transactions
from .deliver import endpoint, order, record
from .deliver.backoff import delay
from .deliver.build import Sent
from .deliver.verdict import Verdict, fail, try_again
from .registry import ALIVE, BEGINS, GIVEN_UP, STOPPED, SUSPECT, SUSPECTS

logger = logging.getLogger('webhooks.worker')

# A worker whose time is over, with the time of its last beat. Not the caller: it is alive, and only late.
DEAD = """
    SELECT id, role, events, deliveries, alive_until - make_interval(secs => %(alive)s) FROM webhooks_worker
    WHERE alive_until < clock_timestamp() AND id IS DISTINCT FROM %(caller)s LIMIT 1 FOR UPDATE SKIP LOCKED"""
REST = timedelta(seconds=30)
# Deliveries in a transaction.
MOST = 2000

# PostgreSQL may take a moment to end the worker's transaction.
ENDED = 'SELECT id, role, events, deliveries, NULL FROM webhooks_worker WHERE name = %(name)s FOR UPDATE'

# A dead worker keeps a lane as long as it keeps one of its deliveries.
FREE = """
    UPDATE webhooks_health SET owner_id = NULL WHERE webhook_id = ANY(ARRAY(
        SELECT webhook_id FROM webhooks_health
        WHERE owner_id = %(id)s AND webhook_id <> ALL(ARRAY(
            SELECT webhook_id FROM webhooks_delivery WHERE id = ANY(%(left)s)
        ))
        FOR UPDATE SKIP LOCKED
    ))"""

FORGET_WORKER = """
    DELETE FROM webhooks_worker w
    WHERE id = %(id)s AND NOT EXISTS (SELECT FROM webhooks_health h WHERE h.owner_id = w.id)"""

# Further deliveries wait, as do locked lanes. The worker is dead all the same.
KEEP = """
    UPDATE webhooks_worker
    SET role = 'dead', events = '{}', deliveries = %(left)s,
        alive_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE id = %(id)s"""


def rescue(name: str | None = None, reason: str | None = None, *, caller: int | None = None) -> bool:
    """Returns whether there was a dead worker.

    `name`: a worker whose process has ended, with the reason if that is its own fault. Without it, any worker but the
    `caller` (its id): that one is alive.
    """
    with transactions.short() as now:
        found = sql.fetch(ENDED if name else DEAD, {'alive': ALIVE, 'name': name, 'caller': caller})
        for pk, role, events, deliveries, since in found:
            blame = reason if role == SUSPECTS else None
            _rescue_events(events, now, blame)
            rest = deliveries[MOST:]
            locked = _rescue_deliveries(deliveries[:MOST], now, since, blame)
            left = rest + locked
            sql.execute(FREE, {'id': pk, 'left': left})
            if left or not sql.execute(FORGET_WORKER, {'id': pk}):
                sql.execute(KEEP, {'id': pk, 'left': left, 'seconds': 0 if rest and not locked else 1})
            logger.warning('worker=%s dead events=%d deliveries=%d', pk, len(events), len(deliveries))
    return bool(found)


def _rescue_events(ids: Collection[int], now: datetime, blame: str | None) -> None:
    for event in Event.objects.filter(pk__in=ids, dispatched_at=None).defer(*LONG_COLUMNS):
        lapses, wait, error = _state(event, blame)
        if event.lapses >= SUSPECT and not blame:
            wait = REST  # PostgreSQL itself may die of it
        Event.objects.filter(pk=event.pk).update(lapses=lapses, retry_at=now + wait, error=error, stopped=blame is None)


def _rescue_deliveries(ids: Collection[int], now: datetime, since: datetime | None, blame: str | None) -> list[int]:
    """Give each an attempt without an answer. Returns the ids with locked lanes.

    `since`: after its last beat. Its requests may still be open.
    """
    unread = [f'event__{name}' for name in LONG_COLUMNS]
    pending = Delivery.objects.filter(pk__in=ids, status=StatusChoices.PENDING)
    held = list(pending.select_related('webhook__health', 'event').defer(*unread))
    wanted = {one.webhook_id for one in held}
    if blame:
        # A death that is not counted now never is.
        transactions.set_lock_timeout(500)
        order.hold(wanted)
    lanes = order.lock(wanted)
    judged = [_judge(one, now, since, blame) for one in held if one.webhook_id in lanes]
    failed = [entry for entry in record.record(judged, now) if entry.status == StatusChoices.FAILED]
    endpoint.write([entry._replace(outcome=None) for entry in failed], now)
    return [one.pk for one in held if one.webhook_id not in lanes]


def _judge(one: Delivery, now: datetime, since: datetime | None, blame: str | None) -> tuple[Sent, Verdict]:
    lapses, wait, error = _state(one, blame)
    sent = Sent(one, Builder(one.webhook))
    sent.outcome = Outcome(started_at=now.timestamp(), duration=0, error=error)
    # Its request must not arrive after a later change.
    over = since + timedelta(seconds=BEGINS + one.webhook.effective_timeout) if since else now
    gives_up = lapses >= GIVEN_UP or one.event.test
    verdict = fail(one) if gives_up else try_again(one, max(now, over) + wait)
    verdict.lapses, verdict.stopped = lapses, blame is None
    return sent, verdict


def _state(one: Event | Delivery, blame: str | None) -> tuple[int, timedelta, str]:
    """Return its `lapses`, its wait and its error."""
    if not blame:
        return max(one.lapses, SUSPECT) if one.stopped else one.lapses, timedelta(), STOPPED
    deaths = one.lapses + 1 - SUSPECT
    times = {1: 'once', 2: 'twice'}.get(deaths, f'{deaths} times')
    wait = delay(deaths, 0.5) if one.lapses + 1 < GIVEN_UP else timedelta()
    return one.lapses + 1, wait, f'its process died {times} ({blame})'
