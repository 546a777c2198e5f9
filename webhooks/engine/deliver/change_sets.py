"""Forms change sets: all changes of a transaction go to a webhook in one request, or in numbered parts.

Webhooks with `change_set` ask for that. Backfills, *Send now*, tests, updates that components or config contexts cause,
what event rules send, and events that could not be rendered go alone, each as a set of one (MAKE_DELIVERIES). Which
deliveries belong to a set is fixed when they are made. A part holds up to 1000 changes and 900,000 bytes of payloads
(lane.py), estimated before any template. Nothing else is sent together.

1. While a transaction is dispatched, its deliveries are UNFORMED: one of each slice is ready, and the first of these
   stands for all. The rest are held, or undecided.
2. Each turn asks queue.growing() whether events of the transaction are still to be dispatched, for whichever webhook,
   or deliveries to be decided. If not, they get their parts, once. It does not wait for suspects, among them events
   that take too long (dispatch/put_off.py): what becomes of these is another set of the same transaction, as is what
   exceeds MAX_CHANGES. Both go after the parts that are there.
3. If `ordered` is on, and one has to wait for an earlier delivery of its object, all are held instead. When that one
   is closed, the set is looked at again.
4. One delivery of a part is due, and stands for it; the others are held. When all of the part are delivered or failed,
   the next part becomes due, whether or not `ordered` is on (order.py). If a change in it is blocked by then, it is
   looked at again each second (order.PUT_OFF_PARTS). An earlier part that is redelivered goes before those that wait.
5. The request has the id of the first delivery that is left of its part, mostly its `lead` (build.py), and its attempt
   keeps the ids of all of them as `members`, if there are several (record.py). payload/change_set.py makes the
   envelope, payload/formats.py the body. If a change cannot be built, its part fails without a retry.
6. A part is retried as a whole: its first delivery waits for its time, the others are held (record.py). After a death
   each of them waits, and has an attempt of its own (rescue.py). One that has expired is left out, so a retry may hold
   fewer.
7. A failed part is redelivered with all of its changes that were not delivered, whichever one was chosen, under the id
   of the first of them. Of a set that expired before it had parts, only the chosen ones go again. Delivered ones get
   new deliveries: what was chosen forms a new set, under a new id (services/redelivery.py).
8. If the webhook becomes a feed meanwhile, the changes go one by one.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from django.apps import apps
from django.contrib.contenttypes.fields import GenericRelation
from django.db.models import DB_SET_NULL, SET_NULL, Field, Model

from ... import delivery_states as states
from ...choices import KindChoices
from ...models import Delivery
from ...models.delivery import UNFORMED
from ...object_types import model_of_id
from .. import sql
from ..each import portions
from . import lane, order, queue

# The order of changes in a set.
KINDS = (KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED)

# At most this many changes are in a set: the rest becomes another set. A turn, which has ten seconds, begins no further
# set once it has formed as many.
MAX_CHANGES = 10_000

# How loosely a model points to a second one. A cycle is broken where that is loosest: there the key may be empty.
REQUIRED, OPTIONAL, LOOSE = range(3)

# A cable points to its ends in a table of its own. So this one counts as a part of the cable.
PART_OF = {'dcim.cabletermination': 'dcim.cable'}

# (id of a webhook, id of a transaction)
Key = tuple[int, int]

# Read the unformed changes of a set, with their approximate sizes in bytes.
READ_SET = f"""
    SELECT d.id, d.event_id, d.object_type_id, coalesce(d.span ->> 'kind', e.kind), {queue.DELIVERY_BYTES}
    FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
    WHERE d.webhook_id = %(webhook)s AND d.change_set = %(set)s AND d.part = %(unformed)s
      AND d.status {states.QUEUED} AND d.expires_at > %(now)s
    ORDER BY d.id LIMIT %(most)s"""

# From held and ready to ready and held: unformed deliveries get their parts. The first one of the first part is ready.
FORM = """
    UPDATE webhooks_delivery d
    SET lead = v.lead, part = v.part, parts = %(parts)s, change_count = %(count)s,
        status = CASE WHEN v.part = 1 AND d.id = v.lead THEN 'pending' ELSE 'held' END,
        due_at = CASE WHEN v.part = 1 AND d.id = v.lead THEN %(now)s END
    FROM unnest(%(ids)s::bigint[], %(leads)s::bigint[], %(numbers)s::int[]) AS v(id, lead, part)
    WHERE d.id = v.id AND d.status IN ('held', 'pending', '')"""

# From waiting for their time to held: the unformed deliveries of a set.
HOLD_SET = f"""
    UPDATE webhooks_delivery SET status = 'held', due_at = NULL
    WHERE webhook_id = %(webhook)s AND change_set = %(set)s AND part = %(unformed)s AND status {states.TIMED}"""


class Change(NamedTuple):
    """A delivery of a change set, before it has a part. `size`: of its payload, about, in bytes."""

    pk: int
    event_id: int
    object_type_id: int
    kind: str
    size: int


def form(keys: Collection[Key], now: datetime) -> set[Key]:
    """Form the change sets of transactions that are dispatched to the end, or hold them.

    A set is held if one of its changes has to wait for an earlier delivery of its object. Returns the sets that were
    formed or held: not all if there are many changes. The caller owns the lanes, and has locked them.
    """
    done: set[Key] = set()
    count = 0
    for webhook_id, transaction in keys:
        if count < MAX_CHANGES:
            done.add((webhook_id, transaction))
            count += _form_or_hold({'webhook': webhook_id, 'set': transaction, 'unformed': UNFORMED}, now)
    return done


def _form_or_hold(key: dict[str, int], now: datetime) -> int:
    """Form a set, or hold it. Returns how many changes were read."""
    changes = [Change(*row) for row in sql.fetch(READ_SET, {**key, 'most': MAX_CHANGES, 'now': now})]
    if order.blocked([change.pk for change in changes]):
        sql.execute(HOLD_SET, key)
    else:
        _form(sorted(changes, key=place_of), now)
    return len(changes)


def _form(changes: Sequence[Change], now: datetime) -> None:
    parts = list(split(changes))
    leads = [min(change.pk for change in part) for part in parts for _change in part]
    numbers = [number for number, part in enumerate(parts, 1) for _change in part]
    parameters = {'ids': [change.pk for change in changes], 'leads': leads, 'numbers': numbers}
    sql.execute(FORM, {**parameters, 'parts': len(parts), 'count': len(changes), 'now': now})


def split(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Yield the parts of a set. Each is a request. A change that is too large for a part is a part alone."""
    return portions(changes, attrgetter('size'), lane.PART_BYTES, lane.PART_DELIVERIES)


def in_order(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    """Return the deliveries of a request in the order of its body."""
    # One of an event rule goes alone. It may be about a job, which has no place in a set.
    return sorted(deliveries, key=place_of) if len(deliveries) > 1 else deliveries


def place_of(change: Change | Delivery) -> tuple[int, int, int]:
    """Return the place of a change in its set, to sort by: of a Change, or of a delivery with its event."""
    return place(change.kind, _rank_of(change.object_type_id), change.event_id)


def place(kind: str, rank: int, event_id: int) -> tuple[int, int, int]:
    """Return the place of a change in its set, to sort by. `rank`: of its model, from ranks().

    Creations come first, then updates, then deletions. A model comes after the models that it points to. Deletions go
    in reverse. Objects of a model keep the order of their first saves.
    """
    return KINDS.index(kind), -rank if kind == KindChoices.DELETED else rank, event_id


def _rank_of(object_type_id: int) -> int:
    """Return the rank of a model, given by its id: -1 if it is no longer installed, as nothing can point to it."""
    model = model_of_id(object_type_id)
    return _of_installed_models().get(_label(model), -1) if model else -1


@cache
def _of_installed_models() -> dict[str, int]:
    keys: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for model, target, looseness in _arrows():
        if model != target:
            keys[model][target] = min(looseness, keys[model].get(target, LOOSE))
    return ranks(keys)


def ranks(keys: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the rank of each model, from 0. `keys`: how loosely a model points to others, {model: {other: looseness}}.

    A cycle is broken at its loosest key.
    """
    left = {model: dict(keys[model]) for model in sorted(keys)}
    while True:
        try:
            return {model: rank for rank, model in enumerate(TopologicalSorter(left).static_order())}
        except CycleError as error:
            # In the list of a cycle the next model points to each one.
            arrows = [(model, target) for target, model in pairwise(error.args[1])]
            model, target = max(arrows, key=lambda arrow: left[arrow[0]][arrow[1]])
            del left[model][target]


def _arrows() -> Iterator[tuple[str, str, int]]:
    """Yield each model, a model that it points to, and how loosely."""
    for model in apps.get_models():
        for field in (*model._meta.fields, *model._meta.many_to_many):
            if field.related_model:
                yield _label(model), _label(field.related_model), _looseness(field)
        for field in model._meta.private_fields:
            # Only here do models say that they point to it by a generic key.
            if isinstance(field, GenericRelation):
                yield _label(field.related_model), _label(model), OPTIONAL


def _looseness(field: Field) -> int:
    if field.many_to_many or field.remote_field.on_delete in (SET_NULL, DB_SET_NULL):
        return LOOSE
    return OPTIONAL if field.null else REQUIRED


def _label(model: type[Model]) -> str:
    label = model._meta.concrete_model._meta.label_lower
    return PART_OF.get(label, label)
