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

# Seconds. A stock connection waits for ever.
REDIS_CONNECT_SECONDS = 0.5
REDIS_ANSWER_SECONDS = 1.0


def get() -> Queue:
    return django_rq.get_queue(conf.get().queue, connection=connection())


def job_timeout() -> int:
    """Seconds; negative means none.

    A request may hang beyond the job's own time, and another may begin to hang then.
    """
    own = parse_job_timeout(settings.RQ_QUEUES[conf.get().queue].get('DEFAULT_TIMEOUT'))
    longest = parse_job_timeout(settings.RQ_DEFAULT_TIMEOUT) or MAX_TIMEOUT_SECONDS
    return -1 if own is None else max(own, int(JOB_SECONDS) + 2 * min(longest, MAX_TIMEOUT_SECONDS) + 60)


def function(job: Job) -> str:
    """'' if unreadable, so not ours."""
    try:
        return job.func_name
    except DeserializationError:
        return ''


def count_workers() -> int | None:
    found = workers()
    return None if found is None else len(found)


def workers() -> list[Worker] | None:
    """None without Redis."""
    name = conf.get().queue
    try:
        # RQ's Worker changes its connection's timeouts.
        return [worker for worker in Worker.all(connection=connect(name)) if name in worker.queue_names()]
    except (RedisError, OSError):
        return None


@cache
def connection() -> Redis:
    return connect(conf.get().queue)


def connect(queue: str) -> Redis:
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
