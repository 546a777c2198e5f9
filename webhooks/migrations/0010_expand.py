import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """What a webhook wants expanded, and what was; changes of components. Constant defaults: no table is written anew."""

    dependencies = [('webhooks', '0009_superseded')]

    operations = [
        migrations.AddField(
            'webhook',
            'expand',
            django.contrib.postgres.fields.ArrayField(
                models.CharField(max_length=150), blank=True, default=list, db_default=[]
            ),
        ),
        migrations.AddIndex(
            'webhook',
            models.Index(fields=['id'], condition=~models.Q(expand=[]), name='webhooks_webhook_expand'),
        ),
        migrations.AddField('webhook', 'include_components', models.BooleanField(default=False, db_default=False)),
        migrations.AddField('event', 'caused_by', models.JSONField(null=True)),
        migrations.AddField('event', 'expanded', models.TextField(null=True)),
        migrations.AddField('event', 'expanded_types', models.JSONField(null=True)),
        migrations.AddField('delivery', 'expanded', models.BooleanField(default=False, db_default=False)),
    ]
