"""The import of webhooks and credentials on NetBox's pages."""

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from netbox.choices import ImportMethodChoices

from .. import forms


class ImportNowMixin:
    """Checks the imported text before NetBox's view reads it, and imports within the request."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Import at once, even if a background job is asked for: that would keep secrets in Redis.

        A text that cannot be read leads back to the form.
        """
        form = forms.ImportedTextForm(request.POST, request.FILES)
        if not form.is_valid():
            return self._refuse(request, form)
        for file in request.FILES.values():
            file.seek(0)
        entered = request.POST.copy()
        is_asked = any(entered.pop('background_job', ()))
        request.POST = entered
        if is_asked:
            messages.info(
                request, _('The import ran now, not in the background, so that no secret is stored in Redis.')
            )
        return super().post(request)

    def _refuse(self, request: HttpRequest, form: Form) -> HttpResponse:
        shown = {
            'model': self.queryset.model,
            'form': form,
            'fields': self._get_form_fields(),
            'import_method': request.POST.get('import_method') or ImportMethodChoices.DIRECT,
            'return_url': self.get_return_url(request),
            **self.get_extra_context(request),
        }
        return render(request, self.template_name, shown)
