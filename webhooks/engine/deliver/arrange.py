"""The order of a change set, and its parts. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

from . import lane

KINDS = CREATED, UPDATED, DELETED = 'created', 'updated', 'deleted'

# How loosely a model points to another one. A cycle is broken where that is loosest: there the key may be empty.
REQUIRED, OPTIONAL, LOOSE = range(3)

# {model: {model that it points to: how loosely}}, by label.
Keys = Mapping[str, Mapping[str, int]]


class Change(NamedTuple):
    """A delivery of a change set. `size`: of its payload, about, in bytes."""

    pk: int
    event_id: int
    object_type_id: int
    kind: str
    size: int
    is_blocked: bool = False


def place(kind: str, rank: int, event_id: int) -> tuple[int, int, int]:
    """Return the place of a change in its set.

    Creations come first, then updates, then deletions: each model after those that it points to, deletions the other
    way round. Of one model they come as they were first saved.
    """
    return KINDS.index(kind), -rank if kind == DELETED else rank, event_id


def split(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield the parts. The first change of each always fits."""
    part: list[Change] = []
    size = 0
    for change in changes:
        size += change.size
        if part and (size > lane.BATCH_BYTES or len(part) == lane.BATCH):
            yield part
            part, size = [], change.size
        part.append(change)
    if part:
        yield part


def ranks(keys: Keys) -> dict[str, int]:
    """Return each model's rank, which is higher than those of the models that it points to."""
    left = {model: dict(keys[model]) for model in sorted(keys)}
    while True:
        try:
            return {model: rank for rank, model in enumerate(TopologicalSorter(left).static_order())}
        except CycleError as error:
            # Each in the list is pointed to by the next one.
            arrows = [(model, target) for target, model in pairwise(error.args[1])]
            model, target = max(arrows, key=lambda arrow: left[arrow[0]][arrow[1]])
            del left[model][target]
