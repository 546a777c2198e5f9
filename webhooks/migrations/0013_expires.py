"""The index by which deliveries expire has a second column.

Deliveries expire in the order in which their rows lie, so PostgreSQL took it for a cheap way to all that waits: a claim
among a million read all of them, for a second. By two columns it reckons with single reads, and takes the index by
which they are due.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [('webhooks', '0012_fillfactor')]

    operations = [
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(
                fields=['expires_at', 'id'],
                condition=models.Q(status='pending'),
                name='webhooks_delivery_expires',
            ),
        ),
        migrations.RemoveIndex(model_name='delivery', name='webhooks_delivery_expiry'),
    ]
