from django.db import migrations, models


class Migration(migrations.Migration):
    """What was committed when: null in the rows that are there, and in those that a process of an older version writes."""

    dependencies = [('webhooks', '0005_opened_at')]

    operations = [
        migrations.AddField('event', 'visible', models.TextField(null=True)),
        migrations.AddField('event', 'first_sequence', models.BigIntegerField(null=True)),
        migrations.AddField('event', 'first_visible', models.TextField(null=True)),
        migrations.AddField('subscription', 'opened_by', models.BigIntegerField(null=True)),
        migrations.AddField('subscription', 'closed_by', models.BigIntegerField(null=True)),
        migrations.AddField('subscription', 'cluster', models.BigIntegerField(null=True)),
    ]
