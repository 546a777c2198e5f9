"""Writes the events of changes: one for each object and transaction, merged from all its changes.

An event's sequence is drawn under the row lock of its object. So the sequences of an object grow in commit order.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connection, models, transaction
from netbox.context import current_request
from utilities.request import get_safe_request_context

from .. import rendering
from ..choices import KindChoices
from ..models.sequence import SEQUENCE
from ..storable import storable, storable_json
from . import prechange, scope, snapshots, trace, unchanged
from .snapshots import object_type_id

CREATED, UPDATED, DELETED = KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED
# The kind of an event whose object came and went in one transaction. It is not sent.
NOTHING = ''

# (kind so far, kind of the next change) → kind of the merged event. For other pairs the kind so far stays.
MERGED_KINDS = {
    (CREATED, DELETED): NOTHING,
    (UPDATED, DELETED): DELETED,
    (DELETED, CREATED): UPDATED,
    (NOTHING, CREATED): CREATED,
    # A receiver of the creation may save the object again. Then the update comes before the creation.
    (UPDATED, CREATED): CREATED,
}

# The columns of a new event.
COLUMNS = """uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username, request_id, request,
    trace, branch, changelog_message, data, error, skipped, transaction_id, transaction_time, visible, prechange,
    snapshot"""
# Values of COLUMNS, up to the snapshot. Parameters: kind, object type's id, time, user's name, request's id, request,
# trace context, branch, message.
VALUES = f"""gen_random_uuid(), nextval('{SEQUENCE}'), %s, %s, {{pk}}, '', %s, %s, %s, %s::jsonb,
    %s::jsonb, %s::jsonb, %s, '', '', 0, pg_current_xact_id()::text::bigint, now(), pg_current_snapshot()::text,
    {{before}}"""
# Merge the change into the transaction's event of this object: newer snapshot and sequence, merged kind. If that event
# only restates the object for one webhook, it becomes a change, which all webhooks get.
ON_CONFLICT = f"""
    ON CONFLICT (transaction_id, transaction_time, object_type_id, object_id) WHERE dispatched_at IS NULL
    DO UPDATE SET
        first_sequence = coalesce(e.first_sequence, e.sequence),
        first_visible = coalesce(e.first_visible, e.visible),
        sequence = EXCLUDED.sequence,
        visible = EXCLUDED.visible,
        timestamp = EXCLUDED.timestamp,
        username = EXCLUDED.username,
        request_id = EXCLUDED.request_id,
        request = EXCLUDED.request,
        trace = EXCLUDED.trace,
        branch = EXCLUDED.branch,
        changelog_message = coalesce(EXCLUDED.changelog_message, e.changelog_message),
        -- NetBox saves objects that it already announced as deleted: they stay as they were then.
        snapshot = CASE WHEN e.kind = '{DELETED}' AND EXCLUDED.kind = '{UPDATED}' THEN e.snapshot
                        ELSE EXCLUDED.snapshot END,
        backfill_for = NULL,
        urgent = false,
        prechange = CASE WHEN e.backfill_for IS NOT NULL THEN EXCLUDED.prechange
                         WHEN e.kind = '{UPDATED}' AND EXCLUDED.kind = '{CREATED}' THEN NULL ELSE e.prechange END,
        kind = CASE {
    ' '.join(
        f"WHEN e.kind = '{before}' AND EXCLUDED.kind = '{then}' THEN '{result}'"
        for (before, then), result in MERGED_KINDS.items()
    )
} ELSE e.kind END"""
# Record one event for each object that follows as SELECT.
INSERT = f'INSERT INTO webhooks_event AS e ({COLUMNS})'


def with_before(model: type[models.Model], pks: Sequence[Any]) -> dict[Any, str | None]:
    """Return {pk: snapshot before the change, as JSON text}; None for each if no webhook asks for it.

    The state that an earlier step of the transaction kept counts. Other rows are read, and locked in a transaction.
    A row that does not exist has None.
    """
    if not pks or not scope.needs_before(model):
        return dict.fromkeys(pks)
    unchanged.prepare(model)
    states = {pk: prechange.find(model, pk) for pk in pks}
    unknown = [pk for pk, state in states.items() if state is None]
    return states | (snapshots.take_before(model, unknown) if unknown else {})


def record(model: type[models.Model], kind: str, rows: Mapping[Any, str | None], message: str | None = None) -> None:
    """Insert one event for each row, with its present snapshot, or merge it into this transaction's event.

    `rows`: {pk: snapshot before the change, as JSON text, or None}. `message`: as in the change log. An update that
    changed nothing is left out, unless some webhook wants it. The caller holds the locks of the rows. Without them,
    sequences could be out of order.
    """
    if len(rows) == 1:
        # One row is the usual case. Without arrays it takes PostgreSQL a sixth less time.
        ((pk, state),) = rows.items()
        before, source, parameters = '%s::jsonb', snapshots.row(model), [state, pk]
    else:
        before, source, parameters = 'b.before', snapshots.rows(model), [list(rows), list(rows.values())]
    if kind == UPDATED and not scope.wants_unchanged(model):
        statement = _if_changed(model, before, source)
    else:
        statement = f"""{INSERT} SELECT {VALUES.format(pk='t.' + model._meta.pk.column, before=before)},
            {snapshots.expression(model)} {source} {ON_CONFLICT}"""
    _execute(statement, [kind, object_type_id(model), *_circumstances(), message, *parameters])


def _if_changed(model: type[models.Model], before: str, source: str) -> str:
    """Return SQL that records rows whose state has changed. OFFSET 0: else the snapshot is computed for each use."""
    return f"""{INSERT} SELECT {VALUES.format(pk='s.pk', before='s.before')}, s.snapshot
        FROM (
            SELECT t.{model._meta.pk.column} AS pk, {before} AS before, {snapshots.expression(model)} AS snapshot
            {source} OFFSET 0
        ) s
        WHERE {unchanged.has_changes(model, object_type_id(model))} {ON_CONFLICT}"""


def record_touched(
    model: type[models.Model], kind: str, rows: Mapping[Any, str | None], message: str | None = None
) -> None:
    """Lock the rows, then record a change of them as `record` does. Rows that do not exist get no event.

    For changes whose rows this transaction may not have written, such as changes of many-to-many links.
    """
    if not rows:
        return
    if not scope.wants_unchanged(model):
        unchanged.prepare(model)
    with transaction.atomic():
        if existing := snapshots.lock_rows(model, rows.keys()):
            record(model, kind, {pk: rows[pk] for pk in existing}, message)


def record_deleted(model: type[models.Model], snapshots: Mapping[Any, str], message: str | None = None) -> None:
    """Insert a deletion's event for each of {pk: snapshot as JSON text}, or merge it into this transaction's event.

    The rows may be gone already: the snapshots were taken before.
    """
    before = f"b.snapshot - '{rendering.SHOWN}'"
    statement = f"""{INSERT} SELECT {VALUES.format(pk='b.pk', before=before)}, b.snapshot
        FROM unnest(%s::bigint[], %s::jsonb[]) AS b(pk, snapshot) {ON_CONFLICT}"""
    taken = [list(snapshots), list(snapshots.values())]
    _execute(statement, [DELETED, object_type_id(model), *_circumstances(), message, *taken])


def _execute(statement: str, parameters: list[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        is_recorded = cursor.rowcount > 0
    scope.current().recorded |= is_recorded


def message_of(instance: models.Model) -> str | None:
    """Return the message for the change log that the user gave with this change; None without one."""
    message = getattr(instance, '_changelog_message', None)
    return storable(message) if isinstance(message, str) and message else None


def _circumstances() -> tuple[datetime, str | None, Any, str | None, str | None, str | None]:
    now = datetime.fromtimestamp(time.time(), UTC)
    branch = _json(scope.branch())
    request = current_request.get()
    if request is None:
        return now, None, None, None, None, branch
    user = getattr(request, 'user', None)
    username = user.username if user and user.is_authenticated else None
    return now, username, getattr(request, 'id', None), json.dumps(shown(request)), _json(trace_of(request)), branch


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def trace_of(request: Any) -> dict[str, str] | None:
    """Return the request's W3C Trace Context, None without a valid one. A background job's request has no headers."""
    return trace.context_of(getattr(request, 'META', None) or {})


def shown(request: Any) -> dict[str, Any] | None:
    """Return the request as NetBox shows it to its own webhooks; None if it is not a whole request.

    Text that PostgreSQL cannot store is replaced: a client's malformed URL must not fail the save.
    """
    try:
        context = get_safe_request_context(request)
    except AttributeError:
        return None
    return storable_json({**context, 'GET': dict(context['GET'].items())})  # pyright: ignore[reportGeneralTypeIssues]
