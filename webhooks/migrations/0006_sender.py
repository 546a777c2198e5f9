"""What the sender has to know of a worker that stopped, and of a webhook with the id of a deleted one."""

from django.db import migrations, models

from webhooks.migrations._gently import Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0004_engine')]

    operations = [
        Gently(
            ['event'], migrations.AddField('event', 'stopped', models.BooleanField(db_default=False, default=False))
        ),
        Gently(
            ['delivery'],
            migrations.AddField('delivery', 'stopped', models.BooleanField(db_default=False, default=False)),
        ),
        Gently(['health'], migrations.AddField('health', 'former_until', models.BigIntegerField(null=True))),
    ]
