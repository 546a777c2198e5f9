"""The engine's statements, on the default database, where its tables are."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from ..interruptions import BROKEN_OFF, INTERRUPTIONS

Parameters = Mapping[str, Any] | Sequence[Any] | None


def fetch(statement: str, parameters: Parameters = None) -> list[tuple]:
    """Return the rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def fetch_column(statement: str, parameters: Parameters = None) -> list[Any]:
    """Return the first value of each row."""
    return [row[0] for row in fetch(statement, parameters)]


def fetch_value(statement: str, parameters: Parameters = None) -> Any:
    """Return the first value of the first row."""
    return fetch(statement, parameters)[0][0]


def begin(statement: str) -> list[tuple]:
    """Return the rows of a transaction's first statement. READ COMMITTED holds from then on.

    At another level no statement sees later commits. A transaction that began before keeps its level.
    """
    with connection.cursor() as cursor:
        if not connection.savepoint_ids:
            # One text saves a round trip.
            cursor.execute(f'SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {statement}')
            cursor.nextset()
        else:
            cursor.execute(statement)
        return cursor.fetchall()


def execute(statement: str, parameters: Parameters = None) -> int:
    """Return the number of changed rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def session() -> object:
    """Return the present connection: Django opens another if PostgreSQL ends it."""
    return connection.connection


def is_broken_off(error: Exception, before: object) -> bool:
    """Whether the error is not the work's fault: time is up, or the session `before` is gone.

    While the session answers, a plugin's database or a damaged row may be the cause.
    """
    if not isinstance(error, BROKEN_OFF):
        return isinstance(error, INTERRUPTIONS)
    return session() is not before or not connection.is_usable()
