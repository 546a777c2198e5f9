"""The page that makes a new secret."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from utilities.views import register_model_view

from .. import forms
from ..models import Webhook
from ..services import secret_rotation
from .webhook import WebhookActionView


@register_model_view(Webhook, 'rotate_secret', path='rotate-secret')
class WebhookRotateSecretView(WebhookActionView):
    """Asks how, and shows the new secret once, on the webhook's page."""

    action = 'change'
    template_name = 'webhooks/webhook_rotate_secret.html'

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self._render(request, webhook, forms.RotateSecretForm(webhook=webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.RotateSecretForm(request.POST, webhook=webhook)
        if not form.is_valid():
            return self._render(request, webhook, form)
        webhook, secret = secret_rotation.rotate(webhook.pk, form.cleaned_data['prefix'], form.overlap)
        secret_rotation.show_once(request.session, webhook, secret)
        messages.success(request, _('Requests are signed with the new secret from now on.'))
        return redirect(webhook.get_absolute_url())

    def _render(self, request: HttpRequest, webhook: Webhook, form: forms.RotateSecretForm) -> HttpResponse:
        shown = {'object': webhook, 'form': form, 'return_url': webhook.get_absolute_url()}
        return render(request, self.template_name, shown)
