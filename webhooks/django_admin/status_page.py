"""Answers where django-rq's pages would crash."""

from collections.abc import Callable
from functools import wraps

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django_rq.queues import get_queue_by_index
from redis import RedisError
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job

# For a missing queue, job, worker or scheduler.
ABSENT = (IndexError, NoSuchJobError, ValueError, AssertionError, ImproperlyConfigured)


def answered(view: Callable) -> Callable:
    """404 for missing jobs. Without Redis, the admin's front page."""

    @wraps(view)
    def answering(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            _check_selection(request, **kwargs)
            return view(request, *args, **kwargs)
        except ABSENT as error:
            raise Http404 from error
        except InvalidJobOperation:
            messages.error(request, _('This job has not failed, or is already queued again.'))
            # After a requeue of many, the failing job is unknown.
            return redirect(f'django_rq:{"job_detail" if "job_id" in kwargs else "failed_jobs"}', **kwargs)
        except RedisError:
            messages.error(request, _('Redis cannot be reached. Check that it is running, then load the page again.'))
            return redirect('admin:index')

    return answering


def answered_to_programs(view: Callable) -> Callable:
    """401 for a token outside of ASCII, 503 without Redis."""

    @wraps(view)
    def answering(request: HttpRequest, token: str | None = None) -> HttpResponse:
        if not (request.headers.get('Authorization', '') + (token or '')).isascii():
            return HttpResponse(status=401)
        # django-rq would lose all other metrics, and crash.
        request.GET = request.GET.copy()
        request.GET.pop('name[]', None)
        try:
            return view(request, token) if token else view(request)
        except RedisError:
            return HttpResponse(status=503)

    return answering


def _check_selection(request: HttpRequest, queue_index: int = 0, **kwargs) -> None:
    """Drop missing jobs, which stop django-rq, and addresses of other sites."""
    selected, address = request.POST.getlist('job_ids'), request.POST.get('next_url', '')
    if not selected and not address:
        return
    connection = get_queue_by_index(queue_index).connection
    posted = request.POST.copy()
    posted.setlist('job_ids', [job_id for job_id in selected if Job.exists(job_id, connection=connection)])
    # redirect() reads an address without a slash as a view's name.
    if '/' not in address or not url_has_allowed_host_and_scheme(address, {request.get_host()}):
        posted.pop('next_url', None)
    request.POST = posted
