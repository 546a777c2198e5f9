"""The sequence that numbers events and subscriptions.

After a restore, numbers would repeat: receivers would ignore changes, and no subscription would cover them. So each
worker moves the sequence up to a clock, whenever it has connected. Nobody draws a million numbers a second.
"""

from django.db import connection

SEQUENCE = 'webhooks_event_sequence'

# The present time in microseconds since 2020, as SQL. JavaScript reads JSON numbers up to 2**53 exactly: until 2305.
CLOCK_MICROSECONDS = "(extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01 00:00Z') * 1000000)::bigint"

# Move the sequence up to the clock. If two workers read the clock without a lock, the slower one would move the
# sequence back. Others may draw meanwhile, so a lag below one second stays. Both statements are one transaction: a lock
# of the session would stay with a pooler's connection after an error, and no worker could start.
ADVANCE = f"""
    SELECT pg_advisory_xact_lock(hashtext('{SEQUENCE}'));
    SELECT setval('{SEQUENCE}', {CLOCK_MICROSECONDS}) FROM {SEQUENCE}
    WHERE last_value < {CLOCK_MICROSECONDS} - 1000000"""


def draw() -> int:
    """Return the next number of the sequence. A rollback leaves a gap."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT nextval(%s)', [SEQUENCE])
        return cursor.fetchone()[0]


def advance() -> None:
    """Move the sequence up to the clock if it lags by more than a second. Dispatchers call it in each new session."""
    with connection.cursor() as cursor:
        cursor.execute(ADVANCE)
