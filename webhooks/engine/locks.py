"""Advisory locks of PostgreSQL: held until the transaction ends, and gone with the connection of a dead holder.

A holder that neither works nor dies (a paused machine, a process that is stopped, a host that is cut off) would hold
them for ever. So the engine's own transactions have bounds, which PostgreSQL enforces: it ends them, and the others go
on. Whoever was frozen finds its connection closed and does the work again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import connection, transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from ..models import Webhook

# One dispatcher at a time, so that the deliveries of an object are made in the order of its events.
DISPATCH = 0x77656268
# One at a time claims, records, lines up, reopens and prunes deliveries: a few milliseconds each, and no deadlock
# among them.
LINE = 0x77656269

# For one transaction, in milliseconds. The wait for the lock itself has no bound.
BOUNDS = {
    'idle_in_transaction_session_timeout': 5_000,  # a worker is frozen between two statements
    'tcp_user_timeout': 8_000,  # a worker is frozen while it reads an answer, so that PostgreSQL cannot send on
    'lock_timeout': 5_000,  # somebody else holds a row
    'statement_timeout': 10_000,
}


@contextmanager
def turn() -> Iterator[datetime]:
    """A transaction in which deliveries are claimed, recorded or removed: short, and one at a time among all workers.

    Gives the time by PostgreSQL's clock, which all workers go by: their own may differ. Raises OperationalError where
    PostgreSQL ends it, because it lasted longer than BOUNDS. Inside somebody else's transaction it has no bounds, since
    that is not the engine's to end.
    """
    is_ours = not connection.in_atomic_block
    with transaction.atomic():
        yield acquire_within(LINE) if is_ours else acquire(LINE)


def acquire(key: int) -> datetime:
    """Wait for the lock in somebody's transaction, and return PostgreSQL's time once it is held."""
    return _call('SELECT pg_advisory_xact_lock(%s), clock_timestamp()', key)[-1]


def acquire_within(key: int, **bounds: int) -> datetime:
    """Wait for the lock in the engine's own transaction, which has BOUNDS then, some of them replaced.

    One statement: at no moment is the lock held without bounds.
    """
    wait = "set_config('lock_timeout', '0', true), pg_advisory_xact_lock(%s)"
    return _call(f'SELECT {wait}, {_settings(bounds)}, clock_timestamp()', key)[-1]


def wait_briefly() -> None:
    """From now on the open transaction waits a moment only for a row that somebody else holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', '200', true)")


def try_acquire(key: int, **bounds: int) -> bool:
    """Take the lock in the engine's own transaction, if nobody holds it, and set BOUNDS, some of them replaced."""
    return _call(f'SELECT pg_try_advisory_xact_lock(%s), {_settings(bounds)}', key)[0]


def _settings(bounds: dict[str, int]) -> str:
    return ', '.join(f"set_config('{name}', '{value:d}', true)" for name, value in (BOUNDS | bounds).items())


def _call(statement: str, key: int) -> tuple:
    with connection.cursor() as cursor:
        cursor.execute(statement, [key])
        return cursor.fetchone()


@receiver(pre_delete, sender=Webhook, dispatch_uid='webhooks.line')
def _webhook_goes(using: str, **kwargs: object) -> None:
    """Its deliveries go with it, in an order in which no worker writes them: without this lock, into a deadlock."""
    if using == connection.alias:
        acquire(LINE)
