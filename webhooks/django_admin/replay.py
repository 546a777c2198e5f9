"""The page *Redeliver past events* in the admin."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from ..forms import ReplayForm
from ..services.actions import REPLAY
from .base import BaseAdmin, or_explain


class ReplayMixin(BaseAdmin):
    """Adds the page *Redeliver past events* to the admin's webhooks."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.replay_view)
        return [path('<path:object_id>/replay/', view, name='webhooks_webhook_replay'), *super().get_urls()]

    @or_explain
    def replay_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the form, then a page that asks with the numbers, then redeliver and show the webhook.

        `since` in the address is the form's first value.
        """
        webhook = self.get_object(request, object_id)
        if webhook is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        entered = request.POST if request.method == 'POST' else None
        form = ReplayForm(entered, initial={'since': request.GET.get('since')})
        page = reverse('admin:webhooks_webhook_change', args=[webhook.pk])
        if form.is_valid():
            return self.confirm_or_redeliver(request, form.select(webhook), REPLAY, page) or redirect(page)
        context = {
            **self.admin_site.each_context(request),
            'opts': self.opts,
            'original': webhook,
            'title': REPLAY.label,
            'action': REPLAY,
            'form': form,
        }
        return TemplateResponse(request, 'admin/webhooks/action.html', context)
