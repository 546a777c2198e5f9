"""Records updates of objects whose config context changed because another object changed (config_contexts.py).

A dispatcher notes the change of a source as a walk. An idle one walks over all owners, slice by slice, as a backfill
does. It computes the data of each owner, and compares their digest with the stored one, of the data that were sent
last. If they differ, it records an event.

A digest is stored only together with an event, or while no change of a source is under way. So data that
webhooks do not know yet differ from their digest until a walk comes by. If a walk comes twice, the second one finds no
difference.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import F, Model

from ... import rendering
from ...choices import KindChoices
from ...config_contexts import CONFIG_CONTEXT, OWNERS, SOURCES
from ...interruptions import Locked
from ...models import ContextWalk, Event
from ...object_types import id_of, label_of_id, model_of_id
from .. import sql
from ..each import each_or_alone
from .loop import Walk

logger = logging.getLogger('webhooks.config_contexts')

# In place of a digest of data that cannot be computed. The event's own rendering shows the error.
NO_DIGEST = ''
# The key of a payload's data.
KEY = 'config_context'
# Columns of Event that a walk keeps, if one request caused it.
ORIGIN = ('username', 'request_id', 'request', 'trace')

# Add a walk, or add the causes to the walk that has not begun.
NOTE_CAUSE = """
    INSERT INTO webhooks_contextwalk AS w
        (caused_by, origin, first_sequence, first_visible, started, position, last_id, looked)
    VALUES (%(caused_by)s::jsonb, %(origin)s::jsonb, %(sequence)s, %(visible)s, false, 0, 0, 0)
    ON CONFLICT (started) WHERE NOT started AND first_sequence IS NOT NULL DO UPDATE SET
        caused_by = (
            SELECT jsonb_agg(DISTINCT label) FROM jsonb_array_elements(w.caused_by || EXCLUDED.caused_by) label),
        origin = CASE WHEN w.origin = EXCLUDED.origin THEN EXCLUDED.origin END,
        first_visible = CASE WHEN w.first_sequence < EXCLUDED.first_sequence THEN w.first_visible
                             ELSE EXCLUDED.first_visible END,
        first_sequence = least(w.first_sequence, EXCLUDED.first_sequence)"""

# Read whether there is another walk with causes, and whether changes of sources that may matter (_may_matter) are still
# to be dispatched.
READ_CAUSES = """
    SELECT EXISTS (SELECT FROM webhooks_contextwalk WHERE caused_by <> '[]' AND id <> %s),
        EXISTS (
            SELECT FROM webhooks_event
            WHERE dispatched_at IS NULL AND object_type_id = ANY(%s) AND (kind = 'updated' OR object_type_id = %s)
        )"""

# Read whether some webhook asks for the owners of this type, or did so when the walk was caused.
IS_ASKED = """
    SELECT EXISTS (
        SELECT FROM webhooks_subscription
        WHERE object_type_id = %(type)s AND kind = 'derived' AND (until IS NULL OR until >= %(sequence)s)
    )"""

# Read the stored digests of some owners.
READ_DIGESTS = 'SELECT object_id, digest FROM webhooks_contextdigest WHERE object_type_id = %s AND object_id = ANY(%s)'

# Store the digests of some owners, where they are new or differ.
STORE_DIGESTS = """
    INSERT INTO webhooks_contextdigest AS d (object_type_id, object_id, digest)
    SELECT %s, * FROM unnest(%s::bigint[], %s::text[])
    ON CONFLICT (object_type_id, object_id) DO UPDATE SET digest = EXCLUDED.digest WHERE d.digest <> EXCLUDED.digest"""

# Delete the digests of objects that no longer exist, in a range of primary keys.
FORGET_GONE = """
    DELETE FROM webhooks_contextdigest d
    WHERE object_type_id = %(type)s AND object_id > %(after)s AND object_id <= %(upto)s
      AND NOT EXISTS (SELECT FROM {table} t WHERE t.{pk} = d.object_id)"""

# Record an event for each of these owners. It gets its snapshot, and another sequence, when it is dispatched, under
# a lock of the owner's row (dispatch/components.py).
RECORD_EVENTS = """
    INSERT INTO webhooks_event (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username,
        request_id, request, trace, data, error, skipped, transaction_id, transaction_time, visible, first_sequence,
        first_visible, caused_by)
    SELECT gen_random_uuid(), nextval('webhooks_event_sequence'), 'updated', %(type)s, v.id, '', %(now)s,
        o.origin ->> 'username', (o.origin ->> 'request_id')::uuid, nullif(o.origin -> 'request', 'null'),
        nullif(o.origin -> 'trace', 'null'), '', '', 0, pg_current_xact_id()::text::bigint, now(),
        pg_current_snapshot()::text, w.first_sequence, w.first_visible, w.caused_by
    FROM webhooks_contextwalk w
    CROSS JOIN LATERAL (SELECT CASE WHEN NOT %(is_shared)s THEN w.origin END AS origin) o
    CROSS JOIN unnest(%(objects)s::bigint[]) AS v(id)
    WHERE w.id = %(walk)s"""


#
# Beside dispatch
#


def note(events: Collection[Event]) -> None:
    """Record a walk, if one of these changes of sources may give other objects other data. Reads their snapshots.

    The events are still to be dispatched. If that is interrupted, they are noted again: the second walk finds nothing.
    """
    causes = list(_causes(events))
    if not causes:
        return
    first = min(causes, key=lambda one: one['first_sequence'] or one['sequence'])
    origins = {json.dumps({name: one[name] for name in ORIGIN}, default=str, sort_keys=True) for one in causes}
    cause = {
        'caused_by': json.dumps(sorted({one['label'] for one in causes})),
        'origin': origins.pop() if len(origins) == 1 else None,
        'sequence': first['first_sequence'] or first['sequence'],
        'visible': first['first_visible'] or first['visible'],
    }
    # Another dispatcher may be in the first slice of the walk: then the batch is tried again.
    with sql.reading():
        sql.execute(NOTE_CAUSE, cause)


def _causes(events: Collection[Event]) -> Iterator[dict[str, Any]]:
    columns = ('sequence', 'first_sequence', 'visible', 'first_visible', *ORIGIN, 'kind', 'snapshot', 'prechange')
    for found in Event.objects.filter(pk__in=[event.pk for event in events]).values('object_type_id', *columns):
        found['label'] = label_of_id(found['object_type_id'])
        if _may_matter(found['label'], found['kind'], found['prechange'], found['snapshot']):
            yield found


def _may_matter(label: str, kind: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> bool:
    """Return whether a change of a source may give other objects other data. An unknown state before may."""
    if kind != KindChoices.UPDATED:
        # Nothing pointed to other sources yet, or those that did change by it have events of their own.
        return label == CONFIG_CONTEXT
    if not before or not after:
        return True
    if any(before['row'].get(column) != after['row'].get(column) for column in SOURCES[label]):
        return True
    return label == CONFIG_CONTEXT and before['m2m'] != after['m2m']


def learn(events: Collection[Event]) -> None:
    """Store digests of these new owners: not every webhook gets their creation.

    While a change of a source is under way, none is stored: it may have come after the creation.
    """
    by_type: dict[int, list[int]] = {}
    for event in events:
        by_type.setdefault(event.object_type_id, []).append(event.object_id)
    for type_id, pks in by_type.items():
        try:
            digests = _digests(model_of_id(type_id), pks)
        except Locked:
            continue  # without a digest the next walk records an event
        with sql.transaction():
            if not any(_pending_causes()):
                _store(type_id, digests)


def store_sent(shown: Iterable[tuple[Event, Mapping[str, Any] | None]]) -> None:
    """Store the digests of the data in these events, in the open transaction.

    Each event goes to all webhooks that ask for config contexts. `shown`: each event with its data.
    """
    by_type: dict[int, dict[int, str]] = {}
    for event, data in shown:
        if data is not None and KEY in data:
            by_type.setdefault(event.object_type_id, {})[event.object_id] = digest(data[KEY])
    # A user who has just enabled a webhook may hold digests. Then none is stored, and the next walk records an event.
    with suppress(Locked), sql.reading():
        for type_id, digests in sorted(by_type.items()):
            _store(type_id, digests)
    sql.set_lock_timeout()


def digest(data: object) -> str:
    """Return the digest of a config context, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=16).hexdigest()


def _store(type_id: int, digests: Mapping[int, str]) -> None:
    # In the same order everywhere: otherwise two transactions could deadlock.
    rows = sorted(digests.items())
    if rows:
        sql.execute(STORE_DIGESTS, [type_id, [pk for pk, _digest in rows], [digest for _pk, digest in rows]])


def _digests(model: type[Model], pks: Sequence[int]) -> dict[int, str]:
    """Return {pk: digest of its present data} for objects that exist. Raises Locked if a table is locked."""

    def compute(some: Sequence[int]) -> list[tuple[int, str]]:
        with sql.reading():
            found = rendering.config_contexts(model, some)
        return [(pk, digest(data)) for pk, data in found.items()]

    def failed(pk: int, error: Exception) -> tuple[int, str]:
        logger.error(
            'model=%s id=%s its config context cannot be computed', model._meta.label_lower, pk, exc_info=error
        )
        return pk, NO_DIGEST

    return dict(each_or_alone(pks, compute, failed))


def _pending_causes(walk_id: int = 0) -> tuple[bool, bool]:
    """Return READ_CAUSES. Call it after computing digests: it then knows of each change that they may show."""
    types = {label: id_of(label) for label in SOURCES}
    return sql.fetch(READ_CAUSES, [walk_id, list(types.values()), types[CONFIG_CONTEXT]])[0]


#
# The walk
#


class ConfigContextWalk(Walk[ContextWalk]):
    """The first walk over owners. It records events of owners whose data differ, or only learns the data."""

    guards = ('position', 'last_id')

    @classmethod
    def ready(cls) -> list['ConfigContextWalk']:
        """Return the first one: the others wait for it."""
        types = [id_of(label) for label in OWNERS]
        return [cls(walk, types, walk.position) for walk in ContextWalk.objects.order_by('pk')[:1]]

    def find(self, model: type[Model], type_id: int, count: int) -> tuple[Sequence[int], int | None]:
        """Mark it as begun, and return the next owners, if some webhook asks for them."""
        if not self.write(started=True):
            raise Locked('another dispatcher has moved or ended the walk')
        self.row.refresh_from_db(fields=['caused_by', 'first_sequence'])  # no cause is added from here on
        if not sql.fetch_value(IS_ASKED, {'type': type_id, 'sequence': self.row.first_sequence}):
            return [], None
        with sql.reading():
            objects = model._base_manager.using('default').filter(pk__gt=self.last_id).order_by('pk')
            pks = list(objects.values_list('pk', flat=True)[:count])
        self._digests = _digests(model, pks)
        return pks, pks[-1] if pks else None

    def move(self, position: int, last_id: int, looked: int) -> bool:
        """Write its place, and count the owners."""
        return self.write(position=position, last_id=last_id, looked=F('looked') + looked)

    def record(self, model: type[Model], type_id: int, pks: Sequence[int], upto: int, now: datetime) -> bool:
        """Record an event for each owner whose data differ, or only learn the data, which may have to wait."""
        if pks and not self._look(type_id, pks, now):
            return False
        quote = connection.ops.quote_name
        statement = FORGET_GONE.format(table=quote(model._meta.db_table), pk=quote(model._meta.pk.column))
        sql.execute(statement, {'type': type_id, 'after': self.last_id, 'upto': upto})
        return True

    def _look(self, type_id: int, pks: Sequence[int], now: datetime) -> bool:
        known = dict(sql.fetch(READ_DIGESTS, [type_id, list(pks)]))
        other = {pk: digest for pk, digest in self._digests.items() if known.get(pk) != digest}
        is_walk, is_event = _pending_causes(self.row.pk)
        if self.row.caused_by:
            # The data may show another user's change already. If a webhook ignores one user, it must hear of the other.
            bounds = {'is_shared': is_walk or is_event, 'now': now}
            sql.execute(RECORD_EVENTS, {'walk': self.row.pk, 'type': type_id, 'objects': sorted(other), **bounds})
        elif is_event:
            return False
        elif is_walk:
            # Owners that are not known yet may be concerned: the next walk records their events.
            return self.end(now)
        _store(type_id, other)
        return True

    def end(self, now: datetime) -> bool:
        """Delete its row."""
        return bool(self.row.delete()[0])
