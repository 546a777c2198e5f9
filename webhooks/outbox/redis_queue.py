"""Gives the RQ queue that wakes workers, over Redis connections that give up soon: saves must not wait for Redis.

The queue is the setting `queue`.
"""

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
from ..constants import JOB_SECONDS, MAX_TIMEOUT_SECONDS

# A stock connection waits for ever. With a Redis that is away, a save would hang.
REDIS_CONNECT_SECONDS = 0.5
REDIS_ANSWER_SECONDS = 1.0


def get() -> Queue:
    """Return our RQ queue, over `connection()`. Reading it may raise RedisError."""
    return django_rq.get_queue(conf.get().queue, connection=connection())


def job_timeout() -> int:
    """Return how long RQ lets one of our jobs run, in seconds; -1 for ever.

    When the job's own time is over, a request may still hang until its timeout. Another may begin to hang then.
    Therefore both timeouts are added.
    """
    own = parse_job_timeout(settings.RQ_QUEUES[conf.get().queue].get('DEFAULT_TIMEOUT'))
    longest = parse_job_timeout(settings.RQ_DEFAULT_TIMEOUT) or MAX_TIMEOUT_SECONDS
    return -1 if own is None else max(own, int(JOB_SECONDS) + 2 * min(longest, MAX_TIMEOUT_SECONDS) + 60)


def function(job: Job) -> str:
    """Return the dotted name of the job's function; '' if RQ cannot read the job, which then is not ours."""
    try:
        return job.func_name
    except DeserializationError:
        return ''


def count_workers() -> int | None:
    """Return how many RQ workers serve our queue. None: Redis does not answer."""
    found = workers()
    return None if found is None else len(found)


def workers() -> list[Worker] | None:
    """Return the RQ workers that serve our queue. None: Redis does not answer."""
    name = conf.get().queue
    try:
        # RQ's Worker changes the timeouts of its connection. So it gets one of its own.
        return [worker for worker in Worker.all(connection=connect(name)) if name in worker.queue_names()]
    except (RedisError, OSError):
        return None


@cache
def connection() -> Redis:
    """Return this process's connection to the Redis of our queue. It is made at the first call."""
    return connect(conf.get().queue)


def connect(queue: str) -> Redis:
    """Make a connection to the Redis of the RQ queue `queue`. It does not try again after an error."""
    limits = {
        'socket_connect_timeout': REDIS_CONNECT_SECONDS,
        'socket_timeout': REDIS_ANSWER_SECONDS,
        'retry': Retry(NoBackoff(), 0),
    }
    config = dict(settings.RQ_QUEUES[queue])
    if 'SENTINELS' in config:
        config['SENTINEL_KWARGS'] = {**config.get('SENTINEL_KWARGS', {}), **limits}
    made = get_redis_connection(config)
    made.connection_pool.connection_kwargs.update(limits)
    return made
