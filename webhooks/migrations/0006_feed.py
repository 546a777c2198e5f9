"""Feeds: webhooks without a URL, whose deliveries have numbers. And event rules: news of webhooks, and long names."""

import django.contrib.postgres.fields
from django.db import migrations, models
from django.db.models import Q

from webhooks.migrations._gently import BuildIndex, Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0005_change_sets')]

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
                    ('read_feed', 'Read a feed'),
                ],
            },
        ),
        # Of the form alone: the column stays as it is.
        Gently(
            ['webhook'],
            migrations.AlterField('webhook', 'payload_url', models.CharField(blank=True, max_length=500)),
        ),
        Gently(
            ['health'],
            migrations.AddField('health', 'position', models.BigIntegerField(db_default=0, default=0)),
            migrations.AddField(
                'health',
                'news',
                django.contrib.postgres.fields.ArrayField(models.CharField(max_length=50), db_default=[], default=list),
            ),
        ),
        # PostgreSQL rewrites neither the table nor an index for it.
        Gently(['event'], migrations.AlterField('event', 'kind', models.TextField(blank=True))),
        Gently(['delivery'], migrations.AddField('delivery', 'position', models.BigIntegerField(null=True))),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['webhook', 'position'],
                condition=Q(position__isnull=False),
                name='webhooks_delivery_published',
            ),
        ),
    ]
