"""Our RQ queue in Redis. It carries no truth: a job says only that there is something to do in PostgreSQL."""

import logging
import time
from functools import cache

import django_rq
from django.conf import settings
from django_rq.connection_utils import get_redis_connection
from netbox.settings_utils import parse_job_timeout
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue, Worker
from rq.exceptions import DeserializationError
from rq.job import Job

from .. import conf
from ..constants import JOB_TIME, MAX_TIMEOUT

logger = logging.getLogger('webhooks.queue')

JOB = 'webhooks.worker.drain'
TOKEN = 'webhooks:woken:{queue}'
# A wake-up that was lost with its worker holds back the next one for this long, in seconds.
TOKEN_TTL = 30
CONNECT_TIMEOUT = 0.5
ANSWER_TIMEOUT = 1.0
# A wake-up that takes longer, in seconds, counts as a failure for those who come after it. A Redis that is well takes a
# few milliseconds, and one far away (three round trips of 50 ms) stays below it. Without a wake-up the worker's timer
# finds a change after a second on average: nobody should wait longer than a fraction of that to save it.
SLOW = 0.25
# After a failure nobody in this process waits for Redis again for this long, in seconds.
PAUSE = 10

_unreachable_until = 0.0


def get() -> Queue:
    """Return the queue, with the patience that workers have."""
    return django_rq.get_queue(conf.get().queue, connection=_patient_connection())


def job_timeout(queue: Queue) -> int:
    """Return the timeout of our jobs in the queue: its own, if that is long enough. A negative one is none.

    A job records whatever it has begun (engine/job_time.py): a request that hangs may keep it beyond its own time, and
    another may begin to hang at the end of that.
    """
    longest = parse_job_timeout(settings.RQ_DEFAULT_TIMEOUT) or MAX_TIMEOUT
    needed = int(JOB_TIME) + 2 * min(longest, MAX_TIMEOUT) + 60
    return queue._default_timeout if queue._default_timeout < 0 else max(queue._default_timeout, needed)


def function(job: Job) -> str:
    """Return the dotted name of what a job runs, '' where that cannot be read: such a job is not ours."""
    try:
        return job.func_name
    except DeserializationError:
        return ''


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
    connection = _impatient_connection()
    # The worker deletes the token before it looks for work, so whatever was committed before this SET is seen.
    if connection.set(_token(), 1, nx=True, ex=TOKEN_TTL):
        queue = django_rq.get_queue(conf.get().queue, connection=connection)
        queue.enqueue_call(JOB, timeout=job_timeout(queue), description='Send webhooks', failure_ttl=3600)


def accept() -> None:
    """Called by a worker before it looks for work: from now on a wake-up makes a new job."""
    get().connection.delete(_token())


def count_workers() -> int | None:
    """Return how many live workers serve our queue, None where Redis cannot be reached."""
    name = conf.get().queue
    try:
        # A connection of its own, for RQ's Worker gives the one that it is given a worker's patience.
        return sum(name in worker.queue_names() for worker in Worker.all(connection=_connect()))
    except (RedisError, OSError):
        return None


def _token() -> str:
    return TOKEN.format(queue=conf.get().queue)


@cache
def _patient_connection() -> Redis:
    """The connection of this process for those who may wait."""
    return get_redis_connection(settings.RQ_QUEUES[conf.get().queue])


@cache
def _impatient_connection() -> Redis:
    """The connection of this process for those who must not wait."""
    return _connect()


def _connect() -> Redis:
    """Return a connection that gives up soon: a stock one tries for seconds."""
    limits = {
        'socket_connect_timeout': CONNECT_TIMEOUT,
        'socket_timeout': ANSWER_TIMEOUT,
        'retry': Retry(NoBackoff(), 0),
    }
    config = dict(settings.RQ_QUEUES[conf.get().queue])
    if 'SENTINELS' in config:
        config['SENTINEL_KWARGS'] = {**config.get('SENTINEL_KWARGS', {}), **limits}
    connection = get_redis_connection(config)
    connection.connection_pool.connection_kwargs.update(limits)
    return connection
