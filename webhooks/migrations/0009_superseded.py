from django.db import migrations, models


class Migration(migrations.Migration):
    """Deliveries that a later one makes needless are counted. A worker of an older version knows nothing of them."""

    dependencies = [('webhooks', '0008_statistics')]

    operations = [
        migrations.AddField('health', 'superseded', models.PositiveBigIntegerField(db_default=0, default=0)),
        migrations.AddField('hour', 'superseded', models.PositiveIntegerField(db_default=0, default=0)),
    ]
