"""Shows failed deliveries as failed jobs on RQ's status page. A job's id is the delivery's uuid.

PostgreSQL leads: after a loss of Redis the newest failures come back.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from itertools import batched

from django.db import transaction
from django.utils import timezone
from redis import RedisError
from rq import get_current_job
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result

from ..choices import StatusChoices
from ..constants import STATUS_PAGE_JOBS
from ..engine import sql
from ..models import Delivery
from ..outbox import redis_queue
from ..storable import uuid_of

logger = logging.getLogger('webhooks.status')

# The function of each job, which *Requeue* runs.
REDELIVER = 'webhooks.worker.redeliver'
# A key in Redis. If it is missing, Redis has lost its data, and the newest failures are listed again.
LISTED_KEY = 'rq:webhooks:listed'
FAILURE_TTL_SECONDS = 365 * 24 * 3600
# At most this many jobs are written to Redis at once.
JOBS_PER_ROUND_TRIP = 100
RELATED = ('webhook', 'event', 'object_type')

# From failed to failed and listed: these deliveries, unless they failed anew since, and all with an id below the last
# argument. It skips rows that a redelivery or another worker has locked.
MARK_LISTED = """
    UPDATE webhooks_delivery SET listed = true WHERE status = 'failed' AND id = ANY(ARRAY(
        SELECT d.id FROM webhooks_delivery d
        WHERE d.status = 'failed' AND NOT d.listed AND (
            EXISTS (
                SELECT 1 FROM unnest(%s::bigint[], %s::timestamptz[]) AS v(id, finished_at)
                WHERE v.id = d.id AND v.finished_at IS NOT DISTINCT FROM d.finished_at
            )
            OR d.id < %s
        )
        FOR UPDATE SKIP LOCKED
    ))"""


def publish(except_for: str | None = None) -> None:
    """Show new failures on the status page, and take off deliveries that are no longer failed. Workers call it.

    At most STATUS_PAGE_JOBS jobs stay there. `except_for` is the uuid of a delivery whose own job is running: RQ lists
    that one by itself. Raises RedisError, and OperationalError if PostgreSQL interrupts it.
    """
    _recover()
    _sweep()
    unlisted = Delivery.objects.filter(status=StatusChoices.FAILED, listed=False)
    if except_for:
        unlisted.filter(uuid=except_for).update(listed=True)
    with sql.transaction():  # a table that it reads may be locked
        newest = list(unlisted.select_related(*RELATED).order_by('-pk')[:STATUS_PAGE_JOBS])
    for some in batched(reversed(newest), JOBS_PER_ROUND_TRIP):
        _list(some)
    if newest:
        _mark_listed(newest)
        _trim()


def unlist(uuids: Collection[str]) -> None:
    """Take the deliveries' jobs off the status page. Without Redis it only writes to the log."""
    try:
        registry = _registry()
        _remove(registry, set(registry.get_job_ids(cleanup=False)).intersection(uuids))
    except RedisError as error:
        logger.warning('redis=unreachable reason="%s"', error)


def _recover() -> None:
    redis = redis_queue.connection()
    if redis.exists(LISTED_KEY):
        return
    newest = Delivery.objects.filter(status=StatusChoices.FAILED).order_by('-pk')[:STATUS_PAGE_JOBS]
    with transaction.atomic():
        free = Delivery.objects.filter(pk__in=list(newest.values_list('pk', flat=True)), listed=True)
        locked = free.select_for_update(skip_locked=True).values_list('pk', flat=True)
        Delivery.objects.filter(pk__in=list(locked)).update(listed=False)
    redis.set(LISTED_KEY, 1)


def _mark_listed(deliveries: Sequence[Delivery]) -> None:
    values = [[one.pk for one in deliveries], [one.finished_at for one in deliveries]]
    oldest = deliveries[-1].pk if len(deliveries) == STATUS_PAGE_JOBS else 0
    sql.execute(MARK_LISTED, [*values, oldest])


def _sweep() -> None:
    registry = _registry()
    listed = [job_id for job_id in registry.get_job_ids(cleanup=False) if uuid_of(job_id)]
    failed = Delivery.objects.filter(uuid__in=listed, status=StatusChoices.FAILED).values_list('uuid', flat=True)
    there = set(map(str, failed))
    gone = Job.fetch_many([job_id for job_id in listed if job_id not in there], connection=registry.connection)
    _remove(registry, [job.id for job in gone if job is not None and redis_queue.function(job) == REDELIVER])


def _list(deliveries: Iterable[Delivery]) -> None:
    registry = _registry()
    with registry.connection.pipeline() as pipeline:
        for delivery in deliveries:
            job = _job_of(delivery)
            job.save(pipeline=pipeline)
            registry.add(job, ttl=FAILURE_TTL_SECONDS, exc_string=delivery.error, pipeline=pipeline)
            Result.create_failure(job, FAILURE_TTL_SECONDS, exc_string=delivery.error, pipeline=pipeline)
        pipeline.execute()


def _job_of(delivery: Delivery) -> Job:
    rq_queue = redis_queue.get()
    job = Job.create(
        REDELIVER,
        args=(str(delivery.uuid),),
        id=str(delivery.uuid),
        connection=rq_queue.connection,
        origin=rq_queue.name,
        status=JobStatus.FAILED,
        description=str(delivery),
        timeout=redis_queue.job_timeout(),
        failure_ttl=FAILURE_TTL_SECONDS,
        meta=describe(delivery),
    )
    job.created_at = delivery.created
    job.enqueued_at = delivery.created
    job.ended_at = delivery.finished_at or timezone.now()
    return job


def renew(delivery_uuid: str) -> None:
    """Write the delivery's new facts into the RQ job that is running, which redelivers it."""
    delivery = Delivery.objects.select_related(*RELATED).filter(uuid=delivery_uuid).first()
    if delivery is None:
        return  # redelivery.outcome() says why
    job = get_current_job()
    job.meta = describe(delivery)
    job.save_meta()


def describe(delivery: Delivery) -> dict[str, str]:
    """Return the facts about a failed delivery that the status page shows, with a masked URL."""
    return {
        'webhook': delivery.webhook.name,
        'request': f'{delivery.webhook.http_method} {delivery.webhook.masked_url}',
        'event': delivery.kind,
        'model': f'{delivery.object_type.app_label}.{delivery.object_type.model}',
        'object': f'{delivery.event.object_repr} ({delivery.object_id})',
        'attempts': str(delivery.attempt_count),
        'reason': delivery.error,
    }


def _trim() -> None:
    registry = _registry()
    surplus = registry.connection.zcard(registry.key) - STATUS_PAGE_JOBS
    if surplus <= 0:
        return
    oldest = Delivery.objects.filter(status=StatusChoices.FAILED, listed=True).order_by('-pk')
    uuids = oldest[STATUS_PAGE_JOBS : STATUS_PAGE_JOBS + surplus].values_list('uuid', flat=True)
    _remove(registry, map(str, uuids))


def _remove(registry: FailedJobRegistry, job_ids: Iterable[str]) -> None:
    """Remove jobs in one round trip. RQ's own way raises if somebody has just deleted one."""
    with registry.connection.pipeline() as pipeline:
        for job_id in job_ids:
            pipeline.zrem(registry.key, job_id)
            pipeline.delete(Job.key_for(job_id), Result.get_key(job_id))
        pipeline.execute()


def _registry() -> FailedJobRegistry:
    rq_queue = redis_queue.get()
    return FailedJobRegistry(rq_queue.name, connection=rq_queue.connection)
