"""What is held on an instance from the signal before a change to the one after it.

A receiver of another plugin may change the instance again in between: so it is a stack. A change that fails leaves what
it held. That of an inner one is told by its depth in the transaction; that of an earlier one lies below, and stays.
"""

from typing import Any

from django.db import connection
from django.db.models import Model


def push(instance: Model, slot: str, value: Any) -> None:
    """Hold a value until the change is done. A tuple, which a copy of the instance does not share."""
    instance.__dict__[slot] = _depth(), value, instance.__dict__.get(slot)


def pop(instance: Model, slot: str, default: Any = None) -> Any:
    """Return what was held for the change that is done, the default where there is nothing."""
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
