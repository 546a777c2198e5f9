"""The actions on one webhook that ask for something first, each by a form. The others are in actions.py."""

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from utilities.views import register_model_view

from .. import forms
from ..exceptions import DefinitionError
from ..models import Webhook
from ..presentation.states import both_sign
from ..services import actions, secret_rotation, send_waiting
from .actions import ActionView
from .delivery import confirm_or_redeliver


class FormView(ActionView):
    """The base of these actions."""

    queryset = Webhook.objects.all()
    template_name = 'webhooks/webhook_action.html'

    def render_form(self, request: HttpRequest, webhook: Webhook, form: Form, figures: object = '') -> HttpResponse:
        """Return the action's page with the form. `figures` is a line above the form, '' for none."""
        shown = {
            'object': webhook,
            'form': form,
            'action': self.action,
            'figures': figures,
            'return_url': webhook.get_absolute_url(),
        }
        return render(request, self.template_name, shown)


@register_model_view(Webhook, 'replay')
class WebhookReplayView(FormView):
    """Redelivers the events of a period. A form asks for the period; a second page asks with the numbers."""

    action = actions.REPLAY

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        form = forms.ReplayForm(initial={'since': request.GET.get('since')})
        return self.render_form(request, self.get_object(pk=pk), form)

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.ReplayForm(request.POST)
        if not form.is_valid():
            return self.render_form(request, webhook, form)
        return confirm_or_redeliver(request, form.select(webhook), self.action, webhook.get_absolute_url())


@register_model_view(Webhook, 'send_waiting', path='send-waiting')
class WebhookSendWaitingView(FormView):
    """Sends waiting deliveries now: all of them, or only the latest change of each object."""

    action = actions.SEND_WAITING

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self.render_form(request, webhook, forms.SendWaitingForm(), send_waiting.measure(webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.SendWaitingForm(request.POST)
        if not form.is_valid():
            return self.render_form(request, webhook, form, send_waiting.measure(webhook))
        try:
            superseded = send_waiting.send(webhook, latest_only=form.latest_only)
        except DefinitionError as error:
            form.add_error(None, str(error))
            return self.render_form(request, webhook, form, send_waiting.measure(webhook))
        messages.success(request, send_waiting.announce(webhook, superseded, latest_only=form.latest_only))
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'backfill')
class WebhookBackfillView(FormView):
    """Asks which objects to send, and starts a backfill of these."""

    action = actions.BACKFILL

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self.render_form(request, webhook, forms.BackfillForm(webhook=webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.BackfillForm(request.POST, webhook=webhook)
        if not form.is_valid() or not form.start(request.user):
            return self.render_form(request, webhook, form)
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'rotate_secret', path='rotate-secret')
class WebhookRotateSecretView(FormView):
    """Generates a new secret, and shows it once on the webhook's page.

    For the time that the form says, requests are also signed with the present secret.
    """

    action = actions.ROTATE_SECRET

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self.render_form(request, webhook, forms.RotateSecretForm(webhook=webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.RotateSecretForm(request.POST, webhook=webhook)
        if not form.is_valid():
            return self.render_form(request, webhook, form)
        try:
            webhook, secret = secret_rotation.rotate(webhook.pk, form.cleaned_data['prefix'], form.overlap)
        except DefinitionError as error:
            form.add_error(None, str(error))
            return self.render_form(request, webhook, form)
        secret_rotation.show_once(request.session, webhook, secret)
        told = [_('Requests are signed with the new secret from now on.'), both_sign(webhook)]
        messages.success(request, ' '.join(filter(None, told)))
        return redirect(webhook.get_absolute_url())
