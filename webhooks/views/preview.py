"""The tab that shows what a webhook would send."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from netbox.views import generic
from utilities.views import ViewTab, register_model_view

from ..models import Webhook
from ..services import preview


@register_model_view(Webhook, 'preview')
class WebhookPreviewView(generic.ObjectView):
    queryset = Webhook.objects.all()
    template_name = 'webhooks/webhook_preview.html'
    tab = ViewTab(label=_('Preview'), permission='webhooks.view_webhook', weight=500)

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        return preview.context(instance, request.user)
