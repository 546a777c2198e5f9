"""What goes out in one request: the changes of one transaction, model and kind, for a webhook that asks for it.

What went out together once does so again: its deliveries are stamped with the id of the first.
"""

from collections.abc import Iterable

from .due import Due

# Deliveries of a request, and bytes of their payloads. The first always fits.
MOST, MAX_BYTES = 1000, 1024 * 1024


def group(first: Due, waiting: Iterable[Due]) -> list[Due]:
    """Return what goes with the first of those that wait, in the order of their ids. Pure."""
    together = [first]
    size = first.size
    for one in waiting:
        if one.pk == first.pk or _key(one) != _key(first):
            continue
        size += one.size
        if first.batch is None and (size > MAX_BYTES or len(together) == MOST):
            break
        together.append(one)
    return sorted(together, key=lambda one: (one.pk != one.batch, one.pk))


def _key(one: Due) -> tuple:
    if one.batch is not None:
        return (one.batch,)
    return one.transaction_id, one.object_type_id, one.kind, one.backfill, one.is_failed
