"""Who is at work, and what each worker has in hand.

Each turn of a worker updates its own row, before it begins anything: alive for ten seconds more, with this in hand. If
the row is gone, somebody has declared the worker dead (rescue.py), and its turn records nothing. A worker begins
nothing after its time is over, by its own clock.
"""

import logging
import math
import time
from collections.abc import Collection

from . import sql

logger = logging.getLogger('webhooks.worker')

# What a process does.
SEND, DISPATCH, SUSPECTS = 'send', 'dispatch', 'suspects'

# Seconds for which a worker is alive after its last turn, and in which a request may begin.
ALIVE, BEGINS = 10.0, 2.0

# The error of what was in hand when a worker stopped. The second time in a row it is a suspect.
STOPPED = 'its worker stopped, or was cut off, before an outcome was recorded'

# The `lapses` of a suspect (process/suspects.py), one more for each process that has died of it. Then it is given up.
SUSPECT, GIVEN_UP = 1, 4

BEGIN = """
    INSERT INTO webhooks_worker (name, role, alive_until)
    VALUES (%(name)s, %(role)s, clock_timestamp() + make_interval(secs => %(seconds)s)) RETURNING id"""

BEAT = """
    UPDATE webhooks_worker
    SET alive_until = greatest(alive_until, clock_timestamp() + make_interval(secs => %(seconds)s)),
        events = coalesce(%(events)s::bigint[], events), deliveries = coalesce(%(deliveries)s::bigint[], deliveries)
    WHERE id = %(id)s AND role <> 'dead'"""

KEEP_ALIVE = """
    UPDATE webhooks_worker
    SET alive_until = greatest(alive_until, clock_timestamp() + make_interval(secs => %(seconds)s))
    WHERE name = %(name)s AND role <> 'dead'"""


class Lost(Exception):
    """Somebody has declared this worker dead: others may have what it had in hand."""


class Member:
    """This process among the workers."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self._role = role
        self.pk: int | None = None
        # When nothing more may begin, by time.monotonic().
        self.until = -math.inf
        self._next = self.until

    def begin(self) -> None:
        """Begin anew, with nothing in hand."""
        began = time.monotonic()
        self.pk = sql.fetch_value(BEGIN, {'name': self.name, 'role': self._role, 'seconds': ALIVE})
        self.until = self._next = began + BEGINS

    def beat(
        self,
        *,
        events: Collection[int] | None = None,
        deliveries: Collection[int] | None = None,
        seconds: float = ALIVE,
    ) -> None:
        """Say that it is alive, and what it has in hand. None: the same as before. Raises Lost."""
        began = time.monotonic()
        parameters = {
            'id': self.pk,
            'seconds': seconds,
            'events': None if events is None else list(events),
            'deliveries': None if deliveries is None else list(deliveries),
        }
        if not sql.execute(BEAT, parameters):
            raise Lost(self.name)
        self._next = began + BEGINS

    def confirm(self) -> None:
        """Its last beat is committed."""
        self.until = self._next

    def end(self) -> None:
        """Leave, with nothing in hand: its lanes are free."""
        sql.execute("DELETE FROM webhooks_worker WHERE id = %s AND role <> 'dead'", [self.pk])


def keep_alive(name: str) -> None:
    """Put the end of a worker off."""
    sql.execute(KEEP_ALIVE, {'name': name, 'seconds': ALIVE})
