"""A statement of the engine's, on the default database: whatever a router says, its tables are there."""

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
    """Return the rows of the first statement of a transaction. READ COMMITTED holds from then on.

    The database's default may be another level: then no statement sees what was committed after the first one. In a
    transaction that began before, such as a script's, its own level goes on.
    """
    with connection.cursor() as cursor:
        if not connection.savepoint_ids:
            # Both in one text, which costs no further round trip.
            cursor.execute(f'SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {statement}')
            cursor.nextset()
        else:
            cursor.execute(statement)
        return cursor.fetchall()


def execute(statement: str, parameters: Parameters = None) -> int:
    """Return how many rows were changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def session() -> object:
    """Return our connection as it is now: Django opens another one where PostgreSQL has ended it."""
    return connection.connection


def is_broken_off(error: Exception, before: object) -> bool:
    """Whether the error says nothing of the work that raised it: the time is up, or the session `before` is gone.

    As long as that answers, the work is to blame: it may have asked a plugin's database, or read a damaged row.
    """
    if not isinstance(error, BROKEN_OFF):
        return isinstance(error, INTERRUPTIONS)
    return session() is not before or not connection.is_usable()
