import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """When a stretch was opened. Those that are there get the time of the migration: they were open by then."""

    dependencies = [('webhooks', '0004_lanes')]

    operations = [
        migrations.AddField(
            'subscription', 'opened_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())
        ),
    ]
