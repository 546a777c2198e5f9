"""django-rq's pages, which fail where something is not there any more, and while Redis is down."""

from collections.abc import Callable
from functools import wraps

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from redis import RedisError
from rq.exceptions import InvalidJobOperation, NoSuchJobError

# What it raises for the number of no queue, the id of no job, the key of no worker, and a scheduler that is not there.
ABSENT = (IndexError, NoSuchJobError, ValueError, AssertionError, ImproperlyConfigured)


def answered(view: Callable) -> Callable:
    """Say what is wrong: 404 for what is absent; without Redis the front page of the admin, which tells of it."""

    @wraps(view)
    def answering(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except ABSENT as error:
            raise Http404 from error
        except InvalidJobOperation:
            messages.error(request, _('The job is no longer a failed one.'))
            return redirect('django_rq:job_detail', kwargs['queue_index'], kwargs['job_id'])
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
        try:
            return view(request, token) if token else view(request)
        except RedisError:
            return HttpResponse(status=503)

    return answering
