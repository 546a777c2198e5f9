"""What happened to a webhook, for NetBox's event rules."""

import django.contrib.postgres.fields
from django.db import migrations, models

from webhooks.migrations._gently import Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0006_feed')]

    operations = [
        Gently(
            ['health'],
            migrations.AddField(
                'health',
                'news',
                django.contrib.postgres.fields.ArrayField(models.CharField(max_length=50), db_default=[], default=list),
            ),
        ),
    ]
