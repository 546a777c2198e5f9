"""Keeps the states of objects before a change, until the change is recorded.

For a transaction: the state before the first of several changes. For example, PostgreSQL empties the ends of a deleted
cable before NetBox saves them: too late to read the old state.

On an instance: what its receiver before a change hands to its receiver after it. Another receiver may change the
instance again in between. So each slot is a stack. A change that fails leaves its value behind. Therefore a value
counts only at the depth of transaction blocks at which it was pushed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Model

from . import scope

#
# In a transaction
#


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


#
# On an instance, between its signals
#


def push(instance: Model, slot: str, value: Any) -> None:
    """Put the value on the stack `slot` of the instance.

    The stack is made of tuples: copies of the instance must not share it.
    """
    instance.__dict__[slot] = _depth(), value, instance.__dict__.get(slot)


def pop(instance: Model, slot: str, default: Any = None) -> Any:
    """Take the value that was pushed at this depth of transaction blocks, else return `default`.

    Values above it were left by failed changes, and are dropped.
    """
    entry, depth = instance.__dict__.pop(slot, None), _depth()
    while entry is not None:
        held_at, value, outer = entry
        if held_at == depth:
            if outer is not None:
                instance.__dict__[slot] = outer
            return value
        entry = outer
    return default


def _depth() -> int:
    return connection.in_atomic_block + len(connection.savepoint_ids)
