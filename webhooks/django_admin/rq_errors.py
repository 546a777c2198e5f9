"""Wraps django-rq's views, which crash without Redis, or if a job is gone: it answers with a message instead."""

from collections.abc import Callable
from functools import wraps

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from redis import RedisError
from rq.exceptions import InvalidJobOperation, NoSuchJobError

# django-rq raises these for a missing queue, job, worker or scheduler.
ABSENCE_ERRORS = (IndexError, NoSuchJobError, ValueError, AssertionError, ImproperlyConfigured)


def answered(view: Callable) -> Callable:
    """Wrap a view of django-rq: a missing job gives 404. A job that cannot be requeued gives a message.

    Without Redis it leads to the admin's front page.
    """

    @wraps(view)
    def answering(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except ABSENCE_ERRORS as error:
            raise Http404 from error
        except InvalidJobOperation:
            messages.error(request, _('This job has not failed, or is already queued again.'))
            # After a requeue of many, nobody knows which job it was. So the list is shown.
            return redirect(f'django_rq:{"job_detail" if "job_id" in kwargs else "failed_jobs"}', **kwargs)
        except RedisError:
            messages.error(request, _('Redis cannot be reached. Check that it is running, then load the page again.'))
            return redirect('admin:index')

    return answering
