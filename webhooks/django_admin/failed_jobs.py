"""Our queue's failed jobs: django-rq's pages, with a search, and the numbers before a requeue.

The ID of a failed delivery's job is the UUID of the delivery.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django_rq import views as rq_views
from django_rq.queues import get_queue_by_index
from django_rq.utils import get_jobs
from rq.exceptions import NoSuchJobError
from rq.job import Job, requeue_job
from rq.registry import FailedJobRegistry

from .. import conf
from ..choices import StatusChoices
from ..models import Delivery
from ..models.delivery import cause_of
from ..services import confirmation, redelivery
from ..services.actions import REDELIVER
from ..storable import is_key, storable

JOBS_PER_PAGE = 100

# django-rq's names of its actions.
REQUEUE = 'requeue'
DELETE = 'delete'


def of_our_queue(theirs: Callable) -> Callable:
    """Wrap a view, so that it answers for our queue, and django-rq's view `theirs` for all others."""

    def decorate(ours: Callable) -> Callable:
        @wraps(ours)
        def choose(request: HttpRequest, queue_index: int) -> HttpResponse:
            queue = get_queue_by_index(queue_index)
            return (ours if queue.name == conf.get().queue else theirs)(request, queue_index)

        return never_cache(choose)

    return decorate


@of_our_queue(rq_views.failed_jobs)
def failed_jobs(request: HttpRequest, queue_index: int) -> HttpResponse:
    """Show a page of failed jobs, filtered by `webhook`, `reason` and the text `q`."""
    queue = get_queue_by_index(queue_index)
    registry = FailedJobRegistry(queue.name, queue.connection)
    is_descending = request.GET.get('desc', '1') == '1'
    listed = registry.get_job_ids(desc=is_descending)
    found = _found(listed, request.GET)
    page = Paginator(found, JOBS_PER_PAGE).get_page(request.GET.get('page'))
    shown = {
        **admin.site.each_context(request),
        'queue': queue,
        'queue_index': queue_index,
        'jobs': get_jobs(queue, page.object_list, registry),
        'num_jobs': len(found),
        'page': page.number,
        'page_range': page.paginator.get_elided_page_range(page.number) if page.has_other_pages() else (),
        'ellipsis': Paginator.ELLIPSIS,
        'sort_direction': 'descending' if is_descending else 'ascending',
        'other_direction': '0' if is_descending else '1',
        'job_status': 'Failed',
        **_choices(listed),
        'chosen': {name: request.GET.get(name, '') for name in ('webhook', 'reason', 'q')},
    }
    return render(request, 'django_rq/failed_jobs.html', shown)


@of_our_queue(rq_views.confirm_action)
def confirm_action(request: HttpRequest, queue_index: int) -> HttpResponse:
    """Ask before the selected jobs are requeued or deleted. For a requeue the page shows its numbers.

    It posts to django-rq's own view, which does it.
    """
    action, chosen = request.POST.get('action'), request.POST.getlist('_selected_action')
    if action not in (REQUEUE, DELETE) or not chosen:
        return redirect('django_rq:failed_jobs', queue_index)
    queue = get_queue_by_index(queue_index)
    jobs = [job for job in Job.fetch_many(chosen, connection=queue.connection) if job is not None]
    return _confirm(request, queue_index, jobs, action)


@of_our_queue(rq_views.requeue_all)
def requeue_all(request: HttpRequest, queue_index: int) -> HttpResponse:
    """Ask with the numbers, then requeue all failed jobs but those that failed after the count."""
    queue = get_queue_by_index(queue_index)
    registry = FailedJobRegistry(queue.name, queue.connection)
    jobs = get_jobs(queue, registry.get_job_ids(), registry)
    counted_at = confirmation.confirmed_at(request)
    if counted_at is None:
        return _confirm(request, queue_index, jobs, REQUEUE, is_all=True)
    count = 0
    for job in jobs:
        if (job.ended_at or job.created_at) <= counted_at:
            # A worker may have sent it meanwhile: all deliveries of a part go in one request.
            with suppress(NoSuchJobError):
                requeue_job(job.id, connection=queue.connection, serializer=queue.serializer)
                count += 1
    messages.info(request, redelivery.announce(count))
    return redirect('django_rq:jobs', queue_index)


# django-rq's views, and ours in their place. urlconf.py exchanges them.
REPLACED_VIEWS = {
    rq_views.failed_jobs: failed_jobs,
    rq_views.confirm_action: confirm_action,
    rq_views.requeue_all: requeue_all,
}


def _confirm(
    request: HttpRequest, queue_index: int, jobs: Sequence[Job], action: str, *, is_all: bool = False
) -> HttpResponse:
    deliveries = _deliveries([job.id for job in jobs])
    figures = redelivery.foretell(deliveries) if action == REQUEUE else None
    shown = {
        **admin.site.each_context(request),
        **(confirmation.context(request, figures, REDELIVER) if figures else {}),
        'queue_index': queue_index,
        'queue': get_queue_by_index(queue_index),
        'action': action,
        'jobs': jobs,
        'is_all': is_all,
    }
    return render(request, 'admin/webhooks/confirm_jobs.html', shown)


def _deliveries(job_ids: Sequence[str]) -> QuerySet[Delivery]:
    uuids = [job_id for job_id in job_ids if _is_uuid(job_id)]
    return Delivery.objects.filter(uuid__in=uuids, status=StatusChoices.FAILED)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _found(listed: Sequence[str], asked: Mapping[str, str]) -> Sequence[str]:
    """Return the ids that the filter finds, in their order."""
    webhook, reason, term = (storable(asked.get(name, '')).strip() for name in ('webhook', 'reason', 'q'))
    if not (webhook or reason or term):
        return listed
    deliveries = _deliveries(listed).with_cause()
    if webhook:
        deliveries = deliveries.filter(webhook=webhook if is_key(webhook) else None)
    if reason:
        deliveries = deliveries.filter(cause=cause_of(reason))
    if term:
        deliveries = deliveries.filter(_named(term))
    found = {str(one) for one in deliveries.values_list('uuid', flat=True)}
    return [job_id for job_id in listed if job_id in found]


def _named(term: str) -> Q:
    if _is_uuid(term):
        return Q(uuid=term)
    found = Q(event__object_repr__icontains=term) | Q(webhook__name__icontains=term) | Q(error__icontains=term)
    return found | Q(object_id=int(term)) if is_key(term) else found


def _choices(listed: Sequence[str]) -> dict[str, object]:
    """Return the webhooks and the reasons that the listed jobs have, to filter the list by them."""
    found = set(_deliveries(listed).with_cause().values_list('webhook_id', 'webhook__name', 'cause'))
    return {
        'webhooks_listed': sorted({(pk, name) for pk, name, _cause in found}, key=lambda one: one[1]),
        'reasons_listed': sorted({cause for *_rest, cause in found}),
    }
