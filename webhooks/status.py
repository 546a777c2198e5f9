"""The status page: each failed delivery as one failed RQ job, whose id is the delivery's uuid.

PostgreSQL leads. `Delivery.listed` says that a failure has been put on the page; whoever clears the page takes it off
there and not out of the log. Where Redis has lost its data the newest failures are put there again.
"""

import logging
import uuid
from collections.abc import Iterable

from django.utils import timezone
from redis import RedisError
from rq import get_current_job
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result

from . import queue
from .choices import StatusChoices
from .constants import STATUS_PAGE_LIMIT
from .models import Delivery

logger = logging.getLogger('webhooks.status')

REDELIVER = 'webhooks.worker.redeliver'
# Present while Redis still knows what was listed.
MARKER = 'webhooks:listed'
FAILURE_TTL = 365 * 24 * 3600
RELATED = ('webhook', 'event', 'object_type')


def publish(except_for: str | None = None) -> None:
    """Put the failures that are not on the page there, the newest 1,000 at most.

    `except_for` is the uuid of a delivery whose own job is running and fails by itself.
    """
    _recover()
    _sweep()
    unlisted = Delivery.objects.filter(status=StatusChoices.FAILED, listed=False)
    if except_for:
        unlisted.filter(uuid=except_for).update(listed=True)
    newest = list(unlisted.select_related(*RELATED).order_by('-pk')[:STATUS_PAGE_LIMIT])
    for delivery in reversed(newest):
        _list(delivery)
    if newest:
        unlisted.filter(pk__lte=newest[0].pk).update(listed=True)
        _trim()


def unlist(uuids: Iterable[str]) -> None:
    """Take deliveries off the page: they are no longer failed. Never raises for want of Redis."""
    try:
        registry = _registry()
        for one in uuids:
            _remove(registry, str(one))
    except RedisError as error:
        logger.warning('status_page=unreachable reason="%s"', error)


def _recover() -> None:
    """List everything anew where Redis has forgotten that it knew."""
    connection = queue.get().connection
    if connection.set(MARKER, 1, nx=True):
        newest = Delivery.objects.filter(status=StatusChoices.FAILED).order_by('-pk')[:STATUS_PAGE_LIMIT]
        Delivery.objects.filter(pk__in=list(newest.values_list('pk', flat=True))).update(listed=False)


def _sweep() -> None:
    """Take off what the log no longer has: it was pruned, or went with its webhook."""
    registry = _registry()
    listed = [job_id for job_id in registry.get_job_ids(cleanup=False) if _is_uuid(job_id)]
    there = {str(found) for found in Delivery.objects.filter(uuid__in=listed).values_list('uuid', flat=True)}
    gone = Job.fetch_many([job_id for job_id in listed if job_id not in there], connection=registry.connection)
    for job in gone:
        # Jobs of others, and a drain that failed, are not ours to remove.
        if job is not None and job.func_name == REDELIVER:
            _remove(registry, job.id)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _list(delivery: Delivery) -> None:
    rq_queue, connection = queue.get(), queue.get().connection
    now = timezone.now()
    job = Job.create(
        REDELIVER,
        args=(str(delivery.uuid),),
        id=str(delivery.uuid),
        connection=connection,
        origin=rq_queue.name,
        status=JobStatus.FAILED,
        description=str(delivery),
        timeout=rq_queue._default_timeout,
        failure_ttl=FAILURE_TTL,
        meta=describe(delivery),
    )
    job.created_at = delivery.created
    job.enqueued_at = delivery.created
    job.ended_at = delivery.finished_at or now
    with connection.pipeline() as pipeline:
        job.save(pipeline=pipeline)
        _registry().add(job, ttl=FAILURE_TTL, exc_string=delivery.error, pipeline=pipeline)
        Result.create_failure(job, FAILURE_TTL, exc_string=delivery.error, pipeline=pipeline)
        pipeline.execute()


def renew(uuid: str) -> None:
    """Bring the page of the running job of a delivery up to date."""
    job = get_current_job()
    job.meta = describe(Delivery.objects.select_related(*RELATED).get(uuid=uuid))
    job.save_meta()


def describe(delivery: Delivery) -> dict[str, str]:
    """Return what the job's page tells of a delivery."""
    return {
        'webhook': delivery.webhook.name,
        'request': f'{delivery.webhook.http_method} {delivery.webhook.masked_url}',
        'event': delivery.event.kind,
        'model': f'{delivery.object_type.app_label}.{delivery.object_type.model}',
        'object': f'{delivery.event.object_repr} ({delivery.object_id})',
        'attempts': str(delivery.attempt_count),
        'reason': delivery.error,
    }


def _trim() -> None:
    """Keep the newest on the page; the log in PostgreSQL has them all."""
    registry = _registry()
    surplus = registry.connection.zcard(registry.key) - STATUS_PAGE_LIMIT
    if surplus <= 0:
        return
    oldest = Delivery.objects.filter(status=StatusChoices.FAILED, listed=True).order_by('-pk')
    for delivery_uuid in oldest[STATUS_PAGE_LIMIT : STATUS_PAGE_LIMIT + surplus].values_list('uuid', flat=True):
        _remove(registry, str(delivery_uuid))


def _remove(registry: FailedJobRegistry, job_id: str) -> None:
    registry.connection.zrem(registry.key, job_id)
    try:
        Job.fetch(job_id, connection=registry.connection).delete()
    except NoSuchJobError:
        return


def _registry() -> FailedJobRegistry:
    rq_queue = queue.get()
    return FailedJobRegistry(rq_queue.name, connection=rq_queue.connection)
