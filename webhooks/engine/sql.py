"""Runs the engine's statements on Django's default database, which has its tables.

Parameters are a mapping for `%(name)s` or a sequence for `%s`. Each function raises Django's database errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from ..interruptions import BROKEN_OFF, INTERRUPTIONS

Parameters = Mapping[str, Any] | Sequence[Any] | None


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


def execute(statement: str, parameters: Parameters = None) -> int:
    """Run a statement, and return how many rows it has changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def session() -> object:
    """Return the present connection to PostgreSQL, for is_broken_off(). None: Django has not opened it yet.

    If PostgreSQL ends it, Django opens a new connection, which is another object.
    """
    return connection.connection


def is_broken_off(error: Exception, before: object) -> bool:
    """Whether the error is not the work's fault: it is an interruption, or the session `before` is gone.

    An error of the database in a session that still works is the work's fault.
    """
    if not isinstance(error, BROKEN_OFF):
        return isinstance(error, INTERRUPTIONS)
    return (before is not None and session() is not before) or not _is_there()


def _is_there() -> bool:
    try:
        connection.ensure_connection()
    except BROKEN_OFF:
        return False
    return connection.is_usable()
