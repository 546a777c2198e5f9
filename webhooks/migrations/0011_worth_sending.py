"""Which changes are worth sending: columns of webhooks and subscriptions. What is stored goes on as before."""

import django.contrib.postgres.fields
from django.db import migrations, models
from django.db.models import Q

from webhooks.migrations._gently import BuildIndex, Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0004_engine')]

    operations = [
        Gently(
            ['subscription'],
            migrations.AddField('subscription', 'unchanged', models.BooleanField(default=True, db_default=True)),
        ),
        Gently(
            ['event'],
            migrations.AddField('event', 'trace', models.JSONField(null=True)),
        ),
        Gently(
            ['webhook'],
            migrations.AddField('webhook', 'only_real_changes', models.BooleanField(default=True, db_default=False)),
            migrations.AddField(
                'webhook',
                'only_if_changed',
                django.contrib.postgres.fields.ArrayField(
                    models.CharField(max_length=150), blank=True, default=list, db_default=[]
                ),
            ),
        ),
        BuildIndex(
            'subscription',
            models.Index(
                fields=['object_type'], condition=Q(until=None, unchanged=True), name='webhooks_subscription_any_save'
            ),
        ),
    ]
