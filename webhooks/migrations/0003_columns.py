"""All columns and tables that processes of this version need. What takes long follows (0004_engine.py).

Without the columns of events, a process of this version fails to save: they come first. New columns are null or have a
constant default: no table is rewritten, and processes of 1.0.0 go on. A step that is done is passed over (_gently.py).
"""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
import netbox.models.deletion
import taggit.managers
import utilities.json
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import migrations, models
from django.db.models import CASCADE, DO_NOTHING

import webhooks.models.fields
from webhooks.migrations._gently import Gently, Once

# In a quiet moment, statistics say that nothing waits. After an import PostgreSQL would read all of it for each event.
# So it keeps none here, until somebody undoes the migration.
KEEP_FIGURES = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1'
KEEP_NO_FIGURES = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0'
OF_EVENTS = {'table': 'webhooks_event', 'column': 'dispatched_at'}
OF_DELIVERIES = {'table': 'webhooks_delivery', 'column': 'status'}

# It is compressed already.
STORE_AS_IS = 'ALTER TABLE webhooks_attempt ALTER COLUMN request_body SET STORAGE EXTERNAL'

# As the other tables of the log (0002_sequence.py). By default PostgreSQL would wait until a fifth of it is pruned.
VACUUM_ATTEMPTS = """
    ALTER TABLE webhooks_attempt SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)"""


# Of webhooks and credentials: column and characters.
MANAGED = (('managed_by', 100), ('managed_in', 500))


def _managed(characters: int) -> models.CharField:
    return models.CharField(blank=True, db_default='', default='', editable=False, max_length=characters)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0002_sequence')]

    operations = [
        Once(
            Gently(
                ['event'],
                # It rewrites nothing.
                migrations.AlterField('event', 'kind', models.TextField(blank=True)),
                migrations.AddField('event', 'changelog_message', models.TextField(null=True)),
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
                migrations.AddField('event', 'stopped', models.BooleanField(db_default=False, default=False)),
                migrations.AddField('event', 'trace', models.JSONField(null=True)),
                migrations.AddField('event', 'branch', models.JSONField(null=True)),
                migrations.AddField('event', 'urgent', models.BooleanField(db_default=False, default=False)),
            ),
            Gently(
                ['subscription'],
                migrations.AddField('subscription', 'opened_by', models.BigIntegerField(null=True)),
                migrations.AddField('subscription', 'closed_by', models.BigIntegerField(null=True)),
                migrations.AddField('subscription', 'cluster', models.BigIntegerField(null=True)),
                migrations.AddField('subscription', 'unchanged', models.BooleanField(default=True, db_default=True)),
            ),
            Gently(
                [],
                migrations.CreateModel(
                    'Credential',
                    [
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                        ('created', models.DateTimeField(auto_now_add=True, null=True)),
                        ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                        (
                            'custom_field_data',
                            models.JSONField(blank=True, default=dict, encoder=utilities.json.CustomFieldJSONEncoder),
                        ),
                        ('name', models.CharField(max_length=150, unique=True)),
                        ('description', models.CharField(blank=True, max_length=200)),
                        *((name, _managed(size)) for name, size in MANAGED),
                        ('type', models.CharField(max_length=30)),
                        ('hosts', django.contrib.postgres.fields.ArrayField(models.CharField(max_length=300))),
                        ('username', models.CharField(blank=True, max_length=300)),
                        ('header', models.CharField(blank=True, max_length=100)),
                        ('secret', webhooks.models.fields.SealedField(blank=True)),
                        ('valid_until', models.DateField(blank=True, null=True)),
                        ('token_url', models.CharField(blank=True, max_length=500)),
                        ('scope', models.CharField(blank=True, max_length=500)),
                        ('audience', models.CharField(blank=True, max_length=500)),
                        ('ca_file_path', models.CharField(blank=True, max_length=4096)),
                        ('tags', taggit.managers.TaggableManager(through='extras.TaggedItem', to='extras.Tag')),
                    ],
                    {
                        'ordering': ('name',),
                        'verbose_name': 'credential',
                        'verbose_name_plural': 'credentials',
                    },
                    bases=(netbox.models.deletion.DeleteMixin, models.Model),
                ),
                migrations.CreateModel(
                    'AccessToken',
                    [
                        (
                            'credential',
                            models.OneToOneField(
                                on_delete=CASCADE,
                                primary_key=True,
                                related_name='access_token',
                                serialize=False,
                                to='webhooks.credential',
                            ),
                        ),
                        ('token', webhooks.models.fields.SealedField(blank=True)),
                        ('fetched_at', models.DateTimeField(null=True)),
                        ('expires_at', models.DateTimeField(null=True)),
                        ('fetching_until', models.DateTimeField(null=True)),
                    ],
                    {'verbose_name': 'access token', 'verbose_name_plural': 'access tokens'},
                ),
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
                migrations.CreateModel(
                    'ContextDigest',
                    [
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                        ('object_id', models.BigIntegerField()),
                        ('digest', models.TextField()),
                        (
                            'object_type',
                            models.ForeignKey(
                                db_index=False,
                                on_delete=models.DB_CASCADE,
                                related_name='+',
                                to='contenttypes.contenttype',
                            ),
                        ),
                    ],
                    {
                        'constraints': [
                            models.UniqueConstraint(
                                fields=['object_type', 'object_id'], name='webhooks_contextdigest_object'
                            )
                        ]
                    },
                ),
                migrations.CreateModel(
                    'ContextWalk',
                    [
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                        ('caused_by', models.JSONField(default=list)),
                        ('origin', models.JSONField(null=True)),
                        ('first_sequence', models.BigIntegerField(null=True)),
                        ('first_visible', models.TextField(null=True)),
                        ('started', models.BooleanField(default=False)),
                        ('position', models.SmallIntegerField(default=0)),
                        ('last_id', models.BigIntegerField(default=0)),
                        ('looked', models.BigIntegerField(default=0)),
                    ],
                    {
                        'constraints': [
                            models.UniqueConstraint(
                                condition=models.Q(started=False, first_sequence__isnull=False),
                                fields=['started'],
                                name='webhooks_contextwalk_waiting',
                            )
                        ]
                    },
                ),
                migrations.CreateModel(
                    'ListWalk',
                    [
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                        ('webhook_id', models.BigIntegerField()),
                        ('query', models.TextField()),
                        ('walking', models.BooleanField(default=False)),
                        ('last_id', models.BigIntegerField(default=0)),
                        ('asked', models.BooleanField(default=True)),
                        ('begun_at', models.DateTimeField(null=True)),
                        ('written', models.BigIntegerField(null=True)),
                        ('error', models.TextField(blank=True)),
                        (
                            'object_type',
                            models.ForeignKey(
                                db_index=False,
                                on_delete=models.DB_CASCADE,
                                related_name='+',
                                to='contenttypes.contenttype',
                            ),
                        ),
                    ],
                    {
                        'constraints': [
                            models.UniqueConstraint(fields=['webhook_id', 'object_type'], name='webhooks_listwalk_list')
                        ]
                    },
                ),
                migrations.CreateModel(
                    'Member',
                    [
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                        ('webhook_id', models.BigIntegerField()),
                        ('object_id', models.BigIntegerField()),
                        ('sequence', models.BigIntegerField()),
                        ('digest', models.TextField()),
                        ('state', models.UUIDField(null=True)),
                        (
                            'object_type',
                            models.ForeignKey(
                                db_index=False,
                                on_delete=models.DB_CASCADE,
                                related_name='+',
                                to='contenttypes.contenttype',
                            ),
                        ),
                    ],
                    {
                        'ordering': ('object_type', 'object_id'),
                        'constraints': [
                            models.UniqueConstraint(
                                fields=['webhook_id', 'object_type', 'object_id'], name='webhooks_member_object'
                            )
                        ],
                    },
                ),
            ),
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
                        ('read_feed', 'Read a feed'),
                    ],
                },
            ),
            Gently(
                ['webhook', 'credential'],
                # A sealed URL is longer than a whole one (0004_engine.py). It rewrites nothing.
                migrations.AlterField('webhook', 'payload_url', models.TextField(blank=True)),
                # Processes of this version do not know it.
                migrations.AlterField('webhook', 'batch', models.BooleanField(db_default=False, default=False)),
                migrations.AddField('webhook', 'latest_only', models.BooleanField(db_default=False, default=False)),
                migrations.AddField(
                    'webhook',
                    'expand',
                    django.contrib.postgres.fields.ArrayField(
                        models.CharField(max_length=150), blank=True, default=list, db_default=[]
                    ),
                ),
                migrations.AddField(
                    'webhook', 'include_components', models.BooleanField(default=False, db_default=False)
                ),
                migrations.AddField(
                    'webhook', 'include_config_contexts', models.BooleanField(db_default=False, default=False)
                ),
                *(migrations.AddField('webhook', name, _managed(size)) for name, size in MANAGED),
                migrations.AddField('webhook', 'fields', models.JSONField(blank=True, null=True)),
                migrations.AddField('webhook', 'omit', models.JSONField(blank=True, null=True)),
                migrations.AddField('webhook', 'secret_path', models.BooleanField(db_default=False, default=False)),
                migrations.AddField('webhook', 'standard_headers', models.BooleanField(default=True, db_default=True)),
                migrations.AddField('webhook', 'success_conditions', models.JSONField(blank=True, null=True)),
                migrations.AddField('webhook', 'change_set', models.BooleanField(db_default=False, default=False)),
                migrations.AddField(
                    'webhook',
                    'credential',
                    models.ForeignKey(
                        blank=True, null=True, on_delete=DO_NOTHING, related_name='+', to='webhooks.credential'
                    ),
                ),
                migrations.AddField(
                    'webhook',
                    'quiet',
                    models.PositiveSmallIntegerField(
                        blank=True, null=True, validators=[MinValueValidator(1), MaxValueValidator(3600)]
                    ),
                ),
                migrations.AddField(
                    'webhook',
                    'quiet_max',
                    models.PositiveIntegerField(
                        blank=True, null=True, validators=[MinValueValidator(1), MaxValueValidator(86400)]
                    ),
                ),
                migrations.AddField('webhook', 'filters', models.JSONField(blank=True, db_default={}, default=dict)),
                # On for new webhooks, off for stored ones.
                migrations.AddField(
                    'webhook', 'only_real_changes', models.BooleanField(default=True, db_default=False)
                ),
                migrations.AddField(
                    'webhook',
                    'only_if_changed',
                    django.contrib.postgres.fields.ArrayField(
                        models.CharField(max_length=150), blank=True, default=list, db_default=[]
                    ),
                ),
            ),
            Gently(
                ['health', 'worker'],
                # Processes of this version do not know it.
                migrations.AlterField('health', 'tokens', models.FloatField(db_default=0, default=0)),
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
                migrations.AddField('health', 'gone_at', models.DateTimeField(null=True)),
                migrations.AddField('health', 'superseded', models.PositiveBigIntegerField(db_default=0, default=0)),
                migrations.AddField('health', 'refused_since', models.DateTimeField(null=True)),
                migrations.AddField('health', 'position', models.BigIntegerField(db_default=0, default=0)),
                migrations.AddField(
                    'health',
                    'notices',
                    django.contrib.postgres.fields.ArrayField(
                        models.CharField(max_length=50), db_default=[], default=list
                    ),
                ),
                migrations.AddField('health', 'former_until', models.BigIntegerField(null=True)),
            ),
            Gently(
                ['hour'],
                migrations.AddField('hour', 'superseded', models.PositiveIntegerField(db_default=0, default=0)),
            ),
            Gently(
                ['delivery'],
                migrations.AddField('delivery', 'lapses', models.SmallIntegerField(db_default=0, default=0)),
                migrations.AddField('delivery', 'span', models.JSONField(null=True)),
                migrations.AddField('delivery', 'expanded', models.BooleanField(default=False, db_default=False)),
                migrations.AddField('delivery', 'backfill', models.BooleanField(db_default=False, default=False)),
                migrations.AddField('delivery', 'change_set', models.BigIntegerField(null=True)),
                migrations.AddField('delivery', 'part', models.SmallIntegerField(null=True)),
                migrations.AddField('delivery', 'parts', models.SmallIntegerField(null=True)),
                migrations.AddField('delivery', 'change_count', models.IntegerField(null=True)),
                migrations.AddField('delivery', 'lead', models.BigIntegerField(null=True)),
                migrations.AddField('delivery', 'position', models.BigIntegerField(null=True)),
                migrations.AddField('delivery', 'waits_until', models.DateTimeField(null=True)),
                migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_DELIVERIES), KEEP_FIGURES.format(**OF_DELIVERIES)),
            ),
            Gently(
                ['attempt'],
                migrations.AddField('attempt', 'request_body', models.BinaryField(null=True)),
                migrations.RunSQL(STORE_AS_IS, migrations.RunSQL.noop),
                migrations.RunSQL(VACUUM_ATTEMPTS, migrations.RunSQL.noop),
                migrations.AddField('attempt', 'made_from', models.JSONField(null=True)),
                migrations.AddField(
                    'attempt',
                    'members',
                    django.contrib.postgres.fields.ArrayField(models.BigIntegerField(), null=True),
                ),
            ),
        )
    ]
