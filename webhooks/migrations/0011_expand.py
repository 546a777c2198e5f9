import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """What a webhook wants expanded, and what was. Constant defaults: no table is written anew."""

    dependencies = [('webhooks', '0008_statistics')]

    operations = [
        migrations.AddField(
            'webhook',
            'expand',
            django.contrib.postgres.fields.ArrayField(
                models.CharField(max_length=150), blank=True, default=list, db_default=[]
            ),
        ),
        migrations.AddField('event', 'expanded', models.TextField(null=True)),
        migrations.AddField('event', 'expanded_types', models.JSONField(null=True)),
        migrations.AddField('delivery', 'expanded', models.BooleanField(default=False, db_default=False)),
    ]
