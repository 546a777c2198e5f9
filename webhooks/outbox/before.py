"""Keeps the states of objects before the first of several changes in a transaction.

For example, PostgreSQL empties the ends of a deleted cable before NetBox saves them: too late to read the old state.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Model

from . import scope


def keep(model: type[Model], states: Mapping[Any, str | None]) -> None:
    """Keep {pk: snapshot as JSON text} for this transaction, unless an earlier one of the object is kept.

    A snapshot of None is not kept.
    """
    held = scope.current().held
    for pk, snapshot in states.items():
        if snapshot is not None and find(model, pk) is None:
            held[model, pk] = tuple(connection.savepoint_ids), snapshot


def find(model: type[Model], pk: Any) -> str | None:
    """Return the kept snapshot of an object as JSON text. None: nothing is kept, or its savepoint has ended."""
    block, snapshot = scope.current().held.get((model, pk), ((), None))
    # If its savepoint is not open any more, it may have been rolled back. Then the snapshot is wrong.
    return snapshot if tuple(connection.savepoint_ids[: len(block)]) == block else None


def drop(model: type[Model], pks: Iterable[Any]) -> None:
    """Forget the kept snapshots, because the change they belong to is recorded."""
    held = scope.current().held
    for pk in pks:
        held.pop((model, pk), None)
