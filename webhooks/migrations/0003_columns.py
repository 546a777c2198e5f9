"""All columns and tables that processes of this version need. What takes long follows (0004_engine.py).

Without the columns of events, a process of this version fails to save: they come first. New columns are null or have a
constant default: no table is rewritten, and processes of 1.0.0 go on. A step that is done is passed over (_gently.py).
"""

from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import migrations, models
from django.db.models import CASCADE, DB_CASCADE, DB_SET_NULL, DO_NOTHING, PROTECT, SET_NULL
from django.db.models.functions import Now
from taggit.managers import TaggableManager
from utilities.json import CustomFieldJSONEncoder

from webhooks.migrations._gently import Gently, Once
from webhooks.models.fields import SealedField

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


def _add(model: str, **columns: models.Field) -> list[migrations.AddField]:
    return [migrations.AddField(model, name, column) for name, column in columns.items()]


def _create(model: str, *, options: dict[str, Any], **columns: models.Field) -> migrations.CreateModel:
    """Create a table with an `id`, unless a column is its primary key."""
    own = {} if any(one.primary_key for one in columns.values()) else {'id': _id()}
    return migrations.CreateModel(model, list({**own, **columns}.items()), options)


def _create_netbox(model: str, **columns: models.Field) -> migrations.CreateModel:
    """Create the table of a NetBoxModel."""
    own = {
        'id': _id(),
        'created': models.DateTimeField(auto_now_add=True, null=True),
        'last_updated': models.DateTimeField(auto_now=True, null=True),
        'custom_field_data': models.JSONField(blank=True, default=dict, encoder=CustomFieldJSONEncoder),
    }
    tags = TaggableManager(through='extras.TaggedItem', to='extras.Tag')
    return migrations.CreateModel(
        model,
        [*own.items(), *columns.items(), ('tags', tags)],
        {'ordering': ('name',), **_named(model.lower())},
    )


def _named(name: str) -> dict[str, str]:
    return {'verbose_name': name, 'verbose_name_plural': f'{name}s'}


def _unique(name: str, *fields: str, **more: Any) -> dict[str, Any]:
    return {'constraints': [models.UniqueConstraint(fields=fields, name=f'webhooks_{name}', **more)]}


def _id() -> models.Field:
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False)


def _flag(value: bool = False) -> models.Field:
    return models.BooleanField(db_default=value, default=value)


def _list(of: models.Field, **more: Any) -> models.Field:
    return ArrayField(of, db_default=[], default=list, **more)


def _object_type() -> models.Field:
    return models.ForeignKey('contenttypes.contenttype', DB_CASCADE, db_index=False, related_name='+')


def _managed() -> dict[str, models.Field]:
    """Return the columns of ManagedModel."""
    characters = {'managed_by': 100, 'managed_in': 500}
    return {
        name: models.CharField(blank=True, db_default='', default='', editable=False, max_length=most)
        for name, most in characters.items()
    }


def _seconds(most: int) -> dict[str, Any]:
    return {'blank': True, 'null': True, 'validators': [MinValueValidator(1), MaxValueValidator(most)]}


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0002_sequence'), ('core', '0023_datasource_sync_permission')]

    operations = [
        Once(
            Gently(
                ['event'],
                # It rewrites nothing.
                migrations.AlterField('event', 'kind', models.TextField(blank=True)),
                *_add(
                    'event',
                    changelog_message=models.TextField(null=True),
                    lapses=models.SmallIntegerField(db_default=0, default=0),
                    retry_at=models.DateTimeField(null=True),
                    visible=models.TextField(null=True),
                    first_sequence=models.BigIntegerField(null=True),
                    first_visible=models.TextField(null=True),
                    partial=models.JSONField(null=True),
                    caused_by=models.JSONField(null=True),
                    expanded=models.TextField(null=True),
                    expanded_types=models.JSONField(null=True),
                    backfill_for=models.BigIntegerField(null=True),
                    stopped=_flag(),
                    trace=models.JSONField(null=True),
                    branch=models.JSONField(null=True),
                    urgent=_flag(),
                    row_state=models.UUIDField(null=True),
                ),
                migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_EVENTS), KEEP_FIGURES.format(**OF_EVENTS)),
            ),
            Gently(
                ['subscription'],
                *_add(
                    'subscription',
                    opened_by=models.BigIntegerField(null=True),
                    closed_by=models.BigIntegerField(null=True),
                    cluster=models.BigIntegerField(null=True),
                    unchanged=_flag(True),
                ),
            ),
            Gently(
                [],
                _create_netbox(
                    'Credential',
                    name=models.CharField(max_length=150, unique=True),
                    description=models.CharField(blank=True, max_length=200),
                    **_managed(),
                    type=models.CharField(max_length=30),
                    hosts=ArrayField(models.CharField(max_length=300)),
                    username=models.CharField(blank=True, max_length=300),
                    header=models.CharField(blank=True, max_length=100),
                    secret=SealedField(blank=True),
                    valid_until=models.DateField(blank=True, null=True),
                    token_url=models.CharField(blank=True, max_length=500),
                    scope=models.CharField(blank=True, max_length=500),
                    audience=models.CharField(blank=True, max_length=500),
                    ca_file_path=models.CharField(blank=True, max_length=4096),
                ),
                _create(
                    'AccessToken',
                    options=_named('access token'),
                    credential=models.OneToOneField(
                        'webhooks.credential', CASCADE, primary_key=True, related_name='access_token', serialize=False
                    ),
                    token=SealedField(blank=True),
                    fetched_at=models.DateTimeField(null=True),
                    expires_at=models.DateTimeField(null=True),
                    fetching_until=models.DateTimeField(null=True),
                ),
                _create(
                    'Worker',
                    options={},
                    name=models.CharField(max_length=200),
                    started_at=models.DateTimeField(db_default=Now()),
                    alive_until=models.DateTimeField(),
                    events=_list(models.BigIntegerField()),
                    deliveries=_list(models.BigIntegerField()),
                    role=models.CharField(max_length=10),
                ),
                _create(
                    'Backfill',
                    options=_named('backfill'),
                    webhook=models.OneToOneField(
                        'webhooks.webhook',
                        DO_NOTHING,
                        db_constraint=False,
                        primary_key=True,
                        related_name='backfill',
                        serialize=False,
                    ),
                    state=models.CharField(max_length=10),
                    error=models.TextField(blank=True),
                    object_types=ArrayField(models.BigIntegerField()),
                    query=models.TextField(blank=True),
                    position=models.PositiveSmallIntegerField(default=0),
                    last_id=models.BigIntegerField(default=0),
                    total=models.PositiveBigIntegerField(),
                    recorded=models.PositiveBigIntegerField(default=0),
                    username=models.CharField(blank=True, max_length=150),
                    started_at=models.DateTimeField(),
                    finished_at=models.DateTimeField(null=True),
                ),
                _create(
                    'ContextDigest',
                    options=_unique('contextdigest_object', 'object_type', 'object_id'),
                    object_id=models.BigIntegerField(),
                    digest=models.TextField(),
                    object_type=_object_type(),
                ),
                _create(
                    'ContextWalk',
                    options=_unique(
                        'contextwalk_waiting',
                        'started',
                        condition=models.Q(started=False, first_sequence__isnull=False),
                    ),
                    caused_by=models.JSONField(default=list),
                    origin=models.JSONField(null=True),
                    first_sequence=models.BigIntegerField(null=True),
                    first_visible=models.TextField(null=True),
                    started=models.BooleanField(default=False),
                    position=models.SmallIntegerField(default=0),
                    last_id=models.BigIntegerField(default=0),
                    looked=models.BigIntegerField(default=0),
                ),
                _create(
                    'ListWalk',
                    options=_unique('listwalk_list', 'webhook_id', 'object_type'),
                    webhook_id=models.BigIntegerField(),
                    query=models.TextField(),
                    walking=models.BooleanField(default=False),
                    last_id=models.BigIntegerField(default=0),
                    asked=models.BooleanField(default=True),
                    begun_at=models.DateTimeField(null=True),
                    written=models.BigIntegerField(null=True),
                    error=models.TextField(blank=True),
                    object_type=_object_type(),
                ),
                _create(
                    'ListMember',
                    options={
                        'ordering': ('object_type', 'object_id'),
                        **_unique('listmember_object', 'webhook_id', 'object_type', 'object_id'),
                    },
                    webhook_id=models.BigIntegerField(),
                    object_id=models.BigIntegerField(),
                    sequence=models.BigIntegerField(),
                    digest=models.TextField(),
                    state=models.UUIDField(null=True),
                    object_type=_object_type(),
                ),
            ),
            Gently(
                [],
                _create_netbox(
                    'Definition',
                    name=models.CharField(max_length=100, unique=True),
                    path=models.CharField(max_length=300),
                    prune=models.BooleanField(default=False),
                    apply_on_sync=models.BooleanField(default=False),
                    applied_by=models.ForeignKey(
                        settings.AUTH_USER_MODEL, SET_NULL, editable=False, null=True, related_name='+'
                    ),
                    data_source=models.ForeignKey('core.datasource', PROTECT, related_name='+'),
                ),
            ),
            migrations.AlterModelOptions(
                'webhook',
                {
                    'ordering': ('name',),
                    **_named('webhook'),
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
                migrations.AlterField('webhook', 'batch', _flag()),
                *_add(
                    'webhook',
                    latest_only=_flag(),
                    expand=_list(models.CharField(max_length=150), blank=True),
                    include_components=_flag(),
                    include_config_contexts=_flag(),
                    **_managed(),
                    fields=models.JSONField(blank=True, null=True),
                    omit=models.JSONField(blank=True, null=True),
                    secret_path=_flag(),
                    standard_headers=_flag(True),
                    success_conditions=models.JSONField(blank=True, null=True),
                    change_set=_flag(),
                    credential=models.ForeignKey(
                        'webhooks.credential', DO_NOTHING, blank=True, null=True, related_name='+'
                    ),
                    quiet=models.PositiveSmallIntegerField(**_seconds(3600)),
                    quiet_max=models.PositiveIntegerField(**_seconds(86400)),
                    filters=models.JSONField(blank=True, db_default={}, default=dict),
                    # On for new webhooks, off for stored ones.
                    only_real_changes=models.BooleanField(default=True, db_default=False),
                    only_if_changed=_list(models.CharField(max_length=150), blank=True),
                ),
            ),
            Gently(
                ['health', 'worker'],
                # Processes of this version do not know it.
                migrations.AlterField('health', 'tokens', models.FloatField(db_default=0, default=0)),
                *_add(
                    'health',
                    owner=models.ForeignKey(
                        'webhooks.worker', DB_SET_NULL, db_index=False, null=True, related_name='lanes'
                    ),
                    gone_at=models.DateTimeField(null=True),
                    superseded=models.PositiveBigIntegerField(db_default=0, default=0),
                    refused_since=models.DateTimeField(null=True),
                    position=models.BigIntegerField(db_default=0, default=0),
                    notices=_list(models.CharField(max_length=50)),
                    former_until=models.BigIntegerField(null=True),
                ),
            ),
            Gently(['hour'], *_add('hour', superseded=models.PositiveIntegerField(db_default=0, default=0))),
            Gently(
                ['delivery'],
                *_add(
                    'delivery',
                    lapses=models.SmallIntegerField(db_default=0, default=0),
                    span=models.JSONField(null=True),
                    expanded=_flag(),
                    backfill=_flag(),
                    change_set=models.BigIntegerField(null=True),
                    part=models.SmallIntegerField(null=True),
                    parts=models.SmallIntegerField(null=True),
                    change_count=models.IntegerField(null=True),
                    lead=models.BigIntegerField(null=True),
                    position=models.BigIntegerField(null=True),
                    waits_until=models.DateTimeField(null=True),
                ),
                migrations.RunSQL(KEEP_NO_FIGURES.format(**OF_DELIVERIES), KEEP_FIGURES.format(**OF_DELIVERIES)),
            ),
            Gently(
                ['attempt'],
                *_add(
                    'attempt',
                    request_body=models.BinaryField(null=True),
                    made_from=models.JSONField(null=True),
                    members=ArrayField(models.BigIntegerField(), null=True),
                ),
                migrations.RunSQL(STORE_AS_IS, migrations.RunSQL.noop),
                migrations.RunSQL(VACUUM_ATTEMPTS, migrations.RunSQL.noop),
            ),
        )
    ]
