"""Who is at work, what each worker has in hand, and what becomes of that when one dies.

Each turn of a worker updates its own row, before it begins anything: alive for ten seconds more, with this in hand. If
the row is gone, somebody has declared the worker dead, and its turn records nothing. A worker begins nothing after its
time is over, by its own clock.
"""

import logging
import math
import time
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import DatabaseError, connection

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

logger = logging.getLogger('webhooks.worker')

# What a process does.
SEND, DISPATCH, SUSPECTS = 'send', 'dispatch', 'suspects'

# Seconds for which a worker is alive after its last turn, and in which a request may begin.
ALIVE, BEGINS = 10.0, 2.0

# How often something was in hand when a process stopped: 0, or it is a suspect. COMPANY: when a worker stopped, once or
# more. It is tried by a process of its own, with all others like it. Where that dies, it is tried alone, until as many
# processes have died of it as GIVEN_UP says.
COMPANY, GIVEN_UP = 1, 4

STOPPED = 'its worker stopped, or was cut off, before an outcome was recorded'

BEGIN = """
    INSERT INTO webhooks_worker (name, role, alive_until)
    VALUES (%(name)s, %(role)s, clock_timestamp() + make_interval(secs => %(seconds)s)) RETURNING id"""

BEAT = """
    UPDATE webhooks_worker
    SET alive_until = greatest(alive_until, clock_timestamp() + make_interval(secs => %(seconds)s)),
        events = coalesce(%(events)s::bigint[], events), deliveries = coalesce(%(deliveries)s::bigint[], deliveries)
    WHERE id = %(id)s AND role <> 'dead'"""

DEAD = """
    SELECT id, role, events, deliveries, alive_until - make_interval(secs => %(alive)s) FROM webhooks_worker
    WHERE alive_until < clock_timestamp()
    LIMIT 1 FOR UPDATE SKIP LOCKED"""

# PostgreSQL may take a moment to end what it was doing.
ENDED = """
    SELECT id, role, events, deliveries, alive_until - make_interval(secs => %(alive)s) FROM webhooks_worker
    WHERE name = %(name)s FOR UPDATE"""


FREE = """
    UPDATE webhooks_health SET owner_id = NULL WHERE webhook_id = ANY(ARRAY(
        SELECT webhook_id FROM webhooks_health WHERE owner_id = %(id)s FOR UPDATE SKIP LOCKED
    ))"""

FORGET = """
    DELETE FROM webhooks_worker w
    WHERE id = %(id)s AND NOT EXISTS (SELECT FROM webhooks_health h WHERE h.owner_id = w.id)"""

# Somebody holds a lane of it: what is left has to wait. The worker is dead all the same.
KEEP = """
    UPDATE webhooks_worker
    SET role = 'dead', events = '{}', deliveries = %(left)s, alive_until = clock_timestamp() + interval '1 second'
    WHERE id = %(id)s"""


class Lost(Exception):
    """Somebody has declared this worker dead: others may have what it had in hand."""


class Member:
    """This process among the workers."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self._role = role
        self.pk: int | None = None
        # When nothing more may begin, by time.monotonic().
        self.until = -math.inf
        self._next = self.until

    def begin(self) -> None:
        """Begin anew, with nothing in hand."""
        began = time.monotonic()
        self.pk = sql.fetch_value(BEGIN, {'name': self.name, 'role': self._role, 'seconds': ALIVE})
        self.until = self._next = began + BEGINS

    def beat(
        self,
        *,
        events: Collection[int] | None = None,
        deliveries: Collection[int] | None = None,
        seconds: float = ALIVE,
    ) -> None:
        """Say that it is alive, and what it has in hand. None: the same as before. Raises Lost."""
        began = time.monotonic()
        parameters = {
            'id': self.pk,
            'seconds': seconds,
            'events': None if events is None else list(events),
            'deliveries': None if deliveries is None else list(deliveries),
        }
        if not sql.execute(BEAT, parameters):
            raise Lost(self.name)
        self._next = began + BEGINS

    def confirm(self) -> None:
        """Its last beat is committed."""
        self.until = self._next

    def keep_alive(self) -> None:
        """Put its end off, called by another thread while its own is busy with what takes long."""
        try:
            sql.execute(BEAT, {'id': self.pk, 'seconds': ALIVE, 'events': None, 'deliveries': None})
        except DatabaseError as error:
            logger.warning('worker=%s beat=failed reason="%s"', self.pk, str(error).strip())
        finally:
            connection.close()

    def end(self) -> None:
        """Leave, with nothing in hand: its lanes are free."""
        sql.execute("DELETE FROM webhooks_worker WHERE id = %s AND role <> 'dead'", [self.pk])


def rescue(name: str | None = None, reason: str | None = None) -> bool:
    """Free the lanes of one dead worker, and mark what it had in hand as suspect. Returns whether there was one.

    What is in a lane that somebody holds is left until that is over.

    `name`: of a worker whose process has ended, as its parent knows. `reason` says by what, where what it had in hand
    is to blame.
    """
    with transactions.short() as now:
        found = sql.fetch(ENDED if name else DEAD, {'alive': ALIVE, 'name': name})
        for pk, role, events, deliveries, since in found:
            counts = role == SUSPECTS and reason is not None
            _mark_events(events, now, reason if counts else None)
            due_at = (lambda one: now) if name else lambda one, since=since: max(now, since + _longest(one))
            left = _mark_deliveries(deliveries, now, due_at, reason if counts else None)
            sql.execute(FREE, {'id': pk})
            if left or not sql.execute(FORGET, {'id': pk}):
                sql.execute(KEEP, {'id': pk, 'left': left})
            logger.warning('worker=%s dead events=%d deliveries=%d', pk, len(events), len(deliveries))
    return bool(found)


def _longest(delivery: Delivery) -> timedelta:
    """Return how long after the last turn its request may last: it must not arrive after a later change."""
    return timedelta(seconds=BEGINS + delivery.webhook.effective_timeout)


def _mark_events(ids: Collection[int], now: datetime, reason: str | None) -> None:
    events = Event.objects.filter(pk__in=ids, dispatched_at=None).defer(*LONG_COLUMNS)
    for event in events:
        lapses = _lapses(event.lapses, reason)
        error = died(lapses, reason) if reason else event.error
        Event.objects.filter(pk=event.pk).update(lapses=lapses, retry_at=now + _wait(lapses), error=error)


def _mark_deliveries(ids: Collection[int], now: datetime, due_at, reason: str | None) -> list[int]:
    """Returns the ids of those whose lanes somebody holds."""
    unread = [f'event__{name}' for name in LONG_COLUMNS]
    pending = Delivery.objects.filter(pk__in=ids, status=StatusChoices.PENDING)
    held = pending.select_related('webhook__health', 'event').defer(*unread)
    lanes = order.lock({one.webhook_id for one in held})
    judged = []
    for one in held:
        if one.webhook_id not in lanes:
            continue
        lapses = _lapses(one.lapses, reason)
        outcome = Outcome(started_at=now.timestamp(), duration=0, error=died(lapses, reason) if reason else STOPPED)
        sent = Sent(one, Builder(one.webhook), outcome=outcome)
        verdict = _verdict(one, lapses, due_at(one) + _wait(lapses))
        judged.append(record.Judged(sent, verdict, record.row(sent, verdict, lapses)))
    entries = record.record(judged, now)
    endpoint.write([one._replace(outcome=None) for one in entries if one.status == StatusChoices.FAILED], now)
    return [one.pk for one in held if one.webhook_id not in lanes]


def _verdict(one: Delivery, lapses: int, due_at: datetime) -> Verdict:
    return fail(one) if lapses >= GIVEN_UP or one.event.test else try_again(one, due_at)


def _lapses(before: int, reason: str | None) -> int:
    return before + 1 if reason else max(before, COMPANY)


def _wait(lapses: int) -> timedelta:
    """Return the wait before it is tried again. Those that went together may be innocent: they need not wait."""
    return delay(lapses - COMPANY - 1, 0.5) if COMPANY + 1 < lapses < GIVEN_UP else timedelta()


def died(lapses: int, reason: str) -> str:
    """Return the error of what was in hand so often."""
    times = {1: 'once', 2: 'twice'}.get(lapses - COMPANY, f'{lapses - COMPANY} times')
    return f'its process died {times} ({reason})'
