"""Signatures and credentials as receivers want them. Processes of the version before go on without the new columns."""

import django.contrib.postgres.fields
import netbox.models.deletion
import taggit.managers
import utilities.json
from django.db import migrations, models
from django.db.models import CASCADE, DO_NOTHING

import webhooks.models.fields
from webhooks.migrations._gently import Gently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0003_engine')]

    operations = [
        Gently(['event'], migrations.AddField('event', 'changelog_message', models.TextField(null=True))),
        Gently(
            ['webhook'],
            migrations.AddField('webhook', 'standard_headers', models.BooleanField(default=True, db_default=True)),
            migrations.AddField('webhook', 'success_conditions', models.JSONField(blank=True, null=True)),
        ),
        Gently(
            [],
            migrations.CreateModel(
                'Credential',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                    ('created', models.DateTimeField(auto_now_add=True, null=True)),
                    ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                    (
                        'custom_field_data',
                        models.JSONField(blank=True, default=dict, encoder=utilities.json.CustomFieldJSONEncoder),
                    ),
                    ('name', models.CharField(max_length=150, unique=True)),
                    ('description', models.CharField(blank=True, max_length=200)),
                    ('type', models.CharField(max_length=30)),
                    ('hosts', django.contrib.postgres.fields.ArrayField(models.CharField(max_length=300))),
                    ('username', models.CharField(blank=True, max_length=300)),
                    ('header', models.CharField(blank=True, max_length=100)),
                    ('secret', webhooks.models.fields.SealedField(blank=True)),
                    ('valid_until', models.DateField(blank=True, null=True)),
                    ('token_url', models.CharField(blank=True, max_length=500)),
                    ('scope', models.CharField(blank=True, max_length=500)),
                    ('audience', models.CharField(blank=True, max_length=500)),
                    ('ca_file_path', models.CharField(blank=True, max_length=4096)),
                    ('tags', taggit.managers.TaggableManager(through='extras.TaggedItem', to='extras.Tag')),
                ],
                options={
                    'ordering': ('name',),
                    'verbose_name': 'credential',
                    'verbose_name_plural': 'credentials',
                },
                bases=(netbox.models.deletion.DeleteMixin, models.Model),
            ),
            migrations.CreateModel(
                'AccessToken',
                fields=[
                    (
                        'credential',
                        models.OneToOneField(
                            on_delete=CASCADE,
                            primary_key=True,
                            related_name='access_token',
                            serialize=False,
                            to='webhooks.credential',
                        ),
                    ),
                    ('token', webhooks.models.fields.SealedField(blank=True)),
                    ('fetched_at', models.DateTimeField(null=True)),
                    ('expires_at', models.DateTimeField(null=True)),
                    ('fetching_until', models.DateTimeField(null=True)),
                ],
                options={'verbose_name': 'access token', 'verbose_name_plural': 'access tokens'},
            ),
        ),
        Gently(
            ['webhook'],
            migrations.AddField(
                'webhook',
                'credential',
                models.ForeignKey(
                    blank=True, null=True, on_delete=DO_NOTHING, related_name='+', to='webhooks.credential'
                ),
            ),
        ),
    ]
