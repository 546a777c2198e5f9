"""Records the present state of objects, for a webhook's backfill.

All statements are one text and so one transaction: a killed worker holds no lock. Sequences are drawn under the rows'
locks, so the higher one has the newer state.
"""

from collections.abc import Collection

from django.db import connection, models

from ..choices import KindChoices
from ..models import Backfill
from . import recording, snapshots

# Set while the backfill is held, and where it was when it was read.
HELD = 'webhooks.held'
IS_HELD = f"current_setting('{HELD}') <> ''"

HOLD = f"""
    SELECT set_config('lock_timeout', '1s', true), set_config('{HELD}', coalesce((
        SELECT h.webhook_id::text FROM (
            SELECT webhook_id FROM webhooks_backfill
            WHERE webhook_id = {{webhook_id}} AND state = 'running' AND started_at = '{{started_at}}'
              AND position = {{position}} AND last_id = {{former_id}}
            FOR UPDATE SKIP LOCKED
        ) h
    ), ''), true)"""

LOCK = f'SELECT FROM {{table}} t WHERE t.{{pk}} = ANY({{pks}}) AND {IS_HELD} FOR NO KEY UPDATE NOWAIT'

RECORD = f"""
    INSERT INTO webhooks_event (backfill_for, {recording.COLUMNS})
    SELECT {{webhook_id}}, {{values}}, s.snapshot
    FROM (
        SELECT t.{{pk}} AS pk, {{snapshot}} AS snapshot FROM {{table}} t WHERE t.{{pk}} = ANY({{pks}}) AND {IS_HELD}
    ) s"""

ADVANCE = f"""
    UPDATE webhooks_backfill
    SET last_id = {{last_id}}, recorded = recorded + (SELECT count(*) FROM {{table}} t WHERE t.{{pk}} = ANY({{pks}}))
    WHERE webhook_id::text = current_setting('{HELD}')"""


def restate(backfill: Backfill, model: type[models.Model], pks: Collection[int], last_id: int) -> bool:
    """Returns False if somebody moved the cursor. Raises OperationalError where somebody holds an object."""
    quote = connection.ops.quote_name
    names = {
        'pk': quote(model._meta.pk.column),
        'table': quote(model._meta.db_table),
        'pks': f"'{{{','.join(str(int(pk)) for pk in pks)}}}'::bigint[]",
        'webhook_id': int(backfill.pk),
        'started_at': backfill.started_at.isoformat(),
        'position': int(backfill.position),
        'former_id': int(backfill.last_id),
        'last_id': int(last_id),
        'snapshot': snapshots.expression(model),
        'values': _values(model, backfill.webhook.needs_before),
    }
    text = '; '.join(statement.format(**names) for statement in (HOLD, LOCK, RECORD, ADVANCE))
    with connection.cursor() as cursor:
        # PostgreSQL takes several statements only without parameters.
        cursor.execute(text)
        for _ in range(3):
            cursor.nextset()  # HOLD, LOCK and RECORD
        return cursor.rowcount > 0


def _values(model: type[models.Model], with_before: bool) -> str:
    values = recording.VALUES.format(pk='s.pk', before='s.snapshot' if with_before else 'NULL::jsonb')
    kind, object_type = f"'{KindChoices.UPDATED}'", str(snapshots.object_type_id(model))
    return values % (kind, object_type, 'clock_timestamp()', 'NULL', 'NULL', 'NULL', 'NULL')
