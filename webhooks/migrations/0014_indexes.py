"""Indexes over the log are built while NetBox goes on saving.

Each of these was made in a migration that also adds columns to events, and so kept every save of a subscribed model
waiting until it was built. One that a build has left when it was broken off is of no use: it goes first.
"""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models
from django.db.models import Q

DROP = 'DROP INDEX CONCURRENTLY IF EXISTS {name}'


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0013_expires')]

    operations = [
        migrations.RunSQL(DROP.format(name='webhooks_event_chain'), migrations.RunSQL.noop),
        AddIndexConcurrently(
            'event',
            models.Index(
                condition=Q(dispatched_at=None),
                fields=['object_type', 'object_id', 'sequence'],
                name='webhooks_event_chain',
            ),
        ),
        migrations.RunSQL(DROP.format(name='webhooks_delivery_backfill'), migrations.RunSQL.noop),
        AddIndexConcurrently(
            'delivery',
            models.Index(
                fields=['webhook', 'due_at', 'id'],
                condition=Q(backfill=True, status__in=('pending', 'sending')),
                name='webhooks_delivery_backfill',
            ),
        ),
        # Nothing looks at it any more: deletions ask their subscriptions what webhooks want expanded.
        RemoveIndexConcurrently('webhook', 'webhooks_webhook_expand'),
    ]
