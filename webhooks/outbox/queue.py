"""Our queue in Redis: how it is reached, how long a job may take, who serves it.

What is put into it and when is in wakeup.py and in services/failed_jobs.py.
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
from ..constants import JOB_TIME, MAX_TIMEOUT

# Of those who must not wait, in seconds.
CONNECT_TIMEOUT = 0.5
ANSWER_TIMEOUT = 1.0


def get(connection: Redis | None = None) -> Queue:
    """Return the queue on a connection, by default on one with the patience that workers have."""
    return django_rq.get_queue(conf.get().queue, connection=connection or _patient_connection())


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


def count_workers() -> int | None:
    """Return how many live workers serve our queue, None where Redis cannot be reached."""
    found = workers()
    return None if found is None else len(found)


def workers() -> list[Worker] | None:
    """Return the live workers that serve our queue, None where Redis cannot be reached."""
    name = conf.get().queue
    try:
        # A connection of its own, for RQ's Worker gives the one that it is given a worker's patience.
        return [worker for worker in Worker.all(connection=_connect()) if name in worker.queue_names()]
    except (RedisError, OSError):
        return None


@cache
def _patient_connection() -> Redis:
    """The connection of this process for those who may wait."""
    return get_redis_connection(settings.RQ_QUEUES[conf.get().queue])


@cache
def impatient_connection() -> Redis:
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
