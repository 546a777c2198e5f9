"""Advisory locks of PostgreSQL: held until the transaction ends, and gone with the connection of a dead holder."""

from datetime import datetime

from django.db import connection
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from .models import Webhook

# One dispatcher at a time, so that the deliveries of an object are made in the order of its events.
DISPATCH = 0x77656268
# One at a time claims, records, lines up, reopens and prunes deliveries: a few milliseconds each, and no deadlock
# among them.
LINE = 0x77656269


def acquire(key: int) -> datetime:
    """Wait for the lock, and return PostgreSQL's time once it is held."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_advisory_xact_lock(%s), clock_timestamp()', [key])
        return cursor.fetchone()[1]


def try_acquire(key: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_try_advisory_xact_lock(%s)', [key])
        return cursor.fetchone()[0]


@receiver(pre_delete, sender=Webhook, dispatch_uid='webhooks.line')
def _webhook_goes(using: str, **kwargs: object) -> None:
    """Its deliveries go with it, in an order in which no worker writes them: without this lock, into a deadlock."""
    if using == connection.alias:
        acquire(LINE)
