"""The table of definitions."""

import django.db.models.deletion
import netbox.models.deletion
import taggit.managers
import utilities.json
from django.conf import settings
from django.db import migrations, models

from webhooks.migrations._gently import Gently, Once


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0003_columns'), ('core', '0023_datasource_sync_permission')]

    operations = [
        Once(
            Gently(
                [],
                migrations.CreateModel(
                    'Definition',
                    [
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                        ('created', models.DateTimeField(auto_now_add=True, null=True)),
                        ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                        (
                            'custom_field_data',
                            models.JSONField(blank=True, default=dict, encoder=utilities.json.CustomFieldJSONEncoder),
                        ),
                        ('name', models.CharField(max_length=100, unique=True)),
                        ('path', models.CharField(max_length=300)),
                        ('prune', models.BooleanField(default=False)),
                        ('apply_on_sync', models.BooleanField(default=False)),
                        (
                            'applied_by',
                            models.ForeignKey(
                                editable=False,
                                null=True,
                                on_delete=django.db.models.deletion.SET_NULL,
                                related_name='+',
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                        (
                            'data_source',
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.PROTECT, related_name='+', to='core.datasource'
                            ),
                        ),
                        ('tags', taggit.managers.TaggableManager(through='extras.TaggedItem', to='extras.Tag')),
                    ],
                    {
                        'ordering': ('name',),
                        'verbose_name': 'definition',
                        'verbose_name_plural': 'definitions',
                    },
                    bases=(netbox.models.deletion.DeleteMixin, models.Model),
                ),
            )
        )
    ]
