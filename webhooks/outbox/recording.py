"""The outbox: an event is a row written in the transaction that made the change, so both are committed or neither.

One event per object and transaction: a later change replaces the snapshot and draws a new sequence, and MERGE says what
becomes of the kind. Whoever draws a sequence holds the object's row lock until the commit; that is why the sequences of
one object grow in the order of its commits.
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
from ..storable import storable_json
from . import before, scope, snapshots
from .snapshots import object_type_id

CREATED, UPDATED, DELETED = KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED
NOTHING = ''

# (kind so far, next kind) -> kind of the transaction. Anything else keeps the kind so far.
MERGE = {
    (CREATED, DELETED): NOTHING,
    (UPDATED, DELETED): DELETED,
    (DELETED, CREATED): UPDATED,
    (NOTHING, CREATED): CREATED,
    # Something has changed it before it was announced.
    (UPDATED, CREATED): CREATED,
}

COLUMNS = """uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username, request_id, request,
    data, error, skipped, transaction_id, transaction_time, visible, prechange, snapshot"""
# Of everything but the snapshot, which is the last column.
VALUES = f"""gen_random_uuid(), nextval('{SEQUENCE}'), %s, %s, {{pk}}, '', %s, %s, %s, %s::jsonb,
    '', '', 0, pg_current_xact_id()::text::bigint, now(), pg_current_snapshot()::text, {{before}}"""
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
        -- NetBox saves objects that it already announced as deleted: they stay as they were then.
        snapshot = CASE WHEN e.kind = '{DELETED}' AND EXCLUDED.kind = '{UPDATED}' THEN e.snapshot
                        ELSE EXCLUDED.snapshot END,
        prechange = CASE WHEN e.kind = '{UPDATED}' AND EXCLUDED.kind = '{CREATED}' THEN NULL ELSE e.prechange END,
        kind = CASE {
    ' '.join(
        f"WHEN e.kind = '{before}' AND EXCLUDED.kind = '{then}' THEN '{result}'"
        for (before, then), result in MERGE.items()
    )
} ELSE e.kind END"""
INSERT = f'INSERT INTO webhooks_event AS e ({COLUMNS})'


def with_before(model: type[models.Model], pks: Sequence[Any]) -> dict[Any, str | None]:
    """Return {pk: what it is before the change, where a webhook asks for it}."""
    if not pks or not scope.needs_before(model):
        return dict.fromkeys(pks)
    states = {pk: before.find(model, pk) for pk in pks}
    unknown = [pk for pk, state in states.items() if state is None]
    return states | (snapshots.take(model, unknown) if unknown else {})


def record(model: type[models.Model], kind: str, rows: Mapping[Any, str | None]) -> None:
    """Record what became of rows, given as {pk: snapshot of what it was before, if asked for}.

    The caller holds the rows' locks, as whoever has written them in this transaction does. A deletion is recorded while
    the rows are still there. Raises DatabaseError where the event cannot be written, which fails the save.
    """
    if len(rows) == 1:
        # As nearly always: PostgreSQL takes a sixth less time for it.
        ((pk, state),) = rows.items()
        before, source, parameters = '%s::jsonb', snapshots.row(model), [state, pk]
    else:
        before, source, parameters = 'b.before', snapshots.rows(model), [list(rows), list(rows.values())]
    statement = f"""{INSERT} SELECT {VALUES.format(pk='t.' + model._meta.pk.column, before=before)},
        {snapshots.expression(model)} {source} {ON_CONFLICT}"""
    _execute(statement, [kind, object_type_id(model), *_circumstances(), *parameters])


def record_touched(model: type[models.Model], kind: str, rows: Mapping[Any, str | None]) -> None:
    """Record changes of rows that this transaction may not have written. No row, no event."""
    if not rows:
        return
    with transaction.atomic():
        if existing := snapshots.lock(model, rows.keys()):
            record(model, kind, {pk: rows[pk] for pk in existing})


def record_deleted(model: type[models.Model], snapshots: Mapping[Any, str]) -> None:
    """Record deletions by the snapshots taken before them, given by primary key."""
    before = f"b.snapshot - '{rendering.SHOWN}'"
    statement = f"""{INSERT} SELECT {VALUES.format(pk='b.pk', before=before)}, b.snapshot
        FROM unnest(%s::bigint[], %s::jsonb[]) AS b(pk, snapshot) {ON_CONFLICT}"""
    taken = [list(snapshots), list(snapshots.values())]
    _execute(statement, [DELETED, object_type_id(model), *_circumstances(), *taken])


def _execute(statement: str, parameters: list[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
    scope.current().recorded = True


def _circumstances() -> tuple[datetime, str | None, Any, str | None]:
    """Return the time, and who did it in which request, where there is one."""
    now = datetime.fromtimestamp(time.time(), UTC)
    request = current_request.get()
    if request is None:
        return now, None, None, None
    user = getattr(request, 'user', None)
    username = user.username if user and user.is_authenticated else None
    return now, username, getattr(request, 'id', None), json.dumps(shown(request))


def shown(request: Any) -> dict[str, Any] | None:
    """Return what NetBox lets webhooks see of a request, None where it is one of a job that has no path.

    Whatever somebody has put into the URL, the save goes on.
    """
    try:
        context = get_safe_request_context(request)
    except AttributeError:
        return None
    # NetBox answers None to no request only.
    return storable_json({**context, 'GET': dict(context['GET'].items())})  # pyright: ignore[reportGeneralTypeIssues]
