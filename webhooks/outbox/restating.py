"""Records the present state of objects, for a webhook's backfill.

Sequences are drawn under the rows' locks, so the higher one has the newer state.
"""

from collections.abc import Collection
from datetime import datetime

from django.db import connection, models

from ..choices import KindChoices
from ..models import Webhook
from . import recording, snapshots

LOCK_OBJECTS = 'SELECT FROM {table} t WHERE t.{pk} = ANY(%s) FOR NO KEY UPDATE NOWAIT'

RESTATE = f"""
    INSERT INTO webhooks_event (backfill_for, {recording.COLUMNS})
    SELECT %s, {{values}}, s.snapshot
    FROM (SELECT t.{{pk}} AS pk, {{snapshot}} AS snapshot FROM {{table}} t WHERE t.{{pk}} = ANY(%s)) s"""


def restate(webhook: Webhook, model: type[models.Model], pks: Collection[int], now: datetime) -> int:
    """Returns how many objects there are. Raises OperationalError if somebody holds one."""
    names = {
        'pk': connection.ops.quote_name(model._meta.pk.column),
        'table': connection.ops.quote_name(model._meta.db_table),
        'snapshot': snapshots.expression(model),
        'values': recording.VALUES.format(pk='s.pk', before='s.snapshot' if webhook.needs_before else 'NULL::jsonb'),
    }
    # Nobody's request, without a message.
    told = [KindChoices.UPDATED, snapshots.object_type_id(model), now, None, None, None, None, None]
    with connection.cursor() as cursor:
        cursor.execute(LOCK_OBJECTS.format(**names), [list(pks)])
        cursor.execute(RESTATE.format(**names), [webhook.pk, *told, list(pks)])
        return cursor.rowcount
