"""Records the present state of objects as events, for a webhook's backfill.

Sequences are drawn under the locks of the rows. So the event with the higher sequence has the newer state.
"""

from collections.abc import Collection
from datetime import datetime

from django.db import connection, models

from ..choices import KindChoices
from ..models import Webhook
from . import recording, snapshots

# Lock the objects of a slice. If somebody holds one, fail at once: the backfill tries again later.
LOCK_OBJECTS = 'SELECT FROM {table} t WHERE t.{pk} = ANY(%s) FOR NO KEY UPDATE NOWAIT'

# Record one event of the backfill for each object that exists.
RESTATE = f"""
    INSERT INTO webhooks_event (backfill_for, {recording.COLUMNS})
    SELECT %s, {{values}}, s.snapshot
    FROM (SELECT t.{{pk}} AS pk, {{snapshot}} AS snapshot FROM {{table}} t WHERE t.{{pk}} = ANY(%s)) s"""


def restate(webhook: Webhook, model: type[models.Model], pks: Collection[int], now: datetime) -> int:
    """Lock the objects, insert an event for each with its present state, and return how many there are.

    `now` is the time of the events. Call it in a transaction. Raises OperationalError if somebody holds an object.
    """
    names = {
        'pk': connection.ops.quote_name(model._meta.pk.column),
        'table': connection.ops.quote_name(model._meta.db_table),
        'snapshot': snapshots.expression(model),
        'values': recording.VALUES.format(pk='s.pk', before='s.snapshot' if webhook.needs_before else 'NULL::jsonb'),
    }
    # A backfill belongs to no request. So its events have no user, request, trace context, branch or message.
    told = [KindChoices.UPDATED, snapshots.object_type_id(model), now, *[None] * 6]
    with connection.cursor() as cursor:
        cursor.execute(LOCK_OBJECTS.format(**names), [list(pks)])
        cursor.execute(RESTATE.format(**names), [webhook.pk, *told, list(pks)])
        return cursor.rowcount
