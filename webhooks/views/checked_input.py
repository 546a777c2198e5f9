from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _


class CheckedSelectionMixin:
    """With an invalid filter, NetBox takes every object."""

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if self.is_refused(request):
            return redirect(self.get_return_url(request))
        return super().post(request, *args, **kwargs)

    def is_refused(self, request: HttpRequest) -> bool:
        if not request.POST.get('_all'):
            return False
        if self.filterset(request.GET, self.queryset, request=request).is_valid():
            return False
        messages.error(request, _('Nothing was selected, because the filter is not valid. Correct the filter.'))
        return True
