"""Opens the engine's transactions, and runs its statements, on Django's default database, which has its tables.

Transactions have limits: a frozen process holds its locks for seconds only. Parameters of statements are a mapping for
`%(name)s` or a sequence for `%s`. Each function raises Django's database errors.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import OperationalError, connection
from django.db import transaction as django_transaction
from psycopg.errors import LockNotAvailable

from ..interruptions import BROKEN_OFF, INTERRUPTIONS, Locked

logger = logging.getLogger('webhooks.worker')

Parameters = Mapping[str, Any] | Sequence[Any] | None

# If packets vanish for this time, PostgreSQL and this process end the connection.
TCP_SILENCE_MS = 8000
# For libpq: a connection over TCP ends some ten seconds after packets began to vanish, and not after hours.
CONNECTION_BOUNDS = {
    'tcp_user_timeout': TCP_SILENCE_MS,
    'keepalives_idle': 5,
    'keepalives_interval': 2,
    'keepalives_count': 2,
}
# A table of NetBox may be locked for minutes (VACUUM FULL). The work waits no longer than this, and is done later.
TABLE_LOCK_MS = 200
# The engine's own rows are locked for moments, so it waits longer for them.
ROW_LOCK_MS = 5000

# If the database's default is another level, statements would not see earlier commits. So each transaction sets it.
ISOLATION = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED'
# Limit the open transaction, in milliseconds: idle between statements, for a client that does not read, for a lock,
# for a statement. Its commit waits for the disk even if NetBox's do not (`synchronous_commit = off`): otherwise a crash
# could undo a change that was sent. It returns PostgreSQL's time.
BOUNDS = f"""
    SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
        set_config('tcp_user_timeout', '{TCP_SILENCE_MS}', true), set_config('lock_timeout', '{ROW_LOCK_MS}', true),
        set_config('statement_timeout', '10000', true),
        set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'local'), true),
        clock_timestamp()"""

# A transaction that reads NetBox's tables holds them. If its host is cut off, the next upgrade of NetBox would wait for
# it. So it ends after an idle time that is longer than anything is computed in between.
READING_IDLE_MS = 60_000

# Limit for how many milliseconds the open transaction is idle between statements.
SET_IDLE_TIMEOUT = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"

# Limit for how many milliseconds later statements of the open transaction wait for a lock.
SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"


def fetch(statement: str, parameters: Parameters = None) -> list[tuple]:
    """Run a statement, and return all its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def fetch_column(statement: str, parameters: Parameters = None) -> list[Any]:
    """Run a statement, and return the first column of all its rows."""
    return [row[0] for row in fetch(statement, parameters)]


def fetch_value(statement: str, parameters: Parameters = None) -> Any:
    """Run a statement, and return the first column of its first row. Raises IndexError if there is no row."""
    return fetch(statement, parameters)[0][0]


def now() -> datetime:
    """Return PostgreSQL's time, which all workers go by."""
    return fetch_value('SELECT clock_timestamp()')


def array(ids: Iterable[int]) -> str:
    """Return the ids as PostgreSQL writes an array, for a parameter. Psycopg takes milliseconds to quote thousands."""
    return f'{{{",".join(map(str, ids))}}}'


def execute(statement: str, parameters: Parameters = None) -> int:
    """Run a statement, and return how many rows it has changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def bound_connections() -> None:
    """Let later connections of this process and its forks notice that packets vanish. The operator's options win."""
    settings = connection.settings_dict
    settings['OPTIONS'] = CONNECTION_BOUNDS | settings['OPTIONS']


@contextmanager
def transaction() -> Iterator[datetime]:
    """Open a transaction with BOUNDS, or a savepoint in the open one. Gives PostgreSQL's time, which all workers go by.

    Raises OperationalError or InternalError if PostgreSQL ends it. Then all of it is undone, unless the commit itself
    was cut off.
    """
    is_outermost = not connection.in_atomic_block
    with django_transaction.atomic():
        if is_outermost:
            execute(ISOLATION)
        yield fetch(BOUNDS)[0][-1]


@contextmanager
def reading() -> Iterator[None]:
    """Open a transaction in which statements wait TABLE_LOCK_MS for a lock: for reading NetBox's tables.

    Raises Locked if one of them is locked: the work is done another time. Inside an open transaction, the limit also
    applies to its later statements.
    """
    is_outermost = not connection.in_atomic_block
    try:
        with django_transaction.atomic():
            if is_outermost:
                fetch(SET_IDLE_TIMEOUT, [str(READING_IDLE_MS)])
            set_lock_timeout(TABLE_LOCK_MS)
            yield
    except OperationalError as error:
        if is_lock_timeout(error):
            raise Locked(str(error).partition('\n')[0]) from error
        raise


def set_lock_timeout(milliseconds: int = ROW_LOCK_MS) -> None:
    """Limit how long later statements of the open transaction wait for a lock. The default is the limit of BOUNDS."""
    fetch(SET_LOCK_TIMEOUT, [str(milliseconds)])


def is_lock_timeout(error: Exception) -> bool:
    """Whether a statement gave up waiting for a lock. Its session can still be used."""
    return isinstance(error, OperationalError) and isinstance(error.__cause__, LockNotAvailable)


@contextmanager
def may_break_off(*errors: type[Exception]) -> Iterator[None]:
    """Swallow and log an interruption of the block by PostgreSQL, or one of these errors. The work is done later.

    The connection is closed then.
    """
    try:
        yield
    except (*BROKEN_OFF, *errors) as error:
        recover(error)


def recover(error: Exception) -> None:
    """Log that the error broke off a transaction, and close the connection: Django opens a new one."""
    logger.warning('transaction=broken off reason="%s" (it is done again)', str(error).strip())
    connection.close()  # it may have ended, or stay read-only


def session() -> object:
    """Return the present connection to PostgreSQL, for is_broken_off(). None: Django has not opened it yet.

    If PostgreSQL ends it, Django opens a new connection, which is another object.
    """
    return connection.connection


def is_broken_off(error: Exception, before: object) -> bool:
    """Whether the error is not the work's fault: it is an interruption, or the session `before` is gone.

    An error of the database in a session that still works is the work's fault, unless it waited for a lock.
    """
    if is_lock_timeout(error):
        return True
    if not isinstance(error, BROKEN_OFF):
        return isinstance(error, INTERRUPTIONS)
    return (before is not None and session() is not before) or not _is_there()


def _is_there() -> bool:
    try:
        connection.ensure_connection()
    except BROKEN_OFF:
        return False
    return connection.is_usable()
