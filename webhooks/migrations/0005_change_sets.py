"""Change sets, and endpoints that answer with nothing but failures. What is new is null or has a constant default."""

from django.db import migrations, models
from django.db.models import Q

from webhooks.migrations._gently import BuildIndex, Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0004_credentials')]

    operations = [
        Gently(
            ['webhook'],
            migrations.AddField('webhook', 'change_set', models.BooleanField(db_default=False, default=False)),
        ),
        Gently(['health'], migrations.AddField('health', 'refused_since', models.DateTimeField(null=True))),
        Gently(
            ['delivery'],
            migrations.AddField('delivery', 'change_set', models.BigIntegerField(null=True)),
            migrations.AddField('delivery', 'part', models.SmallIntegerField(null=True)),
            migrations.AddField('delivery', 'parts', models.SmallIntegerField(null=True)),
            migrations.AddField('delivery', 'change_count', models.IntegerField(null=True)),
        ),
        BuildIndex(
            'delivery',
            models.Index(
                fields=['webhook', 'change_set', 'part', 'id'],
                condition=Q(status='pending') & Q(change_set__isnull=False),
                name='webhooks_delivery_change_set',
            ),
        ),
    ]
