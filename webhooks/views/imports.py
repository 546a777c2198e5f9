"""The import of webhooks and credentials on NetBox's pages."""

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from netbox.choices import ImportMethodChoices

from ..forms.bulk_import import ImportedTextForm

# A page names the errors of at most this many records.
MAX_WRONG_RECORDS = 50


class ImportNowMixin:
    """Checks the imported text before NetBox's view reads it, and imports within the request.

    All wrong records are named: NetBox's view stops at the first.
    """

    def post(self, request: HttpRequest) -> HttpResponse:
        """Import at once, even if a background job is asked for: that would keep secrets in Redis.

        A text that cannot be read leads back to the form.
        """
        form = ImportedTextForm(request.POST, request.FILES)
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

    def _process_import_records(self, form: Form, request: HttpRequest, records: Sequence[dict], *args: Any) -> list:
        saved, wrong = [], []
        for self._number, record in enumerate(records, start=1):
            try:
                saved += super()._process_import_records(form, request, [record], *args)
            except ValidationError as error:
                wrong.append(error)
            if len(wrong) == MAX_WRONG_RECORDS:
                break
        if wrong:
            raise ValidationError(wrong)
        return saved

    def _compile_form_errors(self, errors: Any, index: int, prefix: str | None = None) -> list[str]:
        return super()._compile_form_errors(errors, self._number, prefix)

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
