"""The one sequence that events and subscriptions draw from."""

from django.db import connection

SEQUENCE = 'webhooks_event_sequence'


def draw() -> int:
    """Return the next value. Values are unique and grow; a transaction that is rolled back leaves a gap."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT nextval(%s)', [SEQUENCE])
        return cursor.fetchone()[0]
