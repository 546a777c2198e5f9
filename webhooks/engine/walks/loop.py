"""Goes on with walks, a slice at a time. A walk looks at the objects of some models by primary key.

Its row says where it is. Only one dispatcher at a time is in a slice of a walk. Its new place and what it records are
written together. So a walk that is interrupted, or whose dispatcher was killed, goes on after its last slice.
"""

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Model
from django.utils.translation import gettext as _

from ...exceptions import DefinitionError
from ...interruptions import BROKEN_OFF, INTERRUPTIONS, Locked
from ...models.concurrent import update_unlocked
from ...object_types import model_of_id
from ...storable import MAX_KEY
from .. import sql
from ..each import rest_after

logger = logging.getLogger('webhooks.walks')

# Objects that a slice looks at. After an interruption it looks at half as many.
OBJECTS_PER_SLICE = 200
# After an interruption, and while it has to wait, a walk rests. After an error that does not end it: longer.
REST_SECONDS = 1.0
ERROR_REST_SECONDS = 60.0

# Lock a walk until the open transaction ends. False: another dispatcher is in a slice of it.
TRY_LOCK_WALK = 'SELECT pg_try_advisory_xact_lock(%s::regclass::oid::integer, %s::integer)'


class Walk[Row: Model](ABC):
    """A walk, as read from its row: where it goes on, which objects it finds there, and what it records about them.

    `position` is an index of `object_types`, which are ids, and `last_id` the last primary key that it has looked at.
    """

    # The columns that change whenever somebody moves, ends or begins the walk.
    guards: Sequence[str]

    def __init__(self, row: Row, object_types: Sequence[int], position: int = 0) -> None:
        self.row = row
        self.object_types = object_types
        self.position = position
        self.last_id: int = vars(row)['last_id']

    @property
    def key(self) -> tuple[str, int]:
        """Return the name of its table, and its primary key there."""
        return self.row._meta.db_table, self.row.pk

    @classmethod
    @abstractmethod
    def ready(cls) -> Iterable['Walk']:
        """Return the walks that can go on."""

    @abstractmethod
    def find(self, model: type[Model], type_id: int, count: int) -> tuple[Sequence[int], int | None]:
        """Return which of the next `count` objects it concerns, and the last key that was looked at; None at the end.

        Others may change the walk's row meanwhile. Raises DefinitionError if the definition is wrong.
        """

    def move(self, position: int, last_id: int, looked: int) -> bool:
        """Write its place, in the open transaction. Returns as write()."""
        return self.write(position=position, last_id=last_id)

    @abstractmethod
    def record(self, model: type[Model], type_id: int, pks: Sequence[int], upto: int, now: datetime) -> bool:
        """Record the differences of these objects, in the open transaction. Returns False if it has to wait.

        The slice ends with the key `upto`. All other objects up to there do not concern it.
        """

    def end(self, now: datetime) -> bool:
        """End it. Returns False if somebody else was first, or if its last move has ended it."""
        return False

    def fail(self, error: Exception) -> bool:
        """End it because of an error. Returns False if it rests instead, and is tried again."""
        return False

    def write(self, **changes: object) -> bool:
        """Change its row. Returns False if somebody else has moved, ended or locked it."""
        guards = {name: getattr(self.row, name) for name in self.guards}
        return update_unlocked(type(self.row)._base_manager.filter(pk=self.row.pk, **guards), **changes)


class Walks:
    """All walks of these kinds, as one dispatcher goes on with them: it knows which ones rest."""

    def __init__(self, kinds: Sequence[type[Walk]]) -> None:
        self._kinds = kinds
        # {walk: end of its rest, by time.monotonic()}, and {walk: objects of its next slice}.
        self._rests: dict[tuple[str, int], float] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def next_slice(self) -> bool:
        """Go on with a random walk for a slice, or end it. Returns whether anything was done.

        Raises INTERRUPTIONS, but not BROKEN_OFF and Locked: after these the walk rests.
        """
        now = time.monotonic()
        found = [walk for kind in self._kinds for walk in _ready(kind) if self._rests.get(walk.key, 0.0) <= now]
        random.shuffle(found)
        return any(self._go_on(walk) for walk in found)

    def _go_on(self, walk: Walk) -> bool:
        key, began = walk.key, time.monotonic()
        count, rest = self._counts.pop(key, OBJECTS_PER_SLICE), 0.0
        try:
            is_done = _step(walk, count)
            rest = 0.0 if is_done else REST_SECONDS
        except (*BROKEN_OFF, Locked) as error:
            sql.recover(error)
            self._counts[key] = max(1, count // 2)
            rest, is_done = REST_SECONDS, False
        except INTERRUPTIONS:
            raise
        except Exception as error:
            # If this process died of it, the next one would meet the same walk.
            logger.exception('walk=%s id=%s failed', *key)
            is_done = walk.fail(error)
            rest = 0.0 if is_done else ERROR_REST_SECONDS
        ended = time.monotonic()
        self._rests[key] = ended + max(rest, rest_after(ended - began))
        return is_done


def _ready(kind: type[Walk]) -> list[Walk]:
    """Return the walks of a kind that can go on. None while their table is locked: changes do not wait for it."""
    with sql.may_break_off(Locked), sql.reading():
        return list(kind.ready())
    return []


def _step(walk: Walk, count: int) -> bool:
    with sql.transaction() as now:
        if not sql.fetch_value(TRY_LOCK_WALK, walk.key):
            return False
        if walk.position == len(walk.object_types):
            return walk.end(now)
        type_id = walk.object_types[walk.position]
        model = model_of_id(type_id)
        if model is None:
            raise DefinitionError('object_types', _('A model is no longer installed.'))
        pks, upto = walk.find(model, type_id, count)
        place = (walk.position + 1, 0) if upto is None else (walk.position, upto)
        with sql.transaction():
            is_done = walk.move(*place, len(pks)) and walk.record(
                model, type_id, pks, MAX_KEY if upto is None else upto, now
            )
            if not is_done:
                transaction.set_rollback(True)
        return is_done
