"""Wakes a worker by an RQ job without data."""

import logging
import time

from redis import RedisError

from .. import conf
from .redis_queue import connection, get, job_timeout

logger = logging.getLogger('webhooks.queue')

JOB = 'webhooks.worker.drain'
# A Redis user may have access to RQ's prefix only.
TOKEN = 'rq:webhooks:woken:{queue}'
# Seconds. A lost wake-up delays the next one.
TOKEN_TTL_SECONDS = 30
# Seconds; slower wake-ups are failures. The worker's timer takes about one.
SLOW_WAKEUP_SECONDS = 0.25
# Seconds without wake-ups after a failure.
REDIS_PAUSE_SECONDS = 10

_unreachable_until = 0.0


def wake() -> bool:
    """Wake a worker, unless one is already told. Never raises. False: Redis failed, so the worker's timer will do."""
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
    connection().delete(_token())


def _token() -> str:
    return TOKEN.format(queue=conf.get().queue)
