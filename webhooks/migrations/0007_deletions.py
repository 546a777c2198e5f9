from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """What of an event's data is not known any more; and which models anybody wants deletions of, looked up quickly."""

    dependencies = [('webhooks', '0006_committed')]

    operations = [
        migrations.AddField('event', 'partial', models.JSONField(null=True)),
        migrations.AddIndex(
            'subscription',
            models.Index(
                fields=['object_type'], condition=Q(until=None, kind='deleted'), name='webhooks_subscription_deletion'
            ),
        ),
    ]
