"""Records objects as they are now, for a webhook's backfill.

All statements are one text and so one transaction: a killed worker holds no lock. Locked rows are skipped, not waited
for. Sequences are drawn under the row's lock, so the higher one has the newer state.
"""

from collections.abc import Collection

from django.db import connection, models

from ..choices import KindChoices
from . import recording, snapshots

# They pass values between the statements.
HELD, LOCKED = 'webhooks.held', 'webhooks.locked'

# With the backfill's row locked, only one worker records.
HOLD = f"""
    SELECT set_config('lock_timeout', '1s', true), set_config('{HELD}', coalesce((
        SELECT h.webhook_id::text FROM (
            SELECT webhook_id FROM webhooks_backfill WHERE {{condition}} FOR UPDATE SKIP LOCKED
        ) h
    ), ''), true)"""

LOCK = f"""
    SELECT set_config('{LOCKED}', coalesce((
        SELECT string_agg(l.pk::text, ',') FROM (
            SELECT t.{{pk}} AS pk FROM {{table}} t
            WHERE t.{{pk}} = ANY({{pks}}) AND current_setting('{HELD}') <> ''
            FOR NO KEY UPDATE SKIP LOCKED
        ) l
    ), ''), true)"""

LOCKED_IDS = f"string_to_array(current_setting('{LOCKED}'), ',')::bigint[]"

RECORD = f"""
    INSERT INTO webhooks_event (backfill_for, {recording.COLUMNS})
    SELECT {{webhook_id}}, {{values}}, s.snapshot
    FROM (SELECT t.{{pk}} AS pk, {{snapshot}} AS snapshot FROM {{table}} t WHERE t.{{pk}} = ANY({LOCKED_IDS})) s"""

# A row neither locked nor present was deleted.
ADVANCE = f"""
    UPDATE webhooks_backfill
    SET last_id = {{last_id}}, recorded = recorded + coalesce(cardinality({LOCKED_IDS}), 0),
        skipped = {{skipped}} || ARRAY(
            SELECT ARRAY[{{object_type}}, t.{{pk}}]::bigint[] FROM {{table}} t
            WHERE t.{{pk}} = ANY({{pks}}) AND NOT t.{{pk}} = ANY({LOCKED_IDS})
        )
    WHERE webhook_id::text = current_setting('{HELD}')
    RETURNING coalesce(cardinality({LOCKED_IDS}), 0)"""


def restate(
    model: type[models.Model],
    pks: Collection[int],
    webhook_id: int,
    condition: str,
    last_id: int,
    skipped: str,
    *,
    with_before: bool,
) -> int:
    """Record unlocked objects, and move the cursor of the webhook's backfill to `last_id`.

    `condition` and `skipped` are SQL: a condition for the backfill, and objects skipped before. `with_before` records
    the state as the earlier one too. Returns the number recorded.
    """
    quote = connection.ops.quote_name
    names = {
        'pk': quote(model._meta.pk.column),
        'table': quote(model._meta.db_table),
        'pks': f"'{{{','.join(str(int(pk)) for pk in pks)}}}'::bigint[]",
        'webhook_id': int(webhook_id),
        'last_id': int(last_id),
        'skipped': skipped,
        'object_type': snapshots.object_type_id(model),
        'condition': condition,
        'snapshot': snapshots.expression(model),
        'values': _values(model, with_before),
    }
    text = '; '.join(statement.format(**names) for statement in (HOLD, LOCK, RECORD, ADVANCE))
    with connection.cursor() as cursor:
        # PostgreSQL takes several statements only without parameters.
        cursor.execute(text)
        for _ in range(3):
            cursor.nextset()  # HOLD, LOCK and RECORD
        found = cursor.fetchall()
    return found[0][0] if found else 0


def _values(model: type[models.Model], with_before: bool) -> str:
    values = recording.VALUES.format(pk='s.pk', before='s.snapshot' if with_before else 'NULL::jsonb')
    kind, object_type = f"'{KindChoices.UPDATED}'", str(snapshots.object_type_id(model))
    return values % (kind, object_type, 'clock_timestamp()', 'NULL', 'NULL', 'NULL')
