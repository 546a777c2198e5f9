"""Transactions of the engine: bounded in time, so that a process that is frozen in one holds its locks for seconds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from . import sql

logger = logging.getLogger('webhooks.worker')

# Whatever the database's default: each statement has to see what was committed before it.
ISOLATION = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED'
# Milliseconds: PostgreSQL ends a transaction that is idle between two statements, whose client does not read, that
# waits for a lock, or whose statement takes longer.
BOUNDS = """
    SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
        set_config('tcp_user_timeout', '8000', true), set_config('lock_timeout', '5000', true),
        set_config('statement_timeout', '10000', true), clock_timestamp()"""


@contextmanager
def short() -> Iterator[datetime]:
    """A transaction with these bounds. Gives PostgreSQL's time, which all workers go by.

    Raises OperationalError or InternalError where PostgreSQL ends it.
    """
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            sql.execute(ISOLATION)
        yield sql.fetch(BOUNDS)[0][-1]


def set_lock_timeout(milliseconds: int) -> None:
    """Let the open transaction wait so long at most for a lock, and then raise OperationalError."""
    sql.fetch("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])


def is_lock_timeout(error: Exception) -> bool:
    """Whether somebody held a row for too long, and PostgreSQL has broken off nothing else."""
    return isinstance(error, OperationalError) and isinstance(error.__cause__, LockNotAvailable)


def recover(error: Exception) -> None:
    """Log why a transaction was broken off, and let the next one have a connection that works."""
    logger.warning('transaction=broken off reason="%s" (it is done again)', str(error).strip())
    if not connection.is_usable():
        connection.close()
