"""The wake-up: an RQ job that carries no truth. It says only that there is something to do in PostgreSQL."""

import logging
import time

from redis import RedisError

from .. import conf
from .queue import get, impatient_connection, job_timeout

logger = logging.getLogger('webhooks.queue')

JOB = 'webhooks.worker.drain'
# Below RQ's prefix, as all keys of ours: a Redis user may have RQ's keys alone.
TOKEN = 'rq:webhooks:woken:{queue}'
# A wake-up that was lost with its worker holds back the next one for this long, in seconds.
TOKEN_TTL = 30
# A wake-up that takes longer, in seconds, counts as a failure for those who come after it. A Redis that is well takes a
# few milliseconds, and one far away (three round trips of 50 ms) stays below it. Without a wake-up the worker's timer
# finds a change after a second on average: nobody should wait longer than a fraction of that to save it.
SLOW = 0.25
# After a failure nobody in this process waits for Redis again for this long, in seconds.
PAUSE = 10

_unreachable_until = 0.0


def wake(*, patient: bool = False) -> bool:
    """Let a worker look for work, unless one has been told already. Never raises and never waits long.

    `patient`: nobody waits for the caller, so a Redis that is slow is asked again the next time.
    Returns False where Redis cannot be reached or was slow just now: the worker's timer finds the work later.
    """
    start = time.monotonic()
    if start < _unreachable_until:
        return False
    try:
        _enqueue_once()
    except (RedisError, OSError) as error:
        _pause('failed', error)
        return False
    if not patient and (took := time.monotonic() - start) > SLOW:
        _pause('slow', f'Redis took {took:.2f} s')
    return True


def _pause(result: str, reason: object) -> None:
    """Open the circuit breaker of this process."""
    global _unreachable_until  # noqa: PLW0603  (it belongs to the process)
    _unreachable_until = time.monotonic() + PAUSE
    logger.warning('wake_up=%s reason="%s" (events are safe in the database and go out later)', result, reason)


def _enqueue_once() -> None:
    connection = impatient_connection()
    # The worker deletes the token before it looks for work, so whatever was committed before this SET is seen.
    if connection.set(_token(), 1, nx=True, ex=TOKEN_TTL):
        queue = get(connection)
        queue.enqueue_call(JOB, timeout=job_timeout(queue), description='Send webhooks', failure_ttl=3600)


def accept() -> None:
    """Called by a worker before it looks for work: from now on a wake-up makes a new job."""
    get().connection.delete(_token())


def _token() -> str:
    return TOKEN.format(queue=conf.get().queue)
