"""What is selected in a list: here, all that its filter leaves."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _


class CheckedSelectionMixin:
    """Of NetBox's views of many objects. Where the filter is refused they take it for none, and so every object."""

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if self.is_refused(request):
            return redirect(self.get_return_url(request))
        return super().post(request, *args, **kwargs)

    def is_refused(self, request: HttpRequest) -> bool:
        """Whether all that match are selected, by a filter that is not valid. Says so."""
        if not request.POST.get('_all'):
            return False
        if self.filterset(request.GET, self.queryset, request=request).is_valid():
            return False
        messages.error(request, _('Nothing is selected: the filter is not valid.'))
        return True
