"""Keeps each worker's row: that it is alive, and which events and deliveries it has in hand.

A worker whose row is gone or `dead` was declared dead (rescue.py). It records nothing more, and begins anew.
"""

import math
import time

from ..interruptions import Lost
from ..outbox.scope import is_migrated
from . import sql

# A worker's roles. A sender that is ending takes no lanes, and keeps those with work in hand.
SEND = 'send'
DISPATCH = 'dispatch'
SUSPECTS = 'suspects'
ENDING = 'ending'

# A worker without a heartbeat for this time counts as dead, and others may take its work.
ALIVE_SECONDS = 10.0
# Requests may begin only for this time after a heartbeat. So each of its requests has begun, or never will,
# well before others take the work.
BEGIN_SECONDS = 2.0

# The error of an event or a delivery that was in hand when its worker stopped. Twice in a row makes it suspect.
STOPPED = 'its worker stopped, or was cut off, before an outcome was recorded'

# The `lapses` of a new suspect. Each death of the process that tries it alone adds one; at the third it fails.
SUSPECT = 1
GIVEN_UP = SUSPECT + 3

# Read whether this column of 1.0.0 is gone: before, workers of 1.0.0 may still be at work.
IS_UPGRADED = """
    SELECT NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('webhooks_delivery') AND attname = 'lease_until' AND NOT attisdropped
    )"""

# Register a worker that is alive.
ADD_WORKER = """
    INSERT INTO webhooks_worker (name, role, alive_until)
    VALUES (%(name)s, %(role)s, clock_timestamp() + make_interval(secs => %(seconds)s)) RETURNING id"""

# Record a worker's heartbeat: it is alive for some seconds more, with this work in hand. A dead one stays dead.
BEAT = """
    UPDATE webhooks_worker
    SET role = %(role)s, alive_until = greatest(alive_until, clock_timestamp() + make_interval(secs => %(seconds)s)),
        events = coalesce(%(events)s::bigint[], events), deliveries = coalesce(%(deliveries)s::bigint[], deliveries)
    WHERE id = %(id)s AND role <> 'dead'"""

# Delete a worker that has ended. That frees its lanes.
END_WORKER = "DELETE FROM webhooks_worker WHERE id = %s AND role <> 'dead'"


def may_begin() -> bool:
    """Whether workers may begin: the tables exist, and no migration from 1.0.0 is pending."""
    return is_migrated() and sql.fetch_value(IS_UPGRADED)


class Registration:
    """Keeps the row of this process in the table of workers.

    `name`: unique, as by child.name(). `role`: one of the above; a later one is written by the next beat. `pk`: the
    row's id, None until begin(). `until`: no request may begin after that, by time.monotonic().
    """

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.pk: int | None = None
        self.until = -math.inf
        self._next = self.until

    def begin(self) -> None:
        """Add the worker's row, with nothing in hand: at the start, and again after it was declared dead."""
        began = time.monotonic()
        self.pk = sql.fetch_value(ADD_WORKER, {'name': self.name, 'role': self.role, 'seconds': ALIVE_SECONDS})
        self.until = self._next = began + BEGIN_SECONDS

    def beat(
        self,
        *,
        events: list[int] | None = None,
        deliveries: list[int] | None = None,
        seconds: float = ALIVE_SECONDS,
    ) -> None:
        """Record a heartbeat: it is alive for `seconds` more, with these ids in hand. None: the ids stay as they are.

        Call confirm() after the commit. Raises Lost if this worker was declared dead: roll back, then begin() anew.
        """
        began = time.monotonic()
        parameters = {'id': self.pk, 'role': self.role, 'seconds': seconds, 'events': events, 'deliveries': deliveries}
        if not sql.execute(BEAT, parameters):
            raise Lost(self.name)
        self._next = began + BEGIN_SECONDS

    def confirm(self) -> None:
        """Extend `until` by the last heartbeat, which is committed now."""
        self.until = self._next

    def end(self) -> None:
        """Delete the worker's row, which frees its lanes. Nothing may be in hand."""
        sql.execute(END_WORKER, [self.pk])
