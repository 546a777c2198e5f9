"""Who is at work, and each worker's work in hand. A worker whose row is gone or `dead` records nothing."""

import math
import time

from ..interruptions import Lost
from ..outbox.scope import is_migrated
from . import sql

# Roles. An ending sender takes no lanes, and keeps those with work in hand.
SEND, DISPATCH, SUSPECTS, ENDING = 'send', 'dispatch', 'suspects', 'ending'

# Seconds after a beat: a worker is alive; it may begin requests.
ALIVE, BEGINS = 10.0, 2.0

# The error of work in hand when a worker stopped, beside the column `stopped`. Twice in a row makes it suspect.
STOPPED = 'its worker stopped, or was cut off, before an outcome was recorded'

# A suspect's `lapses`, one more for each death by it; at GIVEN_UP it fails.
SUSPECT, GIVEN_UP = 1, 4

# Before, workers of 1.0.0 work.
IS_UPGRADED = "SELECT to_regclass('webhooks_batchitem') IS NULL"

BEGIN = """
    INSERT INTO webhooks_worker (name, role, alive_until)
    VALUES (%(name)s, %(role)s, clock_timestamp() + make_interval(secs => %(seconds)s)) RETURNING id"""

BEAT = """
    UPDATE webhooks_worker
    SET role = %(role)s, alive_until = greatest(alive_until, clock_timestamp() + make_interval(secs => %(seconds)s)),
        events = coalesce(%(events)s::bigint[], events), deliveries = coalesce(%(deliveries)s::bigint[], deliveries)
    WHERE id = %(id)s AND role <> 'dead'"""


def may_begin() -> bool:
    return is_migrated() and sql.fetch_value(IS_UPGRADED)


class Member:
    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.pk: int | None = None
        # Nothing may begin after this, by time.monotonic().
        self.until = -math.inf
        self._next = self.until

    def begin(self) -> None:
        began = time.monotonic()
        self.pk = sql.fetch_value(BEGIN, {'name': self.name, 'role': self.role, 'seconds': ALIVE})
        self.until = self._next = began + BEGINS

    def beat(
        self,
        *,
        events: list[int] | None = None,
        deliveries: list[int] | None = None,
        seconds: float = ALIVE,
    ) -> None:
        """None: as before. Raises Lost."""
        began = time.monotonic()
        said = {'id': self.pk, 'role': self.role, 'seconds': seconds, 'events': events, 'deliveries': deliveries}
        if not sql.execute(BEAT, said):
            raise Lost(self.name)
        self._next = began + BEGINS

    def confirm(self) -> None:
        self.until = self._next

    def end(self) -> None:
        """Its lanes are free."""
        sql.execute("DELETE FROM webhooks_worker WHERE id = %s AND role <> 'dead'", [self.pk])
