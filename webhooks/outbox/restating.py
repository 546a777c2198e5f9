"""Records objects as they are now, for a webhook's backfill.

All statements are one text and so one transaction: a killed worker holds no lock. Locked rows are skipped, not waited
for. Sequences are drawn under the row's lock, so the higher one has the newer state.
"""

from collections.abc import Collection, Iterable, Sequence

from django.db import connection, models

from ..choices import KindChoices
from ..models import Backfill
from . import recording, snapshots

# They pass values between the statements.
HELD, LOCKED = 'webhooks.held', 'webhooks.locked'

# With the backfill's row locked, only one worker records.
HOLD = f"""
    SELECT set_config('lock_timeout', '1s', true), set_config('{HELD}', coalesce((
        SELECT h.webhook_id::text FROM (
            SELECT webhook_id FROM webhooks_backfill
            WHERE webhook_id = {{webhook_id}} AND xmin::text = '{{version}}' FOR UPDATE SKIP LOCKED
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
    backfill: Backfill, model: type[models.Model], pks: Collection[int], last_id: int, skipped: Iterable[Sequence[int]]
) -> int:
    """Record unlocked objects, and move the cursor of the backfill to `last_id`, if nobody changed it since.

    `skipped`: objects that were skipped before. Returns the number recorded.
    """
    quote = connection.ops.quote_name
    pairs = ','.join(f'{{{object_type_id:d},{pk:d}}}' for object_type_id, pk in skipped)
    names = {
        'pk': quote(model._meta.pk.column),
        'table': quote(model._meta.db_table),
        'pks': f"'{{{','.join(str(int(pk)) for pk in pks)}}}'::bigint[]",
        'webhook_id': int(backfill.pk),
        'version': int(backfill.version),
        'last_id': int(last_id),
        'skipped': f"'{{{pairs}}}'::bigint[]",
        'object_type': snapshots.object_type_id(model),
        'snapshot': snapshots.expression(model),
        'values': _values(model, backfill.webhook.needs_before),
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
