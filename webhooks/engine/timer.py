"""The timer: wakes a worker for what no wake-up mentions, such as retries, lapsed leases and lost jobs.

It lives beside each rqworker that serves our queue, so it comes and goes with it, and needs nothing in Redis: after
FLUSHALL it puts the job there again.
"""

import logging
import threading

from django.db import DatabaseError, InterfaceError, connection

from ..outbox import wakeup
from ..outbox.scope import is_migrated, look_again
from . import sql
from .backfill import CAN_GO_ON, LEFT_BEHIND
from .claims import NOT_HELD
from .expiry import IS_OVERDUE

logger = logging.getLogger('webhooks.timer')

# Seconds between two looks.
INTERVAL = 2.0

SOMETHING_TO_DO = f"""
    SELECT EXISTS (
            SELECT 1 FROM webhooks_event WHERE dispatched_at IS NULL AND (lease IS NULL OR lease_until < now())
        )
        OR EXISTS (SELECT 1 FROM webhooks_delivery WHERE status = 'sending' AND lease_until < now())
        OR EXISTS (
            SELECT 1 FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
            WHERE {IS_OVERDUE.format(now='now()')}
        )
        OR EXISTS (
            SELECT 1 FROM webhooks_webhook w LEFT JOIN webhooks_health h ON h.webhook_id = w.id
            WHERE w.enabled AND NOT w.paused AND (
                h.suspended_since IS NULL OR h.probe_at <= now()
                OR w.last_updated > h.last_attempt_at AND w.last_updated <= now()
              )
              AND (
                  SELECT true FROM webhooks_delivery d
                  WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.due_at <= now()
                    AND {NOT_HELD}
                  ORDER BY d.due_at, d.id LIMIT 1
              )
        )
        OR EXISTS (SELECT 1 FROM {CAN_GO_ON})
        OR EXISTS ({LEFT_BEHIND})
        OR EXISTS (
            SELECT 1 FROM webhooks_health h LEFT JOIN webhooks_webhook w ON w.id = h.webhook_id
            WHERE w.id IS NULL OR w.enabled AND h.gone_at > w.last_updated
        )"""


class Timer(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name='webhooks-timer', daemon=True)
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self.look()

    def stop(self) -> None:
        self._stopped.set()

    def look(self) -> None:
        """Wake a worker if there is something to do. Whatever stands in the way now is tried again at the next look."""
        try:
            if something_to_do():
                wakeup.wake(patient=True)
        except (DatabaseError, InterfaceError) as error:
            logger.warning('timer=failed reason="%s"', str(error).strip())
            connection.close()
            look_again()  # the tables may have been removed


def something_to_do() -> bool:
    """Whether a worker would find work. Raises DatabaseError or InterfaceError where PostgreSQL cannot say."""
    if not is_migrated():
        return False  # a worker may be started before the tables are there
    return sql.fetch_value(SOMETHING_TO_DO)
