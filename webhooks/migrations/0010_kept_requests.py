"""Attempts say what was sent: the body, or what makes it again."""

from django.db import migrations, models

from webhooks.migrations._gently import Gently

# It is compressed already.
STORE_AS_IS = 'ALTER TABLE webhooks_attempt ALTER COLUMN request_body SET STORAGE EXTERNAL'


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('webhooks', '0004_engine')]

    operations = [
        Gently(
            ['attempt'],
            migrations.AddField('attempt', 'request_body', models.BinaryField(null=True)),
            migrations.RunSQL(STORE_AS_IS, migrations.RunSQL.noop),
            migrations.AddField('attempt', 'made_from', models.JSONField(null=True)),
        ),
    ]
