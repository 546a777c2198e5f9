"""Advisory locks of PostgreSQL: held until the transaction ends, and gone with the connection of a dead holder."""

from django.db import connection

# One dispatcher at a time, so that the deliveries of an object are made in the order of its events.
DISPATCH = 0x77656268
# One at a time claims, records and lines up deliveries: a few milliseconds each, and no deadlock among them.
LINE = 0x77656269


def acquire(key: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_advisory_xact_lock(%s)', [key])


def try_acquire(key: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_try_advisory_xact_lock(%s)', [key])
        return cursor.fetchone()[0]
