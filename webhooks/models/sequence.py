"""The one sequence that events and subscriptions draw from. No number comes twice, whatever becomes of the database.

PostgreSQL keeps it apart from the tables. A restore takes it back, a reinstall begins it anew, and what copies rows
alone (logical replication, `loaddata`) leaves it behind the numbers in use. Receivers would take new changes for old
ones then, and no subscription would cover them. So each start of a worker sets the sequence to what a clock says, which
is above all that was drawn before: nobody draws a million numbers a second.
"""

from django.db import connection

SEQUENCE = 'webhooks_event_sequence'

# Microseconds since 2020, which stay below 2**53 until the year 2305: JavaScript reads greater numbers of JSON wrongly.
CLOCK = "(extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01 00:00Z') * 1000000)::bigint"

# One at a time, and each reads the clock when it has the lock: one that has read it earlier would set the sequence
# back. Others go on drawing meanwhile. So a sequence that is less than a second behind is left as it is: they might
# pass the clock before it is set.
ADVANCE = f"""
    SELECT pg_advisory_lock(hashtext('{SEQUENCE}'));
    SELECT setval('{SEQUENCE}', {CLOCK}) FROM {SEQUENCE} WHERE last_value < {CLOCK} - 1000000;
    SELECT pg_advisory_unlock(hashtext('{SEQUENCE}'))"""


def draw() -> int:
    """Return the next value. Values are unique and grow; a transaction that is rolled back leaves a gap."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT nextval(%s)', [SEQUENCE])
        return cursor.fetchone()[0]


def advance() -> None:
    """Set the sequence to what the clock says, if it is below that."""
    with connection.cursor() as cursor:
        cursor.execute(ADVANCE)
