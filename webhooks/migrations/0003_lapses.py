from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """Leases that ran out are counted. A worker of 1.0.0 that still runs knows nothing of it: hence the `db_default`."""

    dependencies = [('webhooks', '0002_sequence')]

    operations = [
        migrations.AddField(
            model_name='delivery',
            name='lapses',
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(
                condition=Q(status='pending') & Q(lapses__gt=0),
                fields=['webhook', 'due_at'],
                name='webhooks_delivery_lapsed',
            ),
        ),
    ]
