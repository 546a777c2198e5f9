"""Restating: objects are recorded as they are now, for one webhook, without any change.

What is sent to PostgreSQL is one text of several statements, and so one transaction of its own, which PostgreSQL
commits by itself: whoever is killed or frozen meanwhile holds no object's row for a moment longer. It waits for no row.
What is locked, it leaves out; so neither does anybody become the victim of a deadlock.

As whoever changes an object, it holds the row's lock when it draws a sequence, and looks at the row in a statement
after the one that locks. So of two events of an object, the one with the higher sequence shows what was committed last.
"""

from collections.abc import Collection

from django.db import connection, models

from ..choices import KindChoices
from . import recording, snapshots

# What a statement of the text leaves for those after it, until the transaction ends.
HELD, LOCKED = 'webhooks.held', 'webhooks.locked'

# The row that says what is to be recorded, so that nobody else does it too.
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

# What was locked is there; what is neither locked nor there any more was deleted.
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
    """Record those of the objects that nobody has locked, and move the cursor of the webhook's backfill.

    Its row has to meet the `condition`, in SQL. `last_id` is the new end of what was looked at, and `skipped`, in SQL,
    what was skipped before and is not among the objects. `with_before`: the events say, too, what the objects were
    before: the same. Returns how many were recorded.
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
        # Without parameters: PostgreSQL takes several statements only where it prepares none.
        cursor.execute(text)
        for _ in range(3):
            cursor.nextset()  # those before the last
        found = cursor.fetchall()
    return found[0][0] if found else 0


def _values(model: type[models.Model], with_before: bool) -> str:
    """Return what an event is made of but for its snapshot; by nobody, in no request."""
    values = recording.VALUES.format(pk='s.pk', before='s.snapshot' if with_before else 'NULL::jsonb')
    kind, object_type = f"'{KindChoices.UPDATED}'", str(snapshots.object_type_id(model))
    return values % (kind, object_type, 'clock_timestamp()', 'NULL', 'NULL', 'NULL')
