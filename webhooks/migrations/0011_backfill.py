import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """Backfills. New columns are null or have a `db_default`: a process of an older version goes on without them."""

    dependencies = [('webhooks', '0010_expand')]

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
        migrations.CreateModel(
            'Backfill',
            [
                (
                    'webhook',
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=models.DO_NOTHING,
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
        migrations.AddField('event', 'backfill_for', models.BigIntegerField(null=True)),
        migrations.AddField('delivery', 'backfill', models.BooleanField(db_default=False, default=False)),
        # The index of these deliveries comes in 0014.
    ]
