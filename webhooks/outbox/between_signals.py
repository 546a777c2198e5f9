"""Holds a value on an instance between the signals before and after a change.

A receiver may change the instance again in between. So each slot is a stack. A change that fails leaves its value
behind. Therefore a value counts only at the depth of transaction blocks at which it was pushed.
"""

from typing import Any

from django.db import connection
from django.db.models import Model


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
