"""From 1.0.0 to this version, while NetBox and the workers of 1.0.0 go on.

Each step is a short transaction, and is passed over if it is done (_gently.py). What is new is null or has a constant
default: no table is rewritten or read, and processes of 1.0.0 go on without it. Their workers go on until the column
of their claims is dropped: from then on they send nothing, and each of their jobs fails. What they had in hand goes out
again when their requests must have ended.
"""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations, models
from django.db.models import DO_NOTHING, Q

from webhooks.migrations._gently import BuildIndex, DropModel, Gently, columns_of, in_parts
from webhooks.models import sequence

# PostgreSQL keeps no figures of what is waiting. In a quiet moment they say that nothing is, and after an import it
# would read all that waits for each event that it looks up. Without figures it uses the indexes as they are meant.
KEEP_FIGURES = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1'
KEEP_NO_FIGURES = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0'
OF_EVENTS = {'table': 'webhooks_event', 'column': 'dispatched_at'}
OF_DELIVERIES = {'table': 'webhooks_delivery', 'column': 'status'}

# What a worker of 1.0.0 had in hand: its request may go on until then, and must not arrive after a later one.
GIVE_BACK = """
    WITH part AS (
        SELECT id FROM webhooks_delivery WHERE status = 'sending' AND id > %s ORDER BY id LIMIT 1000
    ), given_back AS (
        UPDATE webhooks_delivery d SET status = 'pending', due_at = coalesce(lease_until, now())
        FROM part WHERE d.id = part.id
    )
    SELECT max(id) FROM part"""

# A batch of 1.0.0 is one delivery of many events. It stays for the last one, and each other one gets a delivery.
SPLIT = """
    WITH part AS (
        SELECT DISTINCT delivery_id AS id FROM (
            SELECT delivery_id FROM webhooks_batchitem WHERE delivery_id > %s ORDER BY delivery_id LIMIT 1000
        ) items
    ), others AS (
        INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, batch, status,
            error, response_status, created, due_at, expires_at, finished_at, attempt_count, attempt_limit, listed)
        SELECT gen_random_uuid(), d.webhook_id, i.event_id, i.object_type_id, i.object_id, i.sequence, d.id, d.status,
            d.error, d.response_status, d.created, d.due_at, d.expires_at, d.finished_at, d.attempt_count,
            d.attempt_limit, d.listed
        FROM part JOIN webhooks_delivery d USING (id) JOIN webhooks_batchitem i ON i.delivery_id = d.id
        WHERE d.event_count > 1 AND i.event_id <> d.event_id
        ORDER BY d.id, i.sequence
    ), last AS (
        UPDATE webhooks_delivery d SET batch = d.id, event_count = 1 FROM part WHERE d.id = part.id AND event_count > 1
    )
    SELECT max(id) FROM part"""

# What 1.0.0 has let wait for an earlier delivery of its object, for `order_wait` or for as long as that takes. The
# owner of its lane looks at it anew, the oldest first.
LOOK_ANEW = """
    WITH part AS (
        SELECT id FROM webhooks_delivery
        WHERE status = 'pending' AND id > %s AND (due_at IS NULL OR error = '' AND due_at > now())
        ORDER BY id LIMIT 1000
    ), looked_at AS (
        UPDATE webhooks_delivery d SET due_at = created FROM part WHERE d.id = part.id
    )
    SELECT max(id) FROM part"""


def give_back(apps, schema_editor) -> None:
    if 'lease_until' in columns_of('webhooks_delivery', schema_editor):
        in_parts(schema_editor, GIVE_BACK)


def split_batches(apps, schema_editor) -> None:
    if columns_of('webhooks_batchitem', schema_editor):
        in_parts(schema_editor, SPLIT)


def look_anew(apps, schema_editor) -> None:
    in_parts(schema_editor, LOOK_ANEW)


def advance(apps, schema_editor) -> None:
    sequence.advance()


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0002_sequence')]

    operations = [
        migrations.AlterModelOptions(
            'webhook',
            {
                'ordering': ('name',),
                'verbose_name': 'webhook',
                'verbose_name_plural': 'webhooks',
                'permissions': [
                    ('test', 'Send a test event'),
                    ('replay', 'Replay past events'),
                    ('backfill', 'Send everything as it is now'),
                ],
            },
        ),
        Gently(
            ['webhook'],
            migrations.AddField('webhook', 'latest_only', models.BooleanField(db_default=False, default=False)),
            migrations.AddField(
                'webhook',
                'expand',
                django.contrib.postgres.fields.ArrayField(
                    models.CharField(max_length=150), blank=True, default=list, db_default=[]
                ),
            ),
            migrations.AddField('webhook', 'include_components', models.BooleanField(default=False, db_default=False)),
            migrations.AddField('webhook', 'secret_path', models.BooleanField(db_default=False, default=False)),
        ),
        Gently(
            ['subscription'],
            # Of those that are there it is the time of the migration: they were open by then.
            migrations.AddField(
                'subscription', 'opened_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())
            ),
            migrations.AddField('subscription', 'opened_by', models.BigIntegerField(null=True)),
            migrations.AddField('subscription', 'closed_by', models.BigIntegerField(null=True)),
            migrations.AddField('subscription', 'cluster', models.BigIntegerField(null=True)),
        ),
        Gently(
            [],
            migrations.CreateModel(
                'Worker',
                [
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                    ('name', models.CharField(max_length=200)),
                    ('started_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                    ('alive_until', models.DateTimeField()),
                    (
                        'events',
                        django.contrib.postgres.fields.ArrayField(
                            models.BigIntegerField(), db_default=[], default=list
                        ),
                    ),
                    (
                        'deliveries',
                        django.contrib.postgres.fields.ArrayField(
                            models.BigIntegerField(), db_default=[], default=list
                        ),
                    ),
                    ('role', models.CharField(max_length=10)),
                ],
            ),
        ),
        Gently(
            ['health', 'worker'],
            migrations.AddField(
                'health',
                'owner',
                models.ForeignKey(
                    db_index=False,
                    null=True,
                    on_delete=models.DB_SET_NULL,
                    related_name='lanes',
                    to='webhooks.worker',
                ),
            ),
        ),
        Gently(
            ['health'],
            migrations.AddField('health', 'gone_at', models.DateTimeField(null=True)),
            migrations.AddField('health', 'superseded', models.PositiveBigIntegerField(db_default=0, default=0)),
        ),
        Gently(
            ['hour'],
            migrations.AddField('hour', 'superseded', models.PositiveIntegerField(db_default=0, default=0)),
        ),
        Gently(
            ['delivery'],
            migrations.AddField('delivery', 'batch', models.BigIntegerField(null=True)),
            migrations.AddField('delivery', 'lapses', models.SmallIntegerField(db_default=0, default=0)),
            migrations.AddField('delivery', 'span', models.JSONField(null=True)),
            migrations.AddField('delivery', 'expanded', models.BooleanField(default=False, db_default=False)),
            migrations.AddField('delivery', 'backfill', models.BooleanField(db_default=False, default=False)),
            migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_DELIVERIES), KEEP_FIGURES.format(**OF_DELIVERIES)),
        ),
        Gently(
            ['event'],
            migrations.AddField('event', 'lapses', models.SmallIntegerField(db_default=0, default=0)),
            migrations.AddField('event', 'retry_at', models.DateTimeField(null=True)),
            migrations.AddField('event', 'visible', models.TextField(null=True)),
            migrations.AddField('event', 'first_sequence', models.BigIntegerField(null=True)),
            migrations.AddField('event', 'first_visible', models.TextField(null=True)),
            migrations.AddField('event', 'partial', models.JSONField(null=True)),
            migrations.AddField('event', 'caused_by', models.JSONField(null=True)),
            migrations.AddField('event', 'expanded', models.TextField(null=True)),
            migrations.AddField('event', 'expanded_types', models.JSONField(null=True)),
            migrations.AddField('event', 'backfill_for', models.BigIntegerField(null=True)),
            migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_EVENTS), KEEP_FIGURES.format(**OF_EVENTS)),
        ),
        Gently(
            [],
            migrations.CreateModel(
                'Backfill',
                [
                    (
                        'webhook',
                        models.OneToOneField(
                            db_constraint=False,
                            on_delete=DO_NOTHING,
                            primary_key=True,
                            related_name='backfill',
                            serialize=False,
                            to='webhooks.webhook',
                        ),
                    ),
                    ('state', models.CharField(max_length=10)),
                    ('error', models.TextField(blank=True)),
                    ('object_types', django.contrib.postgres.fields.ArrayField(models.BigIntegerField())),
                    ('query', models.TextField(blank=True)),
                    ('position', models.PositiveSmallIntegerField(default=0)),
                    ('last_id', models.BigIntegerField(default=0)),
                    ('total', models.PositiveBigIntegerField()),
                    ('recorded', models.PositiveBigIntegerField(default=0)),
                    ('username', models.CharField(blank=True, max_length=150)),
                    ('started_at', models.DateTimeField()),
                    ('finished_at', models.DateTimeField(null=True)),
                ],
                {'verbose_name': 'backfill', 'verbose_name_plural': 'backfills'},
            ),
        ),
        BuildIndex(
            'subscription',
            models.Index(
                fields=['object_type'], condition=Q(until=None, kind='deleted'), name='webhooks_subscription_deletion'
            ),
        ),
        BuildIndex(
            'event',
            models.Index(
                fields=['sequence'], condition=Q(dispatched_at=None, lapses__gt=0), name='webhooks_event_suspect'
            ),
        ),
        BuildIndex(
            'event',
            models.Index(
                fields=['object_type', 'object_id', 'sequence'],
                condition=Q(dispatched_at=None),
                name='webhooks_event_chain',
            ),
        ),
        BuildIndex(
            'event',
            models.Index(
                fields=['backfill_for'],
                condition=Q(dispatched_at=None, backfill_for__isnull=False),
                name='webhooks_event_backfill',
            ),
        ),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['webhook', 'backfill', 'due_at', 'id'],
                condition=Q(status='pending'),
                name='webhooks_delivery_next',
            ),
        ),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['object_type', 'object_id', 'webhook', 'status', 'sequence'], name='webhooks_delivery_order'
            ),
        ),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['webhook', 'expires_at', 'id'],
                condition=Q(status='pending'),
                name='webhooks_delivery_overdue',
            ),
        ),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['status', 'id'],
                condition=Q(status='pending') & Q(lapses__gt=0) | Q(status='failed') & Q(listed=False),
                name='webhooks_delivery_odd',
            ),
        ),
        BuildIndex(
            'delivery', models.Index(fields=['batch'], condition=Q(batch__isnull=False), name='webhooks_delivery_batch')
        ),
        BuildIndex(
            'delivery',
            models.Index(fields=['status', '-id'], condition=~Q(status='pending'), name='webhooks_delivery_closed'),
        ),
        migrations.RunPython(advance, migrations.RunPython.noop),
        # The log outlives its webhook: no edit and no deletion of a webhook holds up whoever writes the log.
        Gently(
            ['delivery', 'webhook'],
            migrations.AlterField(
                'delivery',
                'webhook',
                models.ForeignKey(
                    db_constraint=False,
                    db_index=False,
                    on_delete=DO_NOTHING,
                    related_name='deliveries',
                    to='webhooks.webhook',
                ),
            ),
        ),
        Gently(
            ['health', 'webhook'],
            migrations.AlterField(
                'health',
                'webhook',
                models.OneToOneField(
                    db_constraint=False,
                    on_delete=DO_NOTHING,
                    primary_key=True,
                    related_name='health',
                    serialize=False,
                    to='webhooks.webhook',
                ),
            ),
        ),
        # From here on no worker of 1.0.0 claims or records anything, and after the next step none makes a delivery.
        Gently(['delivery'], migrations.RemoveField('delivery', 'lease')),
        DropModel('Wait'),
        *(
            RemoveIndexConcurrently('delivery', f'webhooks_delivery_{name}')
            for name in ('due', 'line', 'lease', 'expiry', 'unlisted', 'object', 'created', 'status')
        ),
        migrations.RunPython(give_back, migrations.RunPython.noop),
        migrations.RunPython(split_batches, migrations.RunPython.noop),
        DropModel('BatchItem'),
        Gently(
            ['delivery'],
            migrations.RemoveField('delivery', 'lease_until'),
            migrations.RemoveField('delivery', 'event_count'),
        ),
        Gently(
            ['health'],
            migrations.RemoveField('health', 'tokens'),
            migrations.RemoveField('health', 'tokens_at'),
        ),
        migrations.RunPython(look_anew, migrations.RunPython.noop),
    ]
