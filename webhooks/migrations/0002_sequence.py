from django.db import migrations

QUEUE_TABLES = ('webhooks_event', 'webhooks_delivery', 'webhooks_wait')


class Migration(migrations.Migration):
    """What the models cannot say: the sequence, and vacuum settings for tables that are used as queues."""

    dependencies = [('webhooks', '0001_initial')]

    operations = [
        migrations.RunSQL('CREATE SEQUENCE webhooks_event_sequence', 'DROP SEQUENCE webhooks_event_sequence'),
        *(
            # Dead rows at the head of a queue slow down every claim: vacuum after a thousand, not after a fifth.
            migrations.RunSQL(
                f'ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)',
                migrations.RunSQL.noop,
            )
            for table in QUEUE_TABLES
        ),
    ]
