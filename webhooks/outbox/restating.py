"""Records the present state of objects as events: for backfills, walks of lists, and *Send now*.

Sequences are drawn under the locks of the rows. So the event with the higher sequence has the newer state.
"""

from collections.abc import Collection
from datetime import datetime

from django.db import connection, models

from ..choices import KindChoices
from ..models import Webhook
from . import recording, snapshots

# Lock the objects of a slice. If one is locked, fail at once: the backfill tries again later.
LOCK_OBJECTS = 'SELECT FROM {table} t WHERE t.{pk} = ANY(%s) FOR NO KEY UPDATE NOWAIT'

# Record one event of the backfill for each object that exists. If this transaction has changed the object, its event
# stays as it is: it shows the same.
RESTATE = f"""
    INSERT INTO webhooks_event (backfill_for, urgent, {recording.COLUMNS})
    SELECT %s, %s, {{values}}, s.snapshot
    FROM (SELECT t.{{pk}} AS pk, {{snapshot}} AS snapshot FROM {{table}} t WHERE t.{{pk}} = ANY(%s)) s
    ON CONFLICT (transaction_id, transaction_time, object_type_id, object_id) WHERE dispatched_at IS NULL
    DO NOTHING"""


def restate(
    webhook: Webhook,
    model: type[models.Model],
    pks: Collection[int],
    now: datetime,
    *,
    username: str | None = None,
    urgent: bool = False,
) -> int:
    """Lock the objects, insert an event for each with its present state, and return how many were inserted.

    `now` is the time of the events, `username` who sends the objects, None in a backfill. Call it in a transaction.
    Raises OperationalError if an object is locked.
    """
    names = {
        'pk': connection.ops.quote_name(model._meta.pk.column),
        'table': connection.ops.quote_name(model._meta.db_table),
        'snapshot': snapshots.expression(model),
        'values': recording.VALUES.format(pk='s.pk', before='s.snapshot' if webhook.needs_before else 'NULL::jsonb'),
    }
    # No request changed the objects. So the events have no request, trace context, branch or message.
    values = [KindChoices.UPDATED, snapshots.object_type_id(model), now, username, *[None] * 5]
    with connection.cursor() as cursor:
        cursor.execute(LOCK_OBJECTS.format(**names), [list(pks)])
        cursor.execute(RESTATE.format(**names), [webhook.pk, urgent, *values, list(pks)])
        return cursor.rowcount
