from django.db import migrations, models


class Migration(migrations.Migration):
    """Deliveries that a later one makes needless. Processes of an older version know nothing of them: hence `db_default`.

    Nothing is rewritten: a column is null or has a constant.
    """

    dependencies = [('webhooks', '0008_statistics')]

    operations = [
        migrations.AddField('health', 'superseded', models.PositiveBigIntegerField(db_default=0, default=0)),
        migrations.AddField('hour', 'superseded', models.PositiveIntegerField(db_default=0, default=0)),
        migrations.AddField('webhook', 'latest_only', models.BooleanField(db_default=False, default=False)),
        migrations.AddField('delivery', 'span', models.JSONField(null=True)),
        migrations.AddField('batchitem', 'span', models.JSONField(null=True)),
        migrations.AddField('batchitem', 'superseded', models.BooleanField(db_default=False, default=False)),
    ]
