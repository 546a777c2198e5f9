"""Compares lists that webhooks subscribe to with their receivers' copies, and records the differences.

A change of an object brings an event. But an object may also enter or leave a list without one: its site moves to
another region, or a date passes. So a walk looks at all objects of the type: an hour after the last walk began, when
somebody asks, or a minute after the last one began if a table was written that the filter reads. PostgreSQL counts
these writes anyway, so saves cost nothing more.

For each object that differs it records an event of its present state, or of its id if it is gone. What that means for
the list is judged as of any event (dispatch/memberships.py).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.db import connection
from django.db.models import Model
from extras.models import SavedFilter

from ... import delivery_states as states
from ... import list_filters
from ...exceptions import reason_of
from ...models import ListWalk, Webhook
from ...object_types import model_of_id
from ...outbox import restating, unchanged
from ...rendering.derived import Derived
from ...storable import MAX_KEY, storable
from .. import sql
from ..dispatch import loop as dispatch
from .loop import Walk

# While a webhook has this many unsent deliveries, no further slice is recorded.
MAX_OPEN_DELIVERIES = 600
# A walk begins again this long after it began: if a table that its filter reads was written, and in any case.
WRITTEN_SECONDS = 60
HOURLY_SECONDS = 3600
# A filter is followed over this many foreign keys: a device's site, its region, and the region above that.
MAX_HOPS = 3
# A process remembers the tables of this many filters.
MAX_LISTS_KNOWN = 1000
# The name of a table or column in a statement.
NAME = re.compile(r'"(\w+)"')

# Read the lists of active webhooks whose walk is to begin, unless nothing was written.
READ_DUE_LISTS = """
    SELECT l.id, l.asked OR l.begun_at IS NULL OR l.begun_at < now() - make_interval(secs => %(hourly)s), l.written
    FROM webhooks_listwalk l JOIN webhooks_webhook w ON w.id = l.webhook_id
    WHERE NOT l.walking AND w.enabled AND NOT w.paused
      AND (l.asked OR l.begun_at IS NULL OR l.begun_at < now() - make_interval(secs => %(written)s))"""

# Read how often these tables were written since PostgreSQL began to count.
COUNT_WRITES = """
    SELECT coalesce(sum(pg_stat_get_tuples_inserted(t.oid) + pg_stat_get_tuples_updated(t.oid)
        + pg_stat_get_tuples_deleted(t.oid)), 0)::bigint
    FROM (SELECT to_regclass(name)::oid AS oid FROM unnest(%s::text[]) AS name) t"""

# Begin a walk, unless it has begun or its definition has changed since. Skip a list whose webhook somebody is saving:
# the walks of other lists go on.
BEGIN_WALK = """
    UPDATE webhooks_listwalk SET walking = true, asked = false, begun_at = now(), written = %s, last_id = 0
    WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_listwalk WHERE id = %s AND query = %s AND NOT walking FOR UPDATE SKIP LOCKED
    ))"""

# Read the walks of active webhooks that can go on: few deliveries are open.
READY_LISTS = f"""
    SELECT l.id FROM webhooks_listwalk l JOIN webhooks_webhook w ON w.id = l.webhook_id
    WHERE l.walking AND w.enabled AND NOT w.paused AND (
        SELECT count(*) FROM (
            SELECT FROM webhooks_event e
            WHERE e.backfill_for = w.id AND e.dispatched_at IS NULL
            UNION ALL
            SELECT FROM webhooks_delivery d WHERE d.webhook_id = w.id AND d.status {states.WAITING}
            LIMIT %(most)s
        ) is_open
    ) < %(most)s"""

# Read the objects in a range of keys that the receiver has in the list: whether each still exists, and whether it has
# changed since. Changes by ignored users are not sent, and some webhooks take no updates.
READ_MEMBERS = """
    SELECT m.object_id, t.{pk} IS NOT NULL, w.type_update AND coalesce(m.state <> {state}, m.sequence > 0)
        AND NOT EXISTS (SELECT FROM webhooks_webhook_ignore_users i WHERE i.webhook_id = m.webhook_id)
    FROM webhooks_listmember m JOIN webhooks_webhook w ON w.id = m.webhook_id
    LEFT JOIN {table} t ON t.{pk} = m.object_id
    WHERE m.webhook_id = %s AND m.object_type_id = %s AND m.object_id > %s AND m.object_id <= %s"""

# Note the state of objects that were taken as known.
LEARN_STATES = """
    UPDATE webhooks_listmember m SET state = {state} FROM {table} t
    WHERE m.webhook_id = %s AND m.object_type_id = %s AND m.object_id > %s AND m.object_id <= %s
      AND m.state IS NULL AND m.sequence = 0 AND t.{pk} = m.object_id"""

# Leave out objects with a change that is under way for the webhook: it is judged by itself.
LEAVE_OUT_OPEN = """
    SELECT o.id FROM unnest(%(objects)s::bigint[]) AS o(id)
    WHERE NOT EXISTS (
        SELECT FROM webhooks_event e
        WHERE e.object_type_id = %(type)s AND e.object_id = o.id AND e.dispatched_at IS NULL
          AND coalesce(e.backfill_for, %(webhook)s) = %(webhook)s
    ) AND NOT EXISTS (
        SELECT FROM webhooks_delivery d
        WHERE d.webhook_id = %(webhook)s AND d.object_type_id = %(type)s AND d.object_id = o.id
          AND d.status = 'undecided'
    )"""

# Record a dispatched event for each object that is gone without one. It shows the id, the only thing that is known.
RECORD_GONE = """
    INSERT INTO webhooks_event (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, data,
        snapshots, error, skipped, dispatched_at, backfill_for, urgent, transaction_id, transaction_time)
    SELECT gen_random_uuid(), nextval('webhooks_event_sequence'), 'deleted', %(type)s, o.id, '', %(now)s,
        json_build_object('id', o.id)::text, '{"prechange": null, "postchange": null}'::jsonb, '', 0, %(now)s,
        %(webhook)s, true, pg_current_xact_id()::text::bigint, now()
    FROM unnest(%(objects)s::bigint[]) AS o(id)
    RETURNING id"""


@dataclass(frozen=True)
class Difference:
    """The differences, in a range of keys, between a list and the objects that its receiver has: ids of objects.

    `missing`: in the list, but not sent. `stale`: in the list, and changed since it was sent. `extra`: sent, and not in
    the list any more. `gone`: sent, and deleted. Objects with a change that is under way are left out.
    """

    missing: list[int]
    stale: list[int]
    extra: list[int]
    gone: list[int]


def difference(listed: ListWalk, model: type[Model], last_id: int, count: int) -> tuple[Difference, int, int | None]:
    """Return the differences among the next `count` objects after a key, and how many are in the list.

    Returns also the last key that was looked at, None at the end. Raises as list_filters.after().
    """
    inside, upto = list_filters.after(model, listed.query, last_id, count)
    bounds = [listed.webhook_id, listed.object_type_id, last_id, MAX_KEY if upto is None else upto]
    rows = sql.fetch(_of_model(READ_MEMBERS, model), bounds)
    members, listed_now = {pk for pk, *_is in rows}, {*inside}
    parts = (
        listed_now - members,
        {pk for pk, _exists, is_stale in rows if is_stale} & listed_now,
        {pk for pk, exists, _is_stale in rows if exists} - listed_now,
        {pk for pk, exists, _is_stale in rows if not exists},
    )
    known = {'type': listed.object_type_id, 'webhook': listed.webhook_id}
    settled = {*sql.fetch_column(LEAVE_OUT_OPEN, {**known, 'objects': [*set.union(*parts)]})}
    return Difference(*(sorted(part & settled) for part in parts)), len(inside), upto


class WalkOfList(Walk[ListWalk]):
    """A walk over the objects of a list's type. If the filter fails, it ends, and the next begins when it is due."""

    guards = ('query', 'begun_at', 'walking', 'last_id')

    @classmethod
    def ready(cls) -> list['WalkOfList']:
        """Begin the walks that are due, and return all that can go on."""
        found = sql.fetch(READ_DUE_LISTS, {'hourly': HOURLY_SECONDS, 'written': WRITTEN_SECONDS})
        due = {pk: more for pk, *more in found}
        for pk, listed in ListWalk.objects.in_bulk(due).items():
            _begin(listed, *due[pk])
        pks = sql.fetch_column(READY_LISTS, {'most': MAX_OPEN_DELIVERIES})
        found = ListWalk.objects.filter(pk__in=pks, walking=True) if pks else ()
        return [cls(listed, [listed.object_type_id]) for listed in found]

    def find(self, model: type[Model], type_id: int, count: int) -> tuple[Sequence[int], int | None]:
        """Return the next objects that differ."""
        self._difference, _count, upto = difference(self.row, model, self.last_id, count)
        return [*self._difference.missing, *self._difference.stale, *self._difference.extra], upto

    def move(self, position: int, last_id: int, looked: int) -> bool:
        """Write its place. At the end of the table it ends."""
        return self.write(last_id=last_id, walking=position == 0, error='')

    def record(self, model: type[Model], type_id: int, pks: Sequence[int], upto: int, now: datetime) -> bool:
        """Record an event for each object that differs, and store the states of objects that were taken as known."""
        webhook = Webhook.objects.get(pk=self.row.webhook_id)
        if pks:
            restating.restate(webhook, model, pks, now, urgent=True)
        if gone := self._difference.gone:
            known = {'type': type_id, 'webhook': webhook.pk, 'now': now, 'objects': gone}
            events = sql.fetch_column(RECORD_GONE, known)
            dispatch.make_deliveries((), [(webhook.pk, pk) for pk in events], are_new=True)
        sql.execute(_of_model(LEARN_STATES, model), [webhook.pk, type_id, self.last_id, upto])
        return True

    def fail(self, error: Exception) -> bool:
        """End it, and keep the reason for the webhook's page."""
        return self.write(walking=False, error=storable(reason_of(error)))


def _of_model(statement: str, model: type[Model]) -> str:
    """Return a statement with the names of a model's table and key, and `state`, the digest of a row `t` of it."""
    quote = connection.ops.quote_name
    return statement.format(
        table=quote(model._meta.db_table), pk=quote(model._meta.pk.column), state=unchanged.state(model)
    )


def _begin(listed: ListWalk, is_due: bool, written: int | None) -> None:
    model = model_of_id(listed.object_type_id)
    # Tables are remembered for the query with its saved filters spelled out: somebody may change these.
    query = list_filters.spelled_out(listed.query)
    count = sql.fetch_value(COUNT_WRITES, [list(_tables(model, query))]) if model else 0
    if is_due or count != written:
        sql.execute(BEGIN_WALK, [count, listed.pk, listed.query])


@lru_cache(MAX_LISTS_KNOWN)
def _tables(model: type[Model], query: str) -> frozenset[str]:
    """Return the tables that a filter of the model may read.

    The model's own is among them only if an object may enter the list without an event: because another object changed
    (a tenant group, because its parent was renamed), or a column that NetBox keeps by itself.
    """
    found, reached = {model}, {model}
    for _hop in range(MAX_HOPS):
        reached = {other for one in reached for other in _related(one)} - found
        found |= reached
    known = {one._meta.db_table for one in apps.get_models(include_auto_created=True)}
    statements = _statements(model, query)
    named = {*NAME.findall(statements)}
    read = named & known | {one._meta.db_table for one in (*found, SavedFilter)}
    own = model._meta.db_table
    reads_others = len(re.findall(f'(?:FROM|JOIN) "{own}"', statements)) > 1
    is_kept = not named.isdisjoint(Derived(model._default_manager.all()).columns)
    return frozenset(read if reads_others or is_kept else read - {own})


def _related(model: type[Model]) -> Iterator[type[Model]]:
    for field in (*model._meta.concrete_fields, *model._meta.many_to_many):
        if isinstance(field.related_model, type) and field.related_model._meta.app_label != 'contenttypes':
            yield field.related_model
            if field.many_to_many:
                yield field.remote_field.through


def _statements(model: type[Model], query: str) -> str:
    """Return the statement that finds the list, and those with which the filter itself looks for other objects."""
    run: list[str] = []

    def note(execute: Callable, statement: Any, *arguments: Any) -> Any:
        run.append(str(statement))
        return execute(statement, *arguments)

    # The walk itself reports an error, and a filter that hangs.
    with list_filters.bounded(query), connection.execute_wrapper(note), suppress(Exception):
        run.append(str(list_filters.objects(model, query).order_by().values('pk').query))
    return ' '.join(run)
