"""From the workers of 1.0.0 to those of this version, which takes long with a big log.

Meanwhile NetBox goes on in both versions. Workers of 1.0.0 go on until the column of their claims is dropped: from then
on they send nothing, and each of their jobs fails. What they had in hand goes out again when their requests must have
ended. Workers of this version wait until `lease_until` is dropped (engine/registry.py).

Web processes of 1.0.0 go on until they are restarted, which may be much later. If a user saves something that an event
rule sends, they insert the delivery themselves. So the columns and tables which that needs stay, unknown to the models,
until a migration of the release after 2.0.0 drops them: Retire, DropModel(leave=…) and ACCEPT_OLD name them.
"""

from typing import Any

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations, models
from django.db.models import DO_NOTHING, Q

from webhooks.migrations._gently import BuildIndex, DropModel, Gently, Once, Retire, columns_of, in_parts
from webhooks.models import sequence, stored_urls

# Take deliveries that processes of 1.0.0 insert for event rules: these name `event_count`, and those of this version do
# not. 1.0.0 would then let them wait for earlier ones, by statements that only find deliveries with an `event_count` of
# 1. Its workers must not make deliveries: workers of this version do, in order. The events of event rules have no
# transaction.
ACCEPT_OLD = """
    CREATE OR REPLACE FUNCTION webhooks_accept_old() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (SELECT transaction_id FROM webhooks_event WHERE id = NEW.event_id) <> 0 THEN
            RAISE EXCEPTION 'the tables are those of webhooks 2.0.0: restart this process of 1.0.0';
        END IF;
        NEW.event_count := 0;
        RETURN NEW;
    END $$;
    CREATE OR REPLACE TRIGGER webhooks_accept_old BEFORE INSERT ON webhooks_delivery
        FOR EACH ROW WHEN (NEW.event_count > 0) EXECUTE FUNCTION webhooks_accept_old()"""
ACCEPT_NO_OLD = """
    DROP TRIGGER webhooks_accept_old ON webhooks_delivery;
    DROP FUNCTION webhooks_accept_old()"""

# What 1.0.0's statements name. With its rows a redelivery by 1.0.0 would let deliveries wait that no worker of this
# version lets go on: there are none.
OLD_WAIT = 'delivery_id bigint, blocker_id bigint, CHECK (false)'
OLD_BATCHITEM = """delivery_id bigint, event_id bigint, webhook_id bigint, object_type_id integer, object_id bigint,
    sequence bigint, open boolean, CHECK (false)"""

# See models/delivery.py.
UNFORMED = 32767

# What 1.0.0 lets wait for an earlier delivery of its object. The lane's owner looks at it anew, the oldest first.
LET_WAIT = """status = 'pending' AND (due_at IS NULL OR error = '' AND due_at > now())
    AND (lease_until IS NULL OR lease_until <= now())"""
# Change the next rows of a table that meet a condition, and return the last of their ids.
CHANGE = """
    WITH part AS (
        SELECT id FROM {table} WHERE {condition} AND id > %s ORDER BY id LIMIT 1000
    ), changed AS (
        UPDATE {table} t SET {change} FROM part WHERE t.id = part.id
    )
    SELECT max(id) FROM part"""
# Tables, changes and conditions, in this order.
CHANGES = (
    # Turn webhooks that send batches into webhooks that send change sets.
    ('webhooks_webhook', 'change_set = true, batch = false', 'batch'),
    ('webhooks_delivery', 'due_at = created', LET_WAIT),
    # What 1.0.0 has tried waits for its next attempt. In 1.0.0 that has no state of its own.
    ('webhooks_delivery', "status = 'retrying'", "status = 'pending' AND attempt_count > 0"),
    # What a worker of 1.0.0 had in hand: its request may go on until then, and must not arrive after a later one.
    ('webhooks_delivery', "status = 'doubtful', due_at = coalesce(lease_until, now())", "status = 'sending'"),
)

# A batch of 1.0.0 is one delivery of many events. It stays for the last one, and each other one gets a delivery. They
# become a change set. If its request may have been sent, it has one part, so that a retry names the same changes under
# the same id (`kept`). If not, its parts are still to be made, with the rest of the transaction. Else changes that were
# never sent could join a retry, and a receiver that knows the id would ignore them. Its attempts get all as members; 0
# stands for pruned ones.
SPLIT = f"""
    WITH part AS (
        SELECT d.id, d.event_count, CASE WHEN d.status <> 'pending' THEN d.id END AS kept
        FROM webhooks_delivery d JOIN (
            SELECT DISTINCT delivery_id FROM (
                SELECT delivery_id FROM webhooks_batchitem WHERE delivery_id > %s ORDER BY delivery_id LIMIT 1000
            ) first
        ) items ON items.delivery_id = d.id
    ), divided AS (
        SELECT id, kept, CASE WHEN kept IS NULL THEN {UNFORMED} ELSE 1 END AS part,
            CASE WHEN kept IS NOT NULL THEN 1 END AS parts,
            CASE WHEN kept IS NOT NULL THEN event_count END AS change_count
        FROM part WHERE event_count > 1
    ), others AS (
        INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, change_set, part,
            parts, change_count, lead, status, error, response_status, created, expires_at, finished_at, attempt_count,
            attempt_limit, listed)
        SELECT gen_random_uuid(), d.webhook_id, i.event_id, i.object_type_id, i.object_id, i.sequence, e.transaction_id,
            v.part, v.parts, v.change_count, v.kept,
            CASE WHEN d.status IN ('pending', 'retrying', 'doubtful') THEN 'held' ELSE d.status END,
            d.error, d.response_status, d.created, d.expires_at, d.finished_at, d.attempt_count, d.attempt_limit,
            d.listed
        FROM divided v JOIN webhooks_delivery d USING (id) JOIN webhooks_batchitem i ON i.delivery_id = d.id
        JOIN webhooks_event e ON e.id = i.event_id
        WHERE i.event_id <> d.event_id
        ORDER BY d.id, i.sequence
        RETURNING id, lead
    ), tried AS (
        UPDATE webhooks_attempt a SET members = m.members
        FROM (
            SELECT v.kept,
                v.kept || array_remove(array_agg(o.id), NULL) || CASE WHEN count(o.id) < change_count - 1 THEN '{{0}}' ELSE '{{}}'::bigint[] END
                    AS members
            FROM divided v LEFT JOIN others o ON o.lead = v.kept WHERE v.kept IS NOT NULL GROUP BY v.kept, change_count
        ) m
        WHERE a.delivery_id = m.kept
    ), last AS (
        UPDATE webhooks_delivery d SET change_set = e.transaction_id, part = v.part, parts = v.parts,
            change_count = v.change_count, lead = v.kept, event_count = 1
        FROM divided v, webhooks_event e WHERE d.id = v.id AND e.id = d.event_id
    )
    SELECT max(id) FROM part"""


QUEUED = ['held', 'pending', 'resting', 'retrying', 'doubtful']
RARE = ['undecided', 'suspect', 'sending', 'failed', 'superseded']


def _index(name: str, *fields: str, **condition: Any) -> models.Index:
    return models.Index(fields=fields, condition=Q(**condition) if condition else None, name=f'webhooks_{name}')


INDEXES = [
    ('subscription', _index('subscription_any_save', 'object_type', until=None, unchanged=True)),
    ('subscription', _index('subscription_deletion', 'object_type', until=None, kind='deleted')),
    ('event', _index('event_suspect', 'sequence', dispatched_at=None, lapses__gt=0)),
    ('event', _index('event_chain', 'object_type', 'object_id', 'sequence', dispatched_at=None)),
    ('event', _index('event_backfill', 'backfill_for', dispatched_at=None, backfill_for__isnull=False)),
    ('delivery', _index('delivery_next', 'webhook', 'backfill', 'due_at', 'id', state__in=QUEUED)),
    ('delivery', _index('delivery_order', 'object_type', 'object_id', 'webhook', 'state', 'sequence')),
    ('delivery', _index('delivery_overdue', 'webhook', 'expires_at', state__in=['undecided', *QUEUED, 'suspect'])),
    ('delivery', _index('delivery_rare', 'state', '-id', state__in=RARE)),
    ('delivery', _index('delivery_lead', 'lead', lead__isnull=False)),
    (
        'delivery',
        _index(
            'delivery_change_set',
            'webhook',
            'change_set',
            'part',
            'id',
            state__in=[*QUEUED, 'suspect'],
            change_set__isnull=False,
        ),
    ),
    ('delivery', _index('delivery_undecided', 'webhook', 'id', state='undecided')),
    ('delivery', _index('delivery_failed', 'webhook', '-id', state='failed')),
    ('delivery', _index('delivery_published', 'webhook', 'position', position__isnull=False)),
    (
        'attempt',
        GinIndex(fields=['members'], condition=Q(members__isnull=False), name='webhooks_attempt_members'),
    ),
]


def hand_over(apps, schema_editor) -> None:
    if 'lease_until' in columns_of('webhooks_delivery', schema_editor):
        for table, change, condition in CHANGES:
            in_parts(schema_editor, CHANGE.format(table=table, change=change, condition=condition))
        in_parts(schema_editor, SPLIT)


def advance(apps, schema_editor) -> None:
    sequence.advance()


def forget_orphans(apps, schema_editor) -> None:
    """
    Delete what is left of deleted webhooks.

    While the plugin is off, nobody else does, and the foreign keys that come back refuse such rows.
    """
    for table in ('webhooks_delivery', 'webhooks_health'):
        schema_editor.execute(
            f'DELETE FROM {table} o WHERE NOT EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = o.webhook_id)'
        )


def seal_urls(apps, schema_editor) -> None:
    stored_urls.seal(schema_editor.connection)


def unseal_urls(apps, schema_editor) -> None:
    stored_urls.unseal(schema_editor.connection)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0003_columns')]

    operations = [
        Once(
            # PostgreSQL's column is still named `status`, as processes of 1.0.0 know it. One of their indexes stays.
            migrations.SeparateDatabaseAndState(
                state_operations=[
                    migrations.RenameField('delivery', 'status', 'state'),
                    migrations.AlterField(
                        'delivery', 'state', models.CharField(db_column='status', default='pending', max_length=10)
                    ),
                    migrations.RemoveIndex('delivery', 'webhooks_delivery_unlisted'),
                    migrations.AddIndex(
                        'delivery',
                        models.Index(
                            fields=['id'], condition=Q(state='failed', listed=False), name='webhooks_delivery_unlisted'
                        ),
                    ),
                ]
            ),
            *(BuildIndex(model, index) for model, index in INDEXES),
            migrations.RunPython(advance, migrations.RunPython.noop),
            # The log outlives its webhook, and no edit of a webhook holds up those who write it.
            Gently(
                ['delivery', 'webhook'],
                migrations.AlterField(
                    'delivery',
                    'webhook',
                    models.ForeignKey(
                        'webhooks.webhook', DO_NOTHING, db_constraint=False, db_index=False, related_name='deliveries'
                    ),
                ),
            ),
            Gently(
                ['health', 'webhook'],
                migrations.AlterField(
                    'health',
                    'webhook',
                    models.OneToOneField(
                        'webhooks.webhook',
                        DO_NOTHING,
                        db_constraint=False,
                        primary_key=True,
                        related_name='health',
                        serialize=False,
                    ),
                ),
            ),
            migrations.RunPython(migrations.RunPython.noop, forget_orphans),
            # From here on no worker of 1.0.0 claims or records anything, or makes a delivery.
            Gently(
                ['delivery'],
                migrations.RemoveField('delivery', 'lease'),
                Retire('delivery', 'event_count', default='0'),
                migrations.RunSQL(ACCEPT_OLD, ACCEPT_NO_OLD),
            ),
            DropModel('Wait', leave=OLD_WAIT),
            *(
                RemoveIndexConcurrently('delivery', f'webhooks_delivery_{name}')
                for name in ('due', 'line', 'lease', 'expiry', 'object', 'created', 'status')
            ),
            migrations.RunPython(hand_over, migrations.RunPython.noop),
            # No worker of 1.0.0 needs to read a URL any more.
            migrations.RunPython(seal_urls, unseal_urls),
            DropModel('BatchItem', leave=OLD_BATCHITEM),
            # Web processes of 1.0.0 still read and write it.
            Gently(['webhook'], Retire('webhook', 'batch', default='false')),
            # From here on workers of this version work.
            Gently(['delivery'], migrations.RemoveField('delivery', 'lease_until')),
            Gently(
                ['health'],
                migrations.RemoveField('health', 'tokens'),
                migrations.RemoveField('health', 'tokens_at'),
            ),
        )
    ]
