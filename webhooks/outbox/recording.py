"""The outbox: an event is a row written in the transaction that made the change, so both are committed or neither.

One event per object and transaction: a later change replaces the snapshot and draws a new sequence, and MERGE says what
becomes of the kind. Whoever draws a sequence holds the object's row lock until the commit; that is why the sequences of
one object grow in the order of its commits.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, models, transaction
from netbox.context import current_request
from utilities.request import get_safe_request_context

from ..choices import KindChoices
from ..models import Event, Subscription
from ..models.sequence import SEQUENCE
from . import snapshots, wakeup
from .snapshots import object_type_id

logger = logging.getLogger('webhooks.outbox')

CREATED, UPDATED, DELETED = KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED
NOTHING = ''

# (kind so far, next kind) -> kind of the transaction. Anything else keeps the kind so far.
MERGE = {
    (CREATED, DELETED): NOTHING,
    (UPDATED, DELETED): DELETED,
    (DELETED, CREATED): UPDATED,
    (NOTHING, CREATED): CREATED,
}

COLUMNS = """uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username, request_id, request,
    data, error, skipped, transaction_id, transaction_time, prechange, snapshot"""
# Of everything but the snapshot, which is the last column.
VALUES = f"""gen_random_uuid(), nextval('{SEQUENCE}'), %s, %s, {{pk}}, '', %s, %s, %s, %s::jsonb,
    '', '', 0, pg_current_xact_id()::text::bigint, now(), {{before}}"""
ON_CONFLICT = f"""
    ON CONFLICT (transaction_id, transaction_time, object_type_id, object_id) WHERE dispatched_at IS NULL
    DO UPDATE SET
        sequence = EXCLUDED.sequence,
        timestamp = EXCLUDED.timestamp,
        username = EXCLUDED.username,
        request_id = EXCLUDED.request_id,
        request = EXCLUDED.request,
        -- NetBox saves objects that it already announced as deleted: they stay as they were then.
        snapshot = CASE WHEN e.kind = '{DELETED}' AND EXCLUDED.kind = '{UPDATED}' THEN e.snapshot
                        ELSE EXCLUDED.snapshot END,
        kind = CASE {
    ' '.join(
        f"WHEN e.kind = '{before}' AND EXCLUDED.kind = '{then}' THEN '{result}'"
        for (before, then), result in MERGE.items()
    )
} ELSE e.kind END"""
INSERT = f'INSERT INTO webhooks_event AS e ({COLUMNS})'


@dataclass
class Scope:
    """What is known about the open transaction. Registered as its commit hook, it wakes a worker."""

    # {id of a subscribed object type: whether the state before a change is asked for}
    subscribed: dict[int, bool]
    recorded: bool = False

    def __call__(self) -> None:
        if self.recorded:
            wakeup.wake()


_tables_exist = False
# Seconds between two lines in the log that say that they are gone.
GONE_INTERVAL = 60
_said_at = -math.inf


def wants(model: type[models.Model], using: str) -> bool:
    """A database other than the default one is a branch: its changes are sent when it is merged.

    So whatever is asked on the way of a save is asked of the default database by name, `connection` or
    using(DEFAULT_DB_ALIAS). A query without a name goes where the routers send it, which in a branch is elsewhere.
    """
    return using == DEFAULT_DB_ALIAS and is_migrated() and is_subscribed(model)


def is_migrated() -> bool:
    """Whether our tables exist. Until then saves go on without us, and the check webhooks.W002 warns."""
    global _tables_exist  # noqa: PLW0603  (once they exist they stay, or else are found gone)
    if not _tables_exist:
        _tables_exist = Event._meta.db_table in connection.introspection.table_names()
    return _tables_exist


def is_subscribed(model: type[models.Model]) -> bool:
    """Whether any webhook wants changes of the model. Costs one small query a transaction."""
    return object_type_id(model) in _scope().subscribed


def needs_before(model: type[models.Model]) -> bool:
    """Whether any webhook asks what an object of the model was before a change."""
    return _scope().subscribed.get(object_type_id(model), False)


def with_before(model: type[models.Model], pks: Sequence[Any]) -> dict[Any, str | None]:
    """Return {pk: what it is before the change, where a webhook asks for it}."""
    before = snapshots.take(model, pks) if pks and needs_before(model) else {}
    return {pk: before.get(pk) for pk in pks}


def record(model: type[models.Model], kind: str, rows: Mapping[Any, str | None]) -> None:
    """Record what became of rows, given as {pk: snapshot of what it was before, if asked for}.

    The caller holds the rows' locks, as whoever has written them in this transaction does. A deletion is recorded while
    the rows are still there.
    """
    statement = f"""{INSERT} SELECT {VALUES.format(pk='t.' + model._meta.pk.column, before='b.before')},
        {snapshots.expression(model)} {snapshots.source(model)} {ON_CONFLICT}"""
    _execute(statement, [kind, object_type_id(model), *_circumstances(), list(rows), list(rows.values())])


def record_touched(model: type[models.Model], kind: str, rows: Mapping[Any, str | None]) -> None:
    """Record changes of rows that this transaction may not have written. No row, no event."""
    if not rows:
        return
    with transaction.atomic():
        if existing := snapshots.lock(model, rows.keys()):
            record(model, kind, {pk: rows[pk] for pk in existing})


def record_deleted(model: type[models.Model], pk: Any, snapshot: str) -> None:
    """Record a deletion that has happened, by the snapshot taken before it."""
    statement = f'{INSERT} SELECT {VALUES.format(pk="%s", before="%s::jsonb")}, %s::jsonb {ON_CONFLICT}'
    parameters = [DELETED, object_type_id(model), pk, *_circumstances(), snapshot, snapshot]
    _execute(statement, parameters)


def forget() -> None:
    """Look up the subscriptions again, although the transaction goes on: it has changed them itself."""
    connection.webhooks_scope = None


def _execute(statement: str, parameters: list[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
    _scope().recorded = True


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
    """Return what NetBox lets webhooks see of a request, None where it is one of a job that has no path."""
    try:
        context = get_safe_request_context(request)
    except AttributeError:
        return None
    # NetBox answers None to no request only.
    return {**context, 'GET': dict(context['GET'].items())}  # pyright: ignore[reportGeneralTypeIssues]


#
# The scope of a transaction
#


def _scope() -> Scope:
    """Return the scope of the open transaction, a new one where there is none yet.

    It is valid while Django still holds it among the commit hooks: a commit takes them all away, and the rollback of a
    savepoint those that were registered inside it, together with the events recorded there.
    """
    position, scope = getattr(connection, 'webhooks_scope', None) or (0, None)
    hooks = connection.run_on_commit
    if scope is not None and position < len(hooks) and hooks[position][1] is scope:
        return scope
    scope = Scope(_subscribed())
    if connection.in_atomic_block:
        transaction.on_commit(scope, robust=True)
        connection.webhooks_scope = (len(connection.run_on_commit) - 1, scope)
    return scope


def _subscribed() -> dict[int, bool]:
    """Return the open subscriptions, none where the tables were removed under this process: nobody can have any.

    They cannot vanish between this look and the event, as the look holds their lock. A removal that began before it,
    and already waits for it, is a deadlock to PostgreSQL: it ends one of the two, and nothing is lost. Without a
    transaction there is no such lock, and the save fails.
    """
    found = Subscription.objects.open_object_types()
    if found is None:
        look_again()
        _say_gone()
    return found or {}


def look_again() -> None:
    """Forget that the tables exist: whoever asks next looks for them."""
    global _tables_exist  # noqa: PLW0603
    _tables_exist = False


def _say_gone() -> None:
    global _said_at  # noqa: PLW0603
    if time.monotonic() - _said_at > GONE_INTERVAL:
        _said_at = time.monotonic()
        logger.warning('tables=gone changes are not recorded: restart NetBox with WEBHOOKS_ENABLED = False')
