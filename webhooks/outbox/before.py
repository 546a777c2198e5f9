"""Earlier states of objects that NetBox changes in several steps.

PostgreSQL empties a deleted cable's ends before NetBox saves them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Model

from . import scope


def keep(model: type[Model], states: Mapping[Any, str | None]) -> None:
    """Each object's first snapshot counts."""
    held = scope.current().held
    for pk, snapshot in states.items():
        if snapshot is not None and find(model, pk) is None:
            held[model, pk] = tuple(connection.savepoint_ids), snapshot


def find(model: type[Model], pk: Any) -> str | None:
    block, snapshot = scope.current().held.get((model, pk), ((), None))
    # Its savepoint may have been rolled back.
    return snapshot if tuple(connection.savepoint_ids[: len(block)]) == block else None


def drop(model: type[Model], pks: Iterable[Any]) -> None:
    held = scope.current().held
    for pk in pks:
        held.pop((model, pk), None)
