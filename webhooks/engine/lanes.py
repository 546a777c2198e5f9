"""Lanes: one lock a webhook. Whoever changes the deliveries of a webhook, or its health, holds its lane first.

A lane is the row of the webhook's health. No edit, renaming or deletion of a webhook locks it, so none of these holds
up a worker, and no worker holds up them. What people ask of deliveries locks it, for milliseconds. Three rules keep it
free of deadlocks and of wrong counts:

- Workers take lanes that are free and wait for none (SKIP LOCKED). What they have for a lane that is busy they keep.
- What people ask for waits for a lane, and so does what a worker has to record at its end: for one, as the first lock
  of its transaction, with a bound on the wait.
- Looking and counting come in a statement after the one that locks: a statement sees the rows as they were when it
  began, which may be before the lock was free.

A holder that neither works nor dies (a paused machine, a process that is stopped, a host that is cut off) stops its
own lanes at most, and not for ever: PostgreSQL ends transactions that exceed BOUNDS. Whoever was frozen finds its
connection closed and does the work again. A transaction that was open before (that of a script) has no such bounds: its
lane is held to its end, and workers go on with the others.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from django.db import OperationalError, connection, transaction
from django.utils.translation import gettext as _
from psycopg.errors import LockNotAvailable

from ..exceptions import WebhooksError
from ..models import Health, Webhook
from . import sql

logger = logging.getLogger('webhooks.drain')

# For one transaction, in milliseconds.
OF_THE_FROZEN = {
    'idle_in_transaction_session_timeout': 5_000,  # between two statements
    'tcp_user_timeout': 8_000,  # in the midst of reading an answer, so that PostgreSQL cannot send on
}
BOUNDS = OF_THE_FROZEN | {
    'lock_timeout': 5_000,  # somebody else holds a row
    'statement_timeout': 10_000,
}


def _setting(bounds: Mapping[str, int]) -> str:
    return ', '.join(f"set_config('{name}', '{value}', true)" for name, value in bounds.items())


BEGIN = f'SELECT {_setting(BOUNDS)}, clock_timestamp()'
BEGIN_TO_HOLD = f'SELECT {_setting(OF_THE_FROZEN)}'

TAKE = 'SELECT webhook_id FROM webhooks_health WHERE webhook_id = ANY(%s) FOR UPDATE SKIP LOCKED'

# Their webhooks were deleted, and their logs are removed: there is nothing to lock, and nothing to write.
ENDED = """
    SELECT v.id FROM unnest(%s::bigint[]) AS v(id)
    WHERE NOT EXISTS (SELECT 1 FROM webhooks_health h WHERE h.webhook_id = v.id)"""

# Events of the deliveries that change in one transaction, or those of one batch: while the lane is held, nothing of its
# webhook is sent.
PART = 500

# Milliseconds that a person waits for a lane at most.
WAIT = 5_000
SET_LOCK_TIMEOUT = "set_config('lock_timeout', %s, true)"
HOLD = 'SELECT 1 FROM webhooks_health WHERE webhook_id = %s FOR UPDATE'


class Busy(WebhooksError, OperationalError):
    """Somebody else holds what a person's request needs, and goes on holding it: str() says so.

    To the engine, which does such a transaction again, it is the OperationalError that it was.
    """


@contextmanager
def turn() -> Iterator[datetime]:
    """A transaction of the engine's own, with BOUNDS. It holds no lane yet.

    Gives the time by PostgreSQL's clock, which all workers go by: their own may differ. Raises OperationalError or
    InternalError where PostgreSQL ends it.
    """
    with transaction.atomic():
        yield sql.begin(BEGIN)[0][-1]


def take(webhook_ids: Collection[int]) -> set[int]:
    """Lock those of the lanes that are free, and return them, with those that are no longer there."""
    taken = set(sql.fetch_column(TAKE, [list(webhook_ids)])) if webhook_ids else set()
    missing = [pk for pk in webhook_ids if pk not in taken]
    return taken.union(sql.fetch_column(ENDED, [missing])) if missing else taken


@contextmanager
def hold(webhook_id: int) -> Iterator[datetime]:
    """A transaction that holds the lane of a webhook, or what is left of it until the caller's own transaction ends.

    Waits for the lane, WAIT milliseconds at most: raises Busy after that. Gives PostgreSQL's time.
    """
    is_the_callers = connection.in_atomic_block
    with transaction.atomic():
        if not is_the_callers:
            sql.begin(BEGIN_TO_HOLD)
        before = sql.fetch_value(f"SELECT current_setting('lock_timeout'), {SET_LOCK_TIMEOUT}", [str(WAIT)])
        with or_busy(_('A worker is busy with this webhook: try again in some seconds.')):
            sql.fetch(HOLD, [webhook_id])
        ((_timeout, now),) = sql.fetch(f'SELECT {SET_LOCK_TIMEOUT}, clock_timestamp()', [before])
        yield now


@contextmanager
def or_busy(reason: str) -> Iterator[None]:
    """Raise Busy where a lock was waited for in vain. The transaction is broken then."""
    try:
        yield
    except OperationalError as error:
        if not is_row_held(error):
            raise
        raise Busy(reason) from error.__cause__


def now() -> datetime:
    """Return PostgreSQL's time."""
    return sql.fetch_value('SELECT clock_timestamp()')


def ensure() -> None:
    """Give a lane to webhooks that were made without signals."""
    for webhook in Webhook.objects.filter(health=None):
        Health.objects.get_or_create(webhook=webhook)


def wait_briefly() -> None:
    """From now on the open transaction waits a moment only for a row that somebody else holds."""
    set_lock_timeout(200)


def set_lock_timeout(milliseconds: int) -> None:
    """From now on the open transaction waits so long at most for a lock, and then raises OperationalError."""
    sql.fetch(f'SELECT {SET_LOCK_TIMEOUT}', [str(milliseconds)])


def is_row_held(error: Exception) -> bool:
    """Whether somebody held a row for longer than was waited for it: PostgreSQL has broken off nothing else."""
    return isinstance(error.__cause__, LockNotAvailable)


def recover(error: Exception) -> None:
    """Called when a transaction was broken off that is done again: the next one gets a connection that works."""
    logger.warning('transaction=broken off reason="%s" (it is done again)', str(error).strip())
    if not connection.is_usable():
        connection.close()
