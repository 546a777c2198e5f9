import django.db.models.deletion
from django.db import migrations, models

# What waited for another one is looked at anew by the next claim, which parks it where it still has to wait.
UNPARK = "UPDATE webhooks_delivery SET due_at = now() WHERE status = 'pending' AND due_at IS NULL"
# A webhook that was made without signals (bulk_create) has no row yet, and so no lane.
MAKE_LANES = """
    INSERT INTO webhooks_health (webhook_id, delivered, failed, last_error, unreachable, probes, latency, latency_sum,
        tokens)
    SELECT id, 0, 0, '', 0, 0, array_fill(0, ARRAY[12]), 0, 0 FROM webhooks_webhook ON CONFLICT DO NOTHING"""


class Migration(migrations.Migration):
    """One lock a webhook. Without the table of waits a worker of an older version ends with an error: it knows no lanes.

    The columns are null or have a `db_default`: a web process of an older version goes on recording events.
    """

    dependencies = [('webhooks', '0003_lapses')]

    operations = [
        migrations.AlterField(
            model_name='delivery',
            name='webhook',
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name='deliveries',
                to='webhooks.webhook',
            ),
        ),
        migrations.AlterField(
            model_name='batchitem',
            name='webhook',
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name='+',
                to='webhooks.webhook',
            ),
        ),
        migrations.AlterField(
            model_name='health',
            name='webhook',
            field=models.OneToOneField(
                db_constraint=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                primary_key=True,
                related_name='health',
                serialize=False,
                to='webhooks.webhook',
            ),
        ),
        migrations.AddField('delivery', 'overtake_at', models.DateTimeField(null=True)),
        migrations.AddField('health', 'gone_at', models.DateTimeField(null=True)),
        migrations.DeleteModel('Wait'),
        migrations.RunSQL(UNPARK, migrations.RunSQL.noop),
        migrations.RunSQL(MAKE_LANES, migrations.RunSQL.noop),
        # At the end: from here on saves wait. Their index comes in 0014.
        migrations.AddField('event', 'lease', models.UUIDField(null=True)),
        migrations.AddField('event', 'lease_until', models.DateTimeField(null=True)),
        migrations.AddField('event', 'dispatch_count', models.PositiveSmallIntegerField(db_default=0, default=0)),
    ]
