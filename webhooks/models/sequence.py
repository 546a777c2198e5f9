"""The sequence for events and subscriptions.

After a restore numbers would repeat: receivers would ignore changes, and no subscription would cover them. So each
starting worker moves it up to a clock. Nobody draws a million a second.
"""

from django.db import connection

SEQUENCE = 'webhooks_event_sequence'

# Microseconds since 2020. JavaScript reads JSON numbers up to 2**53 exactly: until the year 2305.
CLOCK = "(extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01 00:00Z') * 1000000)::bigint"

# Read the clock under the lock, else an earlier time moves the sequence back. Others may draw meanwhile, so a lag below
# one second stays.
ADVANCE = f"""
    SELECT pg_advisory_lock(hashtext('{SEQUENCE}'));
    SELECT setval('{SEQUENCE}', {CLOCK}) FROM {SEQUENCE} WHERE last_value < {CLOCK} - 1000000;
    SELECT pg_advisory_unlock(hashtext('{SEQUENCE}'))"""


def draw() -> int:
    """A rollback leaves a gap."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT nextval(%s)', [SEQUENCE])
        return cursor.fetchone()[0]


def advance() -> None:
    with connection.cursor() as cursor:
        cursor.execute(ADVANCE)
