"""An index over the events of backfills that are not dispatched yet: others wait while they are counted.

It is built while NetBox goes on saving. One that a build has left when it was broken off is of no use: it goes first.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

DROP = 'DROP INDEX CONCURRENTLY IF EXISTS webhooks_event_backfill'


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0015_overdue')]

    operations = [
        migrations.RunSQL(DROP, migrations.RunSQL.noop),
        AddIndexConcurrently(
            'event',
            models.Index(
                fields=['backfill_for'],
                condition=models.Q(dispatched_at=None, backfill_for__isnull=False),
                name='webhooks_event_backfill',
            ),
        ),
    ]
