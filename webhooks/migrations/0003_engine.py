"""From 1.0.0 to this version, while NetBox and the workers of 1.0.0 go on.

Each step is a short transaction, and is passed over if it is done (_gently.py). What is new is null or has a constant
default: no table is rewritten or read, and processes of 1.0.0 go on without it. Their workers go on until the table of
waits is dropped, nearly at the end. From then on each of their jobs fails: they know no lanes, and would send beside
the workers of this version.
"""

from functools import partial

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import OperationalError, migrations, models
from django.db.models import DO_NOTHING, Q
from psycopg.errors import QueryCanceled

from webhooks.migrations._gently import BuildIndex, Gently, insist
from webhooks.models import sequence

# PostgreSQL keeps no figures of what is waiting. In a quiet moment they say that nothing is, and after an import it
# would read all that waits for each event that it looks up. Without figures it uses the indexes as they are meant.
KEEP_FIGURES = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1'
KEEP_NO_FIGURES = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0'
# Naming its type anew drops the figures that are there. That builds partial indexes anew. Where it takes longer than a
# moment, as with a long log, the figures stay.
FORGET_FIGURES = """
    SET LOCAL statement_timeout = 400;
    ALTER TABLE {table} ALTER COLUMN {column} TYPE {type}"""
HAS_FIGURES = 'SELECT 1 FROM pg_stats WHERE schemaname = current_schema() AND tablename = %s AND attname = %s'
OF_EVENTS = {'table': 'webhooks_event', 'column': 'dispatched_at', 'type': 'timestamp with time zone'}
OF_DELIVERIES = {'table': 'webhooks_delivery', 'column': 'status', 'type': 'varchar(10)'}

# An event is written three times: recorded, claimed, dispatched. Where its page has room, PostgreSQL writes the claim
# beside it and touches no index: a quarter less WAL for each delivery.
LEAVE_ROOM = 'ALTER TABLE webhooks_event SET (fillfactor = 50)'
LEAVE_NO_ROOM = 'ALTER TABLE webhooks_event RESET (fillfactor)'

# What 1.0.0 has let wait for an earlier delivery of its object, for `order_wait` or for as long as that takes. The next
# claim looks at it anew, and lets it wait as this version does. The index of (status, id) finds a part.
LOOK_ANEW = """
    WITH part AS (
        SELECT id FROM webhooks_delivery
        WHERE status = 'pending' AND id > %s AND (due_at IS NULL OR error = '' AND due_at > now())
        ORDER BY id LIMIT 1000 FOR UPDATE
    ), looked_at AS (
        UPDATE webhooks_delivery d SET due_at = now() FROM part WHERE d.id = part.id
    )
    SELECT max(id) FROM part"""


def look_anew(apps, schema_editor) -> None:
    def look() -> int | None:
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(LOOK_ANEW, [last])
            return cursor.fetchone()[0]

    last: int | None = 0
    while last is not None:
        last = insist(schema_editor, look)


def forget_figures(apps, schema_editor) -> None:
    for one in (OF_EVENTS, OF_DELIVERIES):
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(HAS_FIGURES, [one['table'], one['column']])
            if not cursor.fetchone():
                continue
        try:
            insist(schema_editor, partial(schema_editor.execute, FORGET_FIGURES.format(**one)), tables=[one['table']])
        except OperationalError as error:
            if not isinstance(error.__cause__, QueryCanceled):
                raise


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
            ['batchitem'],
            migrations.AddField('batchitem', 'span', models.JSONField(null=True)),
            migrations.AddField('batchitem', 'superseded', models.BooleanField(db_default=False, default=False)),
        ),
        Gently(
            ['delivery'],
            migrations.AddField('delivery', 'batch', models.BigIntegerField(null=True)),
            migrations.AddField('delivery', 'lapses', models.SmallIntegerField(db_default=0, default=0)),
            migrations.AddField('delivery', 'overtake_at', models.DateTimeField(null=True)),
            migrations.AddField('delivery', 'span', models.JSONField(null=True)),
            migrations.AddField('delivery', 'expanded', models.BooleanField(default=False, db_default=False)),
            migrations.AddField('delivery', 'backfill', models.BooleanField(db_default=False, default=False)),
            migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_DELIVERIES), KEEP_FIGURES.format(**OF_DELIVERIES)),
        ),
        Gently(
            ['event'],
            migrations.AddField('event', 'lapses', models.SmallIntegerField(db_default=0, default=0)),
            migrations.AddField('event', 'retry_at', models.DateTimeField(null=True)),
            migrations.AddField('event', 'lease', models.UUIDField(null=True)),
            migrations.AddField('event', 'lease_until', models.DateTimeField(null=True)),
            migrations.AddField('event', 'dispatch_count', models.SmallIntegerField(db_default=0, default=0)),
            migrations.AddField('event', 'visible', models.TextField(null=True)),
            migrations.AddField('event', 'first_sequence', models.BigIntegerField(null=True)),
            migrations.AddField('event', 'first_visible', models.TextField(null=True)),
            migrations.AddField('event', 'partial', models.JSONField(null=True)),
            migrations.AddField('event', 'caused_by', models.JSONField(null=True)),
            migrations.AddField('event', 'expanded', models.TextField(null=True)),
            migrations.AddField('event', 'expanded_types', models.JSONField(null=True)),
            migrations.AddField('event', 'backfill_for', models.BigIntegerField(null=True)),
            migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_EVENTS), KEEP_FIGURES.format(**OF_EVENTS)),
            migrations.RunSQL(LEAVE_ROOM, LEAVE_NO_ROOM),
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
                    (
                        'skipped',
                        django.contrib.postgres.fields.ArrayField(
                            django.contrib.postgres.fields.ArrayField(models.BigIntegerField()), default=list
                        ),
                    ),
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
                fields=['webhook', 'due_at'],
                condition=Q(status='pending') & Q(lapses__gt=0),
                name='webhooks_delivery_lapsed',
            ),
        ),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['webhook', 'due_at', 'id'],
                condition=Q(backfill=True, status__in=('pending', 'sending')),
                name='webhooks_delivery_backfill',
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
                fields=['webhook', 'object_type', 'object_id', 'sequence'],
                condition=Q(status='pending'),
                name='webhooks_delivery_order',
            ),
        ),
        RemoveIndexConcurrently('delivery', 'webhooks_delivery_line'),
        RemoveIndexConcurrently('delivery', 'webhooks_delivery_expiry'),
        migrations.RunPython(forget_figures, migrations.RunPython.noop),
        migrations.RunPython(advance, migrations.RunPython.noop),
        # The log outlives its webhook: no edit and no deletion of a webhook holds up whoever writes the log.
        *(
            Gently(
                [model, 'webhook'],
                migrations.AlterField(
                    model,
                    'webhook',
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=DO_NOTHING,
                        related_name=related_name,
                        to='webhooks.webhook',
                    ),
                ),
            )
            for model, related_name in (('delivery', 'deliveries'), ('batchitem', '+'))
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
        Gently(['wait', 'delivery'], migrations.DeleteModel('Wait')),
        migrations.RunPython(look_anew, migrations.RunPython.noop),
    ]
