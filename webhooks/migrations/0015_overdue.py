"""The index by which deliveries expire begins with the webhook.

What has expired is looked for webhook by webhook: somebody may hold the lane of one of which a million has. The index
is built while NetBox goes on saving. One that a build has left when it was broken off is of no use: it goes first.
"""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models

DROP = 'DROP INDEX CONCURRENTLY IF EXISTS webhooks_delivery_overdue'


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0014_indexes')]

    operations = [
        migrations.RunSQL(DROP, migrations.RunSQL.noop),
        AddIndexConcurrently(
            'delivery',
            models.Index(
                fields=['webhook', 'expires_at', 'id'],
                condition=models.Q(status='pending'),
                name='webhooks_delivery_overdue',
            ),
        ),
        RemoveIndexConcurrently('delivery', 'webhooks_delivery_expires'),
    ]
