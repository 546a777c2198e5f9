"""A feed: a webhook without a URL. Its deliveries have numbers, by which readers go on."""

from django.db import migrations, models
from django.db.models import Q

from webhooks.migrations._gently import BuildUnique, Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0003_engine')]

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
        Gently(['health'], migrations.AddField('health', 'position', models.BigIntegerField(db_default=0, default=0))),
        Gently(['delivery'], migrations.AddField('delivery', 'position', models.BigIntegerField(null=True))),
        BuildUnique(
            'delivery',
            models.UniqueConstraint(
                fields=['webhook', 'position'],
                condition=Q(position__isnull=False),
                name='webhooks_delivery_position',
            ),
        ),
    ]
