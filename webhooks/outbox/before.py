"""What objects were before NetBox began to change them in several steps. Who records a step in between finds it here.

NetBox deletes a cable, and saves its ends once PostgreSQL has emptied them: a row no longer says what it was. It is
kept with what is known of the transaction, as long as the block (`transaction.atomic`) lasts in which it was read.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Model

from . import scope


def keep(model: type[Model], states: Mapping[Any, str | None]) -> None:
    """Keep snapshots, given by primary key. The first one of an object counts, as it does in its event."""
    held = scope.current().held
    for pk, snapshot in states.items():
        if snapshot is not None and find(model, pk) is None:
            held[model, pk] = tuple(connection.savepoint_ids), snapshot


def find(model: type[Model], pk: Any) -> str | None:
    """Return what the object was, None where nothing is kept of it."""
    block, snapshot = scope.current().held.get((model, pk), ((), None))
    # What was read in a savepoint that was rolled back was never so.
    return snapshot if tuple(connection.savepoint_ids[: len(block)]) == block else None


def drop(model: type[Model], pks: Iterable[Any]) -> None:
    """Forget what was kept."""
    held = scope.current().held
    for pk in pks:
        held.pop((model, pk), None)
