"""The engine's transactions: a frozen process holds its locks for seconds only."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from ..interruptions import BROKEN_OFF, Locked
from . import sql

logger = logging.getLogger('webhooks.worker')

# For libpq: a connection over TCP ends some ten seconds after packets began to vanish, and not after hours.
CONNECTION_BOUNDS = {'tcp_user_timeout': 8000, 'keepalives_idle': 5, 'keepalives_interval': 2, 'keepalives_count': 2}
# Milliseconds to wait for a lock of one of NetBox's tables.
LOCK_WAIT = 200

# Each statement has to see earlier commits, also with another default.
ISOLATION = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED'
# Milliseconds: idle between statements, for a client that does not read, for a lock, for a statement.
BOUNDS = """
    SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
        set_config('tcp_user_timeout', '8000', true), set_config('lock_timeout', '5000', true),
        set_config('statement_timeout', '10000', true), clock_timestamp()"""


def bound_connections() -> None:
    """Let later connections of this process and its forks notice that packets vanish. The operator's options win."""
    settings = connection.settings_dict
    settings['OPTIONS'] = CONNECTION_BOUNDS | settings['OPTIONS']


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


@contextmanager
def reading() -> Iterator[None]:
    """Read NetBox's tables. Raises Locked if somebody holds one of them: the work is done another time.

    Inside another transaction, its later statements wait as shortly for a lock.
    """
    try:
        with transaction.atomic():
            set_lock_timeout(LOCK_WAIT)
            yield
    except OperationalError as error:
        if is_lock_timeout(error):
            raise Locked(str(error).partition('\n')[0]) from error
        raise


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
