"""django-rq's pages, which fail where something is not there any more, and while Redis is down."""

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

# What it raises for the number of no queue, the id of no job, the key of no worker, and a scheduler that is not there.
ABSENT = (IndexError, NoSuchJobError, ValueError, AssertionError, ImproperlyConfigured)


def answered(view: Callable) -> Callable:
    """Say what is wrong: 404 for what is absent; without Redis the front page of the admin, which tells of it."""

    @wraps(view)
    def answering(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            _check_selection(request, **kwargs)
            return view(request, *args, **kwargs)
        except ABSENT as error:
            raise Http404 from error
        except InvalidJobOperation:
            messages.error(request, _('The job is no longer a failed one.'))
            # Of all that are requeued at once, nobody knows which.
            return redirect(f'django_rq:{"job_detail" if "job_id" in kwargs else "failed_jobs"}', **kwargs)
        except RedisError:
            messages.error(request, _('Redis cannot be reached'))
            return redirect('admin:index')

    return answering


def answered_to_programs(view: Callable) -> Callable:
    """As `answered`, of what programs ask for with a token: one that is not ASCII is none."""

    @wraps(view)
    def answering(request: HttpRequest, token: str | None = None) -> HttpResponse:
        if not (request.headers.get('Authorization', '') + (token or '')).isascii():
            return HttpResponse(status=401)
        # django-rq would leave out all other figures from then on, and fail the next time.
        request.GET = request.GET.copy()
        request.GET.pop('name[]', None)
        try:
            return view(request, token) if token else view(request)
        except RedisError:
            return HttpResponse(status=503)

    return answering


def _check_selection(request: HttpRequest, queue_index: int = 0, **kwargs) -> None:
    """Take out of what is posted the jobs that are gone, at which django-rq stops, and an address of another site."""
    selected, address = request.POST.getlist('job_ids'), request.POST.get('next_url', '')
    if not selected and not address:
        return
    connection = get_queue_by_index(queue_index).connection
    posted = request.POST.copy()
    posted.setlist('job_ids', [job_id for job_id in selected if Job.exists(job_id, connection=connection)])
    # redirect() takes what has no slash for the name of a page.
    if '/' not in address or not url_has_allowed_host_and_scheme(address, {request.get_host()}):
        posted.pop('next_url', None)
    request.POST = posted
