"""The preview of a webhook in the admin: on a page of its own, and of the form before it is saved."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from ..services import preview, preview_sources
from .base import BaseAdmin


class PreviewMixin(BaseAdmin):
    """Adds the page *Preview*, and what a form would send, to the admin's webhooks. Nothing is sent or saved."""

    def get_urls(self) -> list[URLPattern]:
        draft, shown = (self.admin_site.admin_view(view) for view in (require_POST(self.draft_view), self.preview_view))
        return [
            path('draft/', draft, name='webhooks_webhook_new_draft'),
            path('<path:object_id>/draft/', draft, name='webhooks_webhook_draft'),
            path('<path:object_id>/preview/', shown, name='webhooks_webhook_preview'),
            *super().get_urls(),
        ]

    def draft_view(self, request: HttpRequest, object_id: str = '') -> HttpResponse:
        """Return the part of the form's page that shows what the posted form would send."""
        webhook = self.get_object(request, object_id) if object_id else None
        if object_id and webhook is None:
            raise Http404
        form = self.get_form(request, webhook, change=bool(webhook))(request.POST, instance=webhook)
        return render(request, 'webhooks/inc/draft.html', form.shown_draft(request))

    def preview_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what the webhook would send for the chosen event or object, at first the latest."""
        webhook = self.get_object(request, object_id)
        if webhook is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        source, text = request.GET.get('source', ''), request.GET.get('name', '')
        draft = preview.Draft.of(webhook)
        context = {
            **self.admin_site.each_context(request),
            **preview.context(draft, request.user, source),
            'choices': preview_sources.choices(draft, request.user, text),
            'source': source,
            'name': text,
            'opts': self.opts,
            'original': webhook,
            'title': _('Preview'),
        }
        return TemplateResponse(request, 'admin/webhooks/preview.html', context)
