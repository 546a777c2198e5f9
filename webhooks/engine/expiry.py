"""Expiry: a delivery that could not be delivered within `expire_after` fails, whatever happened."""

from collections import Counter
from datetime import datetime, timedelta

from django.db import connection

from .. import conf
from . import ledger, locks, ordering

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = 'it expired before it could be delivered' || CASE WHEN error = '' THEN '' ELSE '; last: ' || error END
    WHERE id IN (SELECT id FROM webhooks_delivery WHERE status = 'pending' AND expires_at < now() LIMIT 1000)
    RETURNING id, webhook_id"""


def expire() -> bool:
    """Fail what has expired, some at a time. Returns whether there was any."""
    with locks.turn() as now:
        with connection.cursor() as cursor:
            cursor.execute(EXPIRE)
            expired = cursor.fetchall()
        ordering.close_up([pk for pk, _webhook_id in expired])
        ledger.note_failed(Counter(webhook_id for _pk, webhook_id in expired), now)
    return bool(expired)


def expiry(now: datetime) -> datetime:
    """Return when a delivery that is made or sent again now expires."""
    return now + timedelta(seconds=conf.get().expire_after)
