"""PostgreSQL keeps no figures of what is waiting.

In a quiet moment they say that nothing is. After an import it then reads all that waits for each event that it looks
up, in whichever index it finds: a claim among 20,000 took seven seconds. Without figures it takes a two-hundredth of
the table for waiting, and uses the indexes as they are meant. Naming the type anew drops the figures that are there,
and rewrites nothing.
"""

from django.db import migrations

WITHOUT = """
    ALTER TABLE {table} ALTER COLUMN {column} TYPE {type}, ALTER COLUMN {column} SET STATISTICS 0"""
WITH = 'ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1'
COLUMNS = (
    {'table': 'webhooks_event', 'column': 'dispatched_at', 'type': 'timestamp with time zone'},
    {'table': 'webhooks_delivery', 'column': 'status', 'type': 'varchar(10)'},
)


class Migration(migrations.Migration):
    dependencies = [('webhooks', '0007_deletions')]

    operations = [migrations.RunSQL(WITHOUT.format(**one), WITH.format(**one)) for one in COLUMNS]
