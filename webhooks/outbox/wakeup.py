"""Wakes a worker with an RQ job without data, and soon gives up on a Redis that is slow or away."""

import logging
import time

from redis import RedisError

from .. import conf
from .redis_queue import connection, get, job_timeout

logger = logging.getLogger('webhooks.queue')

# The function that RQ runs.
JOB = 'webhooks.worker.drain'
# Set while a wake-up waits for a worker. It has RQ's prefix, because a Redis user may have access to that only.
TOKEN = 'rq:webhooks:woken:{queue}'
# If a wake-up gets lost, its token stays, and no other is enqueued before this time is over.
TOKEN_TTL_SECONDS = 30
# A slower wake-up counts as a failure: the user waited for it, and the worker's own timer takes about a second.
SLOW_WAKEUP_SECONDS = 0.25
# After a failure, saves do not ask Redis for this time.
REDIS_PAUSE_SECONDS = 10

_unreachable_until = 0.0


def wake() -> bool:
    """Enqueue a job that wakes a worker, unless one is waiting already. Never raises.

    False: Redis failed, or has failed lately and is not asked. Then the worker's own timer finds the work.
    """
    start = time.monotonic()
    if start < _unreachable_until:
        return False
    try:
        _enqueue_once()
    except (RedisError, OSError) as error:
        _pause('failed', error)
        return False
    if (took := time.monotonic() - start) > SLOW_WAKEUP_SECONDS:
        _pause('slow', f'Redis took {took:.2f} s')
    return True


def _pause(result: str, reason: object) -> None:
    global _unreachable_until  # noqa: PLW0603  (it belongs to the process)
    _unreachable_until = time.monotonic() + REDIS_PAUSE_SECONDS
    logger.warning('wake_up=%s reason="%s" (events are recorded, and running workers send them)', result, reason)


def _enqueue_once() -> None:
    # The worker deletes the token before it looks for work.
    if connection().set(_token(), 1, nx=True, ex=TOKEN_TTL_SECONDS):
        get().enqueue_call(JOB, timeout=job_timeout(), description='Send webhooks', failure_ttl=3600)


def accept() -> None:
    """Delete the token, so that the next change enqueues a job again. Raises RedisError.

    A worker calls it before it looks for work. If it looked first, a change in between would wake nobody.
    """
    connection().delete(_token())


def _token() -> str:
    return TOKEN.format(queue=conf.get().queue)
