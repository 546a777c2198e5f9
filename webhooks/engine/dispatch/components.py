"""Records a change of a component as an update of its owner (device, module, virtual machine), once a transaction.

The owner's event gets its sequence and snapshot under a lock of the owner's row, as by a save.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from dcim.models import CableTermination
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Model

from ...choices import KindChoices
from ...components import CABLE, COLUMNS, COMPONENTS, EVERY_COMPONENT
from ...interruptions import INTERRUPTIONS, Locked
from ...models import Event, querysets
from ...object_types import id_of, label_of_id, model_of_id
from ...outbox import snapshots, unchanged
from .. import sql
from ..each import each_or_alone
from ..registry import Registration
from . import claim

logger = logging.getLogger('webhooks.dispatch')

# The ids of a model and an object.
Reference = tuple[int, int]
# A row of an object's snapshot, {column: value}.
Row = Mapping[str, Any]

# A key in the snapshot before an owner's own event: a component of it has changed in the same transaction.
WITH_COMPONENT = 'with_component'
# At most this many changes of a transaction are searched for components. If there are more, any of them may be one.
MAX_SIBLINGS_READ = 1000

# Record an event for each owner, with the component's transaction. If there is an undispatched one, it names this
# component too. If the owner's own event is still to be dispatched, WITH_COMPONENT marks it. If there is a dispatched
# one, none is recorded: the owner was sent already.
MAKE_EVENTS = f"""
    INSERT INTO webhooks_event AS e (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username,
        request_id, request, trace, branch, changelog_message, data, error, skipped, transaction_id, transaction_time,
        visible, first_sequence, first_visible, caused_by)
    SELECT gen_random_uuid(), nextval('webhooks_event_sequence'), 'updated', v.object_type_id, v.object_id, '',
        c.timestamp, c.username, c.request_id, c.request, c.trace, c.branch, c.changelog_message, '', '', 0,
        c.transaction_id, c.transaction_time, c.visible, coalesce(c.first_sequence, c.sequence),
        coalesce(c.first_visible, c.visible), v.caused_by
    FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::jsonb[]) AS v(object_type_id, object_id, event_id, caused_by)
    JOIN webhooks_event c ON c.id = v.event_id
    WHERE NOT EXISTS (
        SELECT 1 FROM webhooks_event sent
        WHERE sent.object_type_id = v.object_type_id AND sent.object_id = v.object_id
          AND sent.transaction_id = c.transaction_id AND sent.transaction_time = c.transaction_time
          AND sent.dispatched_at IS NOT NULL
    )
    ON CONFLICT (transaction_id, transaction_time, object_type_id, object_id) WHERE dispatched_at IS NULL
    DO UPDATE SET caused_by = (SELECT jsonb_agg(DISTINCT label) FROM jsonb_array_elements(
        e.caused_by || EXCLUDED.caused_by) AS label),
        prechange = CASE WHEN e.caused_by IS NULL THEN e.prechange || '{{"{WITH_COMPONENT}": true}}'
                         ELSE e.prechange END
    WHERE e.caused_by IS NOT NULL OR NOT e.prechange ? '{WITH_COMPONENT}'"""

# Read the changes of these events' transactions that are still to be dispatched and may be of components.
READ_SIBLINGS = """
    SELECT s.id FROM (
        SELECT DISTINCT transaction_id, transaction_time FROM webhooks_event WHERE id = ANY(%(ids)s)
    ) t CROSS JOIN LATERAL (
        SELECT e.id FROM webhooks_event e
        WHERE e.transaction_id = t.transaction_id AND e.transaction_time = t.transaction_time
          AND e.dispatched_at IS NULL AND e.object_type_id = ANY(%(types)s) AND e.kind <> '' AND e.caused_by IS NULL
        LIMIT %(most)s
    ) s"""

# Give an owner's event a new sequence and the owner's present snapshot. The owner's row is locked.
DRAW_SEQUENCE = """
    UPDATE webhooks_event e
    SET sequence = nextval('webhooks_event_sequence'), snapshot = now_.snapshot, prechange = now_.snapshot
    FROM (SELECT t.id, {snapshot} AS snapshot FROM {table} t WHERE t.id = ANY(%s)) now_
    WHERE e.id = ANY(%s) AND e.object_id = now_.id
    RETURNING e.id, e.sequence"""

# Put off an owner's event while the owner's row is locked. Its new sequence lets other events of the owner go first.
PUT_OFF = """
    UPDATE webhooks_event SET sequence = nextval('webhooks_event_sequence'), retry_at = now() + interval '1 second'
    WHERE id = ANY(%s)"""


def record_owner_updates(events: Sequence[Event]) -> None:
    """Record an undispatched event for each owner of the changed components, as updated, in a transaction of its own.

    Events of other objects record none. An event whose owner cannot be found is logged: a plugin may have changed
    NetBox's models. Raises Locked if a table of components is locked.
    """
    each_or_alone(events, _record_owner_updates, _log)


def is_new_owner(event: Event) -> bool:
    """Whether the event creates an object that may own components. Their events may be in a later batch."""
    return event.kind == KindChoices.CREATED and label_of_id(event.object_type_id) not in EVERY_COMPONENT


def with_changed(events: Sequence[Event]) -> set[int]:
    """Return the ids of owners' own events in whose transaction a component of the owner really changes.

    A component's event may have been dispatched already, and has marked the owner's event then: record_owner_updates().
    Raises Locked if a table of components is locked; the open transaction goes on.
    """
    if not events:
        return set()
    try:
        with sql.reading():
            found = _with_waiting(events)
    except INTERRUPTIONS:
        raise
    except Exception:
        logger.exception('the components of %d changed objects are unknown: all may have changed', len(events))
        return {event.pk for event in events}
    pks = [event.pk for event in events]
    # Marks are read last: a component that is no longer waiting has made one.
    return found | set(Event.objects.filter(pk__in=pks, prechange__has_key=WITH_COMPONENT).values_list('pk', flat=True))


def _with_waiting(events: Sequence[Event]) -> set[int]:
    """Return the ids of events of owners with a component whose change is still to be dispatched."""
    types = [id_of(label) for label in EVERY_COMPONENT]
    asked = {'ids': [event.pk for event in events], 'types': types, 'most': MAX_SIBLINGS_READ}
    siblings = sql.fetch_column(READ_SIBLINGS, asked)
    waiting = list(querysets.events().filter(pk__in=siblings))
    counts = Counter(map(_transaction, waiting))
    same = unchanged.among(waiting)
    real = [event for event in waiting if event.pk not in same]
    changed = {(owner, _transaction(event)) for event, owner, _label in _owners(real)}
    return {
        event.pk
        for event in events
        if ((event.object_type_id, event.object_id), _transaction(event)) in changed
        or counts[_transaction(event)] >= MAX_SIBLINGS_READ
    }


def _transaction(event: Event) -> tuple[int, datetime]:
    return event.transaction_id, event.transaction_time


def is_owner(event: Event) -> bool:
    """Return whether the event's object may have components."""
    return label_of_id(event.object_type_id) in COMPONENTS


def _log(event: Event, error: Exception) -> None:
    logger.error('event=%s its device gets no event', event.uuid, exc_info=error)


def _record_owner_updates(events: Sequence[Event]) -> Sequence[None]:
    changes: dict[tuple, int] = {}
    causes: dict[tuple, set[str]] = defaultdict(set)
    with sql.reading():
        owners = list(_owners(events))
    for event, reference, label in owners:
        key = (*reference, event.transaction_id, event.transaction_time)
        changes[key] = event.pk
        causes[key].add(label)
    # If two dispatchers wrote in different orders, they could wait for each other. So all write in this one.
    rows = [(*key[:2], changes[key], json.dumps(sorted(causes[key]))) for key in sorted(changes)]
    if rows:
        with sql.transaction():
            sql.execute(MAKE_EVENTS, [list(column) for column in zip(*rows, strict=True)])
    return ()


def _owners(events: Sequence[Event]) -> Iterator[tuple[Event, Reference, str]]:
    """Yield (event, owner before or after the change, label of the component)."""
    through: list[tuple[Event, Reference, str]] = []
    cables = [event for event in events if label_of_id(event.object_type_id) == CABLE]
    rows = Event.objects.filter(pk__in=[event.pk for event in events])
    columns = rows.values_list('pk', 'snapshot__row', 'prechange__row')
    states_of = {pk: list(filter(None, states)) for pk, *states in columns}
    for event in events:
        label = label_of_id(event.object_type_id)
        # A module belongs to a device, but is no component: its changes are no updates of the device.
        states = states_of.get(event.pk, []) if label in EVERY_COMPONENT else []
        is_recabled = len({state.get('cable_id') for state in states}) > 1
        for state in states:
            for name in {label, CABLE} if is_recabled else {label}:
                yield from ((event, owner, name) for owner in _direct(state))
                if state.get('assigned_object_id') is not None:  # an address at an interface
                    through.append((event, (state['assigned_object_type_id'], state['assigned_object_id']), name))
    if cables:  # ends of a deleted one have events themselves
        ends = CableTermination.objects.filter(cable__in=[event.object_id for event in cables])
        found = list(ends.values_list('cable_id', 'termination_type_id', 'termination_id'))
        through += [(event, tuple(end), CABLE) for event in cables for pk, *end in found if pk == event.object_id]
    owners = _owners_of({component for _event, component, _name in through})
    for event, component, name in through:
        yield from ((event, owner, name) for owner in owners.get(component, ()))


def _direct(row: Row) -> Iterator[Reference]:
    for column, label in COLUMNS.items():
        if row.get(column) is not None:
            yield id_of(label), row[column]
    if row.get('parent_object_type_id') is not None and label_of_id(row['parent_object_type_id']) in COMPONENTS:
        yield row['parent_object_type_id'], row['parent_object_id']


def _owners_of(components: Iterable[Reference]) -> dict[Reference, list[Reference]]:
    by_type: dict[int, set[int]] = defaultdict(set)
    for type_id, pk in components:
        by_type[type_id].add(pk)
    found: dict[Reference, list[Reference]] = {}
    for type_id, pks in by_type.items():
        model = model_of_id(type_id)
        fields = {one.attname for one in model._meta.concrete_fields} if model else set()
        if model and (columns := [column for column in COLUMNS if column in fields]):
            rows = model._base_manager.filter(pk__in=pks).values('pk', *columns)
            found |= {(type_id, row['pk']): list(_direct(row)) for row in rows}
    return found


def take(events: Sequence[Event], in_hand: Collection[int], registration: Registration) -> set[int]:
    """Give owners' events their sequence and snapshot, each model in a transaction of its own.

    `in_hand`: the ids of all events of the batch. Returns the ids of events that are not to be dispatched now: the
    owner's row is locked, so the event is tried a second later; or the owner is deleted, and the event with it; or an
    earlier event of the owner came meanwhile. Raises Lost.
    """
    by_type: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_type[event.object_type_id].append(event)
    drawn: set[int] = set()
    for type_id, group in by_type.items():
        try:
            drawn |= _draw(model_of_id(type_id), group, registration)
        except Locked:
            sql.execute(PUT_OFF, [[event.pk for event in group]])
    # A change committed since has a lower sequence and goes first.
    return {event.pk for event in events} - (drawn.intersection(claim.in_turn(in_hand)) if drawn else drawn)


def _draw(model: type[Model], events: Sequence[Event], registration: Registration) -> set[int]:
    """Draw sequences under a lock of the owners' rows, which lasts no longer. Returns the ids of the events."""
    owners = model._base_manager.using(DEFAULT_DB_ALIAS).filter(pk__in=[event.object_id for event in events])
    draw = DRAW_SEQUENCE.format(
        table=connection.ops.quote_name(model._meta.db_table), snapshot=snapshots.expression(model)
    )
    with sql.transaction(), sql.reading():
        registration.beat()  # if this process was frozen, others may have the events: then it raises Lost
        free = owners.order_by('pk').select_for_update(skip_locked=True, no_key=True)
        locked = list(free.values_list('pk', flat=True))
        there = set(owners.values_list('pk', flat=True))
        drawn = dict(sql.fetch(draw, [locked, [event.pk for event in events]]))
        left = [event for event in events if event.pk not in drawn]
        sql.execute(PUT_OFF, [[event.pk for event in left if event.object_id in there]])
        claim.discard([event.pk for event in left if event.object_id not in there])
    for event in events:
        event.sequence = drawn.get(event.pk, event.sequence)
    return set(drawn)
