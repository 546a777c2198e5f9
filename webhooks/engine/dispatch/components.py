"""A change of what belongs to a device, a module or a virtual machine is also an update of that, once a transaction.

An event of its owner is made when that of the component is dispatched, marked by `caused_by` and with the component's
transaction. It has no snapshot yet, and a provisional sequence. Once it is claimed itself, the owner's row is locked
for the moment in which it draws its sequence and takes the snapshot, as whoever saves the owner would. Where somebody
holds that row, it is put off, behind all that the owner has: nothing waits for it.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model

from ...choices import KindChoices
from ...components import CABLE, COLUMNS, COMPONENTS, EVERY_COMPONENT, owners
from ...interruptions import INTERRUPTIONS
from ...models import Event
from ...models.sequence import SEQUENCE
from ...outbox import snapshots
from .. import sql, transactions

logger = logging.getLogger('webhooks.dispatch')

# (id of the object type, id of the object)
Reference = tuple[int, int]
Row = Mapping[str, Any]

# Of a transaction that has told of the owner already, all is told: what was rendered of it came after the commit.
MAKE = f"""
    INSERT INTO webhooks_event AS e (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username,
        request_id, request, data, error, skipped, transaction_id, transaction_time, visible, first_sequence,
        first_visible, caused_by)
    SELECT gen_random_uuid(), nextval('{SEQUENCE}'), 'updated', v.object_type_id, v.object_id, '', c.timestamp,
        c.username, c.request_id, c.request, '', '', 0, c.transaction_id, c.transaction_time, c.visible,
        coalesce(c.first_sequence, c.sequence), coalesce(c.first_visible, c.visible), v.caused_by
    FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::jsonb[]) AS v(object_type_id, object_id, event_id, caused_by)
    JOIN webhooks_event c ON c.id = v.event_id
    WHERE NOT EXISTS (
        SELECT 1 FROM webhooks_event told
        WHERE told.object_type_id = v.object_type_id AND told.object_id = v.object_id
          AND told.transaction_id = c.transaction_id AND told.transaction_time = c.transaction_time
          AND told.dispatched_at IS NOT NULL
    )
    ON CONFLICT (transaction_id, transaction_time, object_type_id, object_id) WHERE dispatched_at IS NULL
    DO UPDATE SET caused_by = (SELECT jsonb_agg(DISTINCT label) FROM jsonb_array_elements(
        e.caused_by || EXCLUDED.caused_by) AS label)
    WHERE e.caused_by IS NOT NULL"""

# Created in a transaction of which components are still to be dispatched.
NEEDED = """
    SELECT e.id FROM webhooks_event e
    WHERE e.id = ANY(%(created)s) AND EXISTS (
        SELECT 1 FROM webhooks_event o
        WHERE o.transaction_id = e.transaction_id AND o.transaction_time = e.transaction_time
          AND o.object_type_id = ANY(%(types)s) AND o.dispatched_at IS NULL AND NOT o.id = ANY(%(unwanted)s)
    )"""

LOCK = 'SELECT t.id FROM {table} t WHERE t.id = ANY(%(owners)s) ORDER BY t.id FOR NO KEY UPDATE SKIP LOCKED'
EXISTING = 'SELECT t.id FROM {table} t WHERE t.id = ANY(%(owners)s)'

# Nothing of the owner itself was changed: it is now what it was before.
TAKE = f"""
    UPDATE webhooks_event e
    SET sequence = nextval('{SEQUENCE}'), snapshot = now_.snapshot, prechange = now_.snapshot
    FROM (SELECT t.id, {{snapshot}} AS snapshot FROM {{table}} t WHERE t.id = ANY(%(owners)s)) now_
    WHERE e.id = ANY(%(ids)s) AND e.object_id = now_.id
    RETURNING e.id, e.sequence"""

# Committed since, with a lower sequence: they go first.
BEHIND = """
    SELECT e.id FROM webhooks_event e
    WHERE e.id = ANY(%(ids)s) AND EXISTS (
        SELECT FROM webhooks_event p
        WHERE p.object_type_id = e.object_type_id AND p.object_id = e.object_id AND p.sequence < e.sequence
          AND p.dispatched_at IS NULL AND NOT p.id = ANY(%(claimed)s)
    )"""

# Seconds after which what was put off may be claimed again. Nobody has it meanwhile.
PUT_OFF = 1
POSTPONE = f"""
    UPDATE webhooks_event
    SET sequence = nextval('{SEQUENCE}'), retry_at = now() + make_interval(secs => {PUT_OFF})
    WHERE id = ANY(%(ids)s)
    RETURNING id, sequence"""


@dataclass
class Taken:
    """What came of claimed events of owners, by id: `waiting` go later, those that are `gone` have no owner."""

    waiting: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)


#
# From components to owners
#


def tell_owners(events: Sequence[Event]) -> None:
    """Make an event of each owner of what these events changed. Those that are there already are made no second time.

    What cannot be understood, as of a plugin that changes NetBox's models, is logged and holds up nothing.
    """
    if not events:
        return
    try:
        _tell_owners(events)
    except INTERRUPTIONS:
        raise
    except Exception:
        if len(events) == 1:
            logger.exception('event=%s its owner is not told of', events[0].uuid)
            return
        for event in events:
            tell_owners([event])


def needed(events: Sequence[Event], unwanted: Collection[int]) -> set[int]:
    """Return the ids of unwanted events that are dispatched, to nobody, and not discarded: their transaction goes on.

    The next batch would tell of components of a new device as of its update if nothing said that it was created.
    """
    types_of_owners = {ContentType.objects.get_for_model(model).pk for model in owners()}
    created = [
        event.pk
        for event in events
        if event.pk in unwanted and event.kind == KindChoices.CREATED and event.object_type_id in types_of_owners
    ]
    if not created:
        return set()
    types = [_type_id(label) for label in EVERY_COMPONENT]
    return set(sql.fetch_column(NEEDED, {'created': created, 'types': types, 'unwanted': list(unwanted)}))


def _tell_owners(events: Sequence[Event]) -> None:
    found: dict[tuple, tuple[Event, set[str]]] = {}
    for event, reference, label in _owners(events):
        key = (*reference, event.transaction_id, event.transaction_time)
        labels = found[key][1] if key in found else set()
        found[key] = event, labels | {label}
    if not found:
        return
    # In one order, whoever does it.
    rows = [(*key[:2], found[key][0].pk, json.dumps(sorted(found[key][1]))) for key in sorted(found)]
    with transactions.short():
        sql.execute(MAKE, [list(column) for column in zip(*rows, strict=True)])


def _owners(events: Sequence[Event]) -> Iterator[tuple[Event, Reference, str]]:
    """Yield each event with an owner of its object, before or after the change, and with what of it was changed."""
    through: list[tuple[Event, Reference, str]] = []
    cables: dict[int, list[Event]] = defaultdict(list)
    rows_of = {
        pk: [row for row in rows if row]
        for pk, *rows in Event.objects.filter(pk__in=[event.pk for event in events]).values_list(
            'pk', 'snapshot__row', 'prechange__row'
        )
    }
    for event in events:
        label = _label(event.object_type_id)
        # A module belongs to a device, and is none of its components.
        if label not in EVERY_COMPONENT:
            continue
        if label == CABLE:
            cables[event.object_id].append(event)
            continue
        states = rows_of.get(event.pk, [])
        labels = {label, CABLE} if _is_recabled(states) else {label}
        for row in states:
            for name in labels:
                yield from ((event, owner, name) for owner in _direct(row))
                through += [(event, component, name) for component in _pointed_to(row)]
    through += [(event, end, CABLE) for cable, end in _ends(cables) for event in cables[cable]]
    owners = _owners_of({component for _event, component, _label in through})
    for event, component, name in through:
        yield from ((event, owner, name) for owner in owners.get(component, ()))


def _is_recabled(states: Sequence[Row]) -> bool:
    """Whether a cable was plugged or pulled."""
    return len({row.get('cable_id') for row in states}) > 1


def _direct(row: Row) -> Iterator[Reference]:
    """Yield what a component points to as its owner."""
    for column, label in COLUMNS.items():
        if row.get(column) is not None:
            yield _type_id(label), row[column]
    if row.get('parent_object_type_id') is not None and _label(row['parent_object_type_id']) in COMPONENTS:
        yield row['parent_object_type_id'], row['parent_object_id']


def _pointed_to(row: Row) -> Iterator[Reference]:
    """Yield the interface that an address is assigned to."""
    if row.get('assigned_object_type_id') is not None and row.get('assigned_object_id') is not None:
        yield row['assigned_object_type_id'], row['assigned_object_id']


def _ends(cables: Collection[int]) -> Iterator[tuple[int, Reference]]:
    """Yield each cable with what it ends at. One that is gone ends nowhere: the ends themselves tell of that."""
    if cables:
        ends = apps.get_model('dcim.cabletermination').objects.filter(cable__in=list(cables))
        for cable, type_id, pk in ends.values_list('cable_id', 'termination_type_id', 'termination_id'):
            yield cable, (type_id, pk)


def _owners_of(components: Iterable[Reference]) -> dict[Reference, list[Reference]]:
    """Return the owners of each component that is there. One query a model."""
    by_type: dict[int, set[int]] = defaultdict(set)
    for type_id, pk in components:
        by_type[type_id].add(pk)
    found: dict[Reference, list[Reference]] = {}
    for type_id, pks in by_type.items():
        model = ContentType.objects.get_for_id(type_id).model_class()
        columns = [column for column in COLUMNS if model and _has(model, column)]
        rows = model._base_manager.filter(pk__in=pks).values('pk', *columns) if model and columns else ()
        found |= {(type_id, row['pk']): list(_direct(row)) for row in rows}
        if columns and (gone := {pk for pk in pks if (type_id, pk) not in found}):
            found |= {(type_id, pk): list(_direct(row)) for pk, row in _last_rows(type_id, gone)}
    return found


def _last_rows(type_id: int, pks: Collection[int]) -> Iterator[tuple[int, Row]]:
    """Yield what objects were that are gone, if their deletion still waits: it comes with this change or after it.

    An interface takes its addresses along.
    """
    waiting = Event.objects.filter(dispatched_at=None, snapshot__isnull=False)
    deleted = waiting.filter(object_type_id=type_id, object_id__in=pks, kind=KindChoices.DELETED)
    yield from deleted.values_list('object_id', 'snapshot__row')


def _has(model: type[Model], column: str) -> bool:
    return any(one.attname == column for one in model._meta.concrete_fields)


def _label(type_id: int) -> str:
    return '.'.join(ContentType.objects.get_for_id(type_id).natural_key())


def _type_id(label: str) -> int:
    return ContentType.objects.get_by_natural_key(*label.split('.')).pk


#
# Events of owners
#


def take(events: Sequence[Event], claimed: Collection[Event]) -> Taken:
    """Let claimed events of owners have their sequence and snapshot, as far as nobody holds the owner's row."""
    taken = Taken()
    by_type: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_type[event.object_type_id].append(event)
    for type_id, group in by_type.items():
        model = ContentType.objects.get_for_id(type_id).model_class()
        if model:
            _take(model, group, taken)
    ready = [event.pk for event in events if event.pk not in taken.waiting | taken.gone]
    if ready:
        parameters = {'ids': ready, 'claimed': [event.pk for event in claimed]}
        taken.waiting |= set(sql.fetch_column(BEHIND, parameters))
    return taken


def _take(model: type[Model], events: Sequence[Event], taken: Taken) -> None:
    """In a transaction of its own: the lock is held no longer than it takes to draw."""
    names = {'table': connection.ops.quote_name(model._meta.db_table), 'snapshot': snapshots.expression(model)}
    parameters = {'owners': [event.object_id for event in events]}
    with transactions.short():
        locked = set(sql.fetch_column(LOCK.format(**names), parameters))
        there = set(sql.fetch_column(EXISTING.format(**names), parameters))
        ids = [event.pk for event in events if event.object_id in locked]
        drawn = sql.fetch(TAKE.format(**names), {**parameters, 'owners': list(locked), 'ids': ids}) if ids else []
        held = [event.pk for event in events if event.object_id in there - locked]
        put_off = sql.fetch(POSTPONE, {'ids': held}) if held else []
    ready, sequences = {pk for pk, _sequence in drawn}, dict([*put_off, *drawn])
    for event in events:
        event.sequence = sequences.get(event.pk, event.sequence)
        if event.pk not in ready:
            (taken.waiting if event.object_id in there else taken.gone).add(event.pk)
