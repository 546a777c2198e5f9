"""Holds a value on an instance between the signals before and after a change.

Receivers may change the instance in between, so it is a stack. A failed change leaves its value.
"""

from typing import Any

from django.db import connection
from django.db.models import Model


def push(instance: Model, slot: str, value: Any) -> None:
    """In a tuple: copies of the instance must not share it."""
    instance.__dict__[slot] = _depth(), value, instance.__dict__.get(slot)


def pop(instance: Model, slot: str, default: Any = None) -> Any:
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
