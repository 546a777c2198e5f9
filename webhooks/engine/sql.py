"""The engine's statements, on the default database, where its tables are."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from ..interruptions import BROKEN_OFF, INTERRUPTIONS

Parameters = Mapping[str, Any] | Sequence[Any] | None


def fetch(statement: str, parameters: Parameters = None) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def fetch_column(statement: str, parameters: Parameters = None) -> list[Any]:
    return [row[0] for row in fetch(statement, parameters)]


def fetch_value(statement: str, parameters: Parameters = None) -> Any:
    return fetch(statement, parameters)[0][0]


def execute(statement: str, parameters: Parameters = None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def session() -> object:
    """Django opens another if PostgreSQL ends it."""
    return connection.connection


def is_broken_off(error: Exception, before: object) -> bool:
    """Whether the error is not the work's fault: time is up, or the session `before` is gone."""
    if not isinstance(error, BROKEN_OFF):
        return isinstance(error, INTERRUPTIONS)
    return (before is not None and session() is not before) or not _is_there()


def _is_there() -> bool:
    try:
        connection.ensure_connection()
    except BROKEN_OFF:
        return False
    return connection.is_usable()
