"""Gives back the work of a dead worker. Begin here to learn what happens when one dies.

In hand means: the worker's row lists it, from the commit before its request begins to the commit that records the
answer. So nobody knows whether the request was not begun, was under way, or was answered: all three end alike. In the
database, only what was committed counts. A dispatcher commits the data and the deliveries of a slice together, so what
it has done stays.

1. The supervisor notices at once that a process has ended, frees its work, and starts a new one, at least a second
   after the last start (process/supervisor.py). A timer ends one that hangs: a dispatcher after 30 seconds, a sender
   after 60 (HANG_SECONDS of each), the suspects' process at the suspect's time limit. If the supervisor ends, the
   kernel ends its processes (templating/process.py), and supervisord or systemd starts it again. Their work, or that of
   a process that hangs or a host that is lost, is free once the last heartbeat is ten seconds old: any sender looks
   each second (look_after_others() in process/sender.py), but no dispatcher does. A heartbeat of the suspects' process
   covers its time limit and ten seconds more: 70 seconds, or its webhook's timeout and 35 if that is longer
   (process/suspects.py).
2. Its lanes are free, and another sender takes them.
3. Its events in hand that are not dispatched are dispatched again. Each of its deliveries in hand, also each one of a
   change set, gets an attempt with the error STOPPED, and is DOUBTFUL: due again now, or, if the worker may be alive,
   when its request must have ended. If its webhook is `ordered`, later changes of its object go after it. The receiver
   may get it twice, under one `webhook-id`. It has as many attempts left as before. A test that was sent again fails
   instead; one that a page sends expires.
4. A delivery that was in hand at two deaths in a row is a suspect, as is an event that was at two deaths before it was
   dispatched, or that takes too long (dispatch/put_off.py). A process of its own tries it (process/suspects.py): an
   event alone, a delivery of a change set with its part. At the third death of that process it fails, an event with a
   failed delivery for each webhook that takes it (dispatch/render.py). For these three, crashes, kills and time-outs
   count; SIGTERM, a stop of the worker and the loss of its host do not.
5. If PostgreSQL ends a dispatcher's transaction for another reason than a lock, one of its events may be why. That
   counts as a death for "two in a row", but not for the three (dispatch/loop.py). A sender does its turn again.
6. A worker that was only frozen finds its row gone or `dead`. It records nothing, and begins anew (registry.py); the
   suspects' process ends if it was sending.

The death of a renderer of templates is none of these (templating/renderer.py).
"""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from ..choices import StatusChoices
from ..delivery_states import PENDING_STATES, DeliveryState
from ..models import Delivery, Event
from ..models.querysets import LONG_COLUMNS
from ..payload.http_request import Builder
from ..transport.exchange import Outcome
from . import sql
from .deliver import endpoint, order, record
from .deliver.backoff import delay
from .deliver.build import Call
from .deliver.verdict import Verdict, fail, try_again
from .registry import ALIVE_SECONDS, BEGIN_SECONDS, GIVEN_UP, STOPPED, SUSPECT, SUSPECTS

logger = logging.getLogger('webhooks.worker')

# Lock a worker whose heartbeat is overdue, and read when the last one came at the latest. Leave out the caller: it is
# only late.
LOCK_DEAD = """
    SELECT id, role, events, deliveries, alive_until - make_interval(secs => %(alive)s) FROM webhooks_worker
    WHERE alive_until < clock_timestamp() AND id IS DISTINCT FROM %(caller)s LIMIT 1 FOR UPDATE SKIP LOCKED"""

# A suspect event that was in hand at a crash of PostgreSQL itself may be its cause. So it waits before the next try.
SUSPECT_EVENT_WAIT = timedelta(seconds=30)
# If a worker had more in hand, another transaction does the rest.
DELIVERIES_PER_TRANSACTION = 2000

# Lock the worker whose process has ended. Wait for its row: PostgreSQL may end the worker's transaction a moment later.
LOCK_ENDED = 'SELECT id, role, events, deliveries, NULL FROM webhooks_worker WHERE name = %(name)s FOR UPDATE'

# Free a dead worker's lanes, except lanes with deliveries that are left.
FREE_LANES = """
    UPDATE webhooks_health SET owner_id = NULL WHERE webhook_id = ANY(ARRAY(
        SELECT webhook_id FROM webhooks_health
        WHERE owner_id = %(id)s AND webhook_id <> ALL(ARRAY(
            SELECT webhook_id FROM webhooks_delivery WHERE id = ANY(%(left)s)
        ))
        FOR UPDATE SKIP LOCKED
    ))"""

# Delete a dead worker that owns no lanes.
FORGET_WORKER = """
    DELETE FROM webhooks_worker w
    WHERE id = %(id)s AND NOT EXISTS (SELECT FROM webhooks_health h WHERE h.owner_id = w.id)"""

# Mark a worker as dead. After this many seconds the next rescue goes on with the deliveries and lanes that are left.
KEEP_DEAD = """
    UPDATE webhooks_worker
    SET role = 'dead', events = '{}', deliveries = %(left)s,
        alive_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE id = %(id)s"""


def rescue(name: str | None = None, reason: str | None = None, *, caller: int | None = None) -> bool:
    """Free a dead worker's lanes and its work in hand, and delete its row. Returns whether there was one.

    `name`: a worker whose process has ended, with the reason if that is its own fault: then the suspect that it tried
    is to blame. Without it, any worker whose heartbeat is overdue, except the `caller` (its id), which is alive. If too
    much is left, or locked, the row stays as `dead` for another call. Raises OperationalError if PostgreSQL interrupts
    it.
    """
    with sql.transaction() as now:
        found = sql.fetch(LOCK_ENDED if name else LOCK_DEAD, {'alive': ALIVE_SECONDS, 'name': name, 'caller': caller})
        for pk, role, events, deliveries, since in found:
            blame = reason if role == SUSPECTS else None
            _rescue_events(events, now, blame)
            rest = deliveries[DELIVERIES_PER_TRANSACTION:]
            locked = _rescue_deliveries(deliveries[:DELIVERIES_PER_TRANSACTION], now, since, blame)
            left = rest + locked
            sql.execute(FREE_LANES, {'id': pk, 'left': left})
            if left or not sql.execute(FORGET_WORKER, {'id': pk}):
                sql.execute(KEEP_DEAD, {'id': pk, 'left': left, 'seconds': 0 if rest and not locked else 1})
            logger.warning('worker=%s dead events=%d deliveries=%d', pk, len(events), len(deliveries))
    return bool(found)


def _rescue_events(ids: Collection[int], now: datetime, blame: str | None) -> None:
    for event in Event.objects.filter(pk__in=ids, dispatched_at=None).defer(*LONG_COLUMNS):
        lapses, wait, error = _lapsed(event.lapses, event.stopped, blame)
        if event.lapses >= SUSPECT and not blame:
            wait = SUSPECT_EVENT_WAIT
        Event.objects.filter(pk=event.pk).update(lapses=lapses, retry_at=now + wait, error=error, stopped=blame is None)


def _rescue_deliveries(ids: Collection[int], now: datetime, since: datetime | None, blame: str | None) -> list[int]:
    """Record an attempt without an answer for each delivery. Returns the ids of those whose lanes are locked.

    `since`: the latest time at which the worker's last heartbeat can have come. Its requests may still be open. None:
    its process has ended. A later call takes what is left, and treats the worker as possibly alive.
    """
    unread = [f'event__{name}' for name in LONG_COLUMNS]
    pending = Delivery.objects.filter(pk__in=ids, state__in=PENDING_STATES)
    in_hand = list(pending.select_related('webhook__health', 'event').defer(*unread))
    wanted = {one.webhook_id for one in in_hand}
    if blame:
        # If a lane is locked, the death must be counted all the same: nobody would count it later. So wait for it.
        sql.set_lock_timeout(500)
        order.lock_lanes(wanted)
    lanes = order.try_lock_lanes(wanted)
    judged = [_judge(one, now, since, blame) for one in in_hand if one.webhook_id in lanes]
    failed = [entry for entry in record.record(judged, now) if entry.status == StatusChoices.FAILED]
    endpoint.write([entry._replace(outcome=None) for entry in failed], now)
    return [one.pk for one in in_hand if one.webhook_id not in lanes]


def _judge(one: Delivery, now: datetime, since: datetime | None, blame: str | None) -> tuple[Call, Verdict]:
    lapses, wait, error = _lapsed(one.lapses, one.state == DeliveryState.DOUBTFUL, blame)
    call = Call(one, Builder(one.webhook))
    call.outcome = Outcome(started_at=now.timestamp(), duration=0, error=error)
    # The dead worker's request may still be open. Until it has ended, nothing later of the object may be sent.
    over = since + timedelta(seconds=BEGIN_SECONDS + one.webhook.effective_timeout) if since else now
    gives_up = lapses >= GIVEN_UP or one.event.test
    verdict = fail(one) if gives_up else try_again(one, max(now, over) + wait)
    verdict.lapses = lapses
    if not gives_up:
        verdict.state = DeliveryState.SUSPECT if lapses else DeliveryState.DOUBTFUL
    return call, verdict


def _lapsed(lapses: int, was_stopped: bool, blame: str | None) -> tuple[int, timedelta, str]:
    """Return the new `lapses` of an event or a delivery, its wait and its error.

    `was_stopped`: the worker of the attempt before it stopped too.
    """
    if not blame:
        return max(lapses, SUSPECT) if was_stopped else lapses, timedelta(), STOPPED
    deaths = lapses + 1 - SUSPECT
    times = {1: 'once', 2: 'twice'}.get(deaths, f'{deaths} times')
    wait = delay(deaths, 0.5) if lapses + 1 < GIVEN_UP else timedelta()
    return lapses + 1, wait, f'its process died {times} ({blame})'
