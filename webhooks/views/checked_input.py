from core.signals import clear_events
from django.contrib import messages
from django.db import DataError
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from utilities.views import get_action_url

from ..storable import is_key, is_storable


def selected_keys(request: HttpRequest) -> list[str]:
    return [pk for pk in request.POST.getlist('pk') if is_key(pk)]


class CheckedListMixin:
    """Answers 404 for parameters that crash NetBox's lists."""

    def get(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        asked = request.GET
        if not is_storable(asked.getlist('sort') + asked.getlist('export')):
            raise Http404
        if not is_key(asked.get('tableconfig_id') or '0'):
            raise Http404
        return super().get(request, *args, **kwargs)


class CheckedReturnMixin:
    """Drops a return address without a slash: Django reads it as a view's name."""

    def get_return_url(self, request: HttpRequest, obj: Model | None = None) -> str:
        address = super().get_return_url(request, obj)
        return address if '/' in address else get_action_url(self.queryset.model, action='list')


class CheckedSelectionMixin(CheckedReturnMixin):
    """With an invalid filter, NetBox takes every object. An invalid id crashes it."""

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if self.is_refused(request):
            return redirect(self.get_return_url(request))
        posted = request.POST.copy()
        posted.setlist('pk', selected_keys(request))
        request.POST = posted
        return super().post(request, *args, **kwargs)

    def is_refused(self, request: HttpRequest) -> bool:
        if not request.POST.get('_all'):
            return False
        if self.filterset(request.GET, self.queryset, request=request).is_valid():
            return False
        messages.error(request, _('Nothing was selected, because the filter is not valid. Correct the filter.'))
        return True


class CheckedRenameMixin(CheckedSelectionMixin):
    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        """A name that is too long crashes NetBox's view."""
        try:
            return super().post(request, *args, **kwargs)
        except DataError as error:
            clear_events.send(sender=type(self))
            messages.error(request, str(error).partition('\n')[0])
            return redirect(self.get_return_url(request))
