"""The engine's transactions: a frozen process holds its locks for seconds only."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from ..interruptions import BROKEN_OFF
from . import sql

logger = logging.getLogger('webhooks.worker')

# Each statement has to see earlier commits, also with another default.
ISOLATION = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED'
# Milliseconds: idle between statements, for a client that does not read, for a lock, for a statement.
BOUNDS = """
    SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
        set_config('tcp_user_timeout', '8000', true), set_config('lock_timeout', '5000', true),
        set_config('statement_timeout', '10000', true), clock_timestamp()"""


@contextmanager
def short() -> Iterator[datetime]:
    """Gives PostgreSQL's time, which all workers go by.

    Raises OperationalError or InternalError if PostgreSQL ends it.
    """
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            sql.execute(ISOLATION)
        yield sql.fetch(BOUNDS)[0][-1]


def set_lock_timeout(milliseconds: int = 5000) -> None:
    sql.fetch("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])


def is_lock_timeout(error: Exception) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.__cause__, LockNotAvailable)


@contextmanager
def may_break_off(*errors: type[Exception]) -> Iterator[None]:
    """Log an interruption of the block, or one of these errors. The work is done another time."""
    try:
        yield
    except (*BROKEN_OFF, *errors) as error:
        recover(error)


def recover(error: Exception) -> None:
    logger.warning('transaction=broken off reason="%s" (it is done again)', str(error).strip())
    connection.close()  # it may have ended, or stay read-only
