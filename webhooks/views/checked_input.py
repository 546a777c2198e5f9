"""Mixins that refuse a filter or a name that NetBox's bulk views cannot cope with."""

from core.signals import clear_events
from django.contrib import messages
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django_filters import FilterSet


def is_refused(request: HttpRequest, filterset: FilterSet) -> bool:
    """Return whether the filter is not valid. If so, a message tells the user."""
    if filterset.is_valid():
        return False
    messages.error(request, _('Nothing was selected, because the filter is not valid. Correct the filter.'))
    return True


class CheckedSelectionMixin:
    """Refuses a bulk action on all filtered objects if the filter is not valid.

    NetBox would ignore the filter, and take every object.
    """

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        is_filtered = bool(request.POST.get('_all'))
        if is_filtered and is_refused(request, self.filterset(request.GET, self.queryset, request=request)):
            return redirect(self.get_return_url(request))
        return super().post(request, *args, **kwargs)


class CheckedRenameMixin(CheckedSelectionMixin):
    """Shows a message if a new name does not fit its column. It refuses invalid filters too."""

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        """Rename, or lead back with PostgreSQL's reason: NetBox's view crashes at a name that is too long."""
        try:
            return super().post(request, *args, **kwargs)
        except DataError as error:
            clear_events.send(sender=type(self))
            messages.error(request, str(error).partition('\n')[0])
            return redirect(self.get_return_url(request))
