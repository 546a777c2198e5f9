"""The actions on one webhook that ask for something first, each with a form. action_views.py has all other actions."""

from abc import ABC, abstractmethod
from typing import Any

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from utilities.views import register_model_view

from ..exceptions import DefinitionError
from ..forms.action_forms import BackfillForm, ReplayForm, RotateSecretForm, SendWaitingForm
from ..models import Webhook
from ..presentation.states import both_sign
from ..services import actions, backfill, confirmation, secret_rotation, send_waiting
from .action_views import ActionView


class FormView(ActionView, ABC):
    """The base of actions with a form. A subclass makes the form, and acts once it is valid."""

    queryset = Webhook.objects.all()
    template_name = 'webhooks/webhook_action.html'

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self._ask(request, webhook, self.make_form(webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = self.make_form(webhook, request.POST)
        if form.is_valid():
            try:
                return self.act(request, webhook, form) or redirect(webhook.get_absolute_url())
            except DefinitionError as error:
                form.add_error(error.field if error.field in form.fields else None, str(error))
        return self._ask(request, webhook, form)

    @abstractmethod
    def make_form(self, webhook: Webhook, entered: QueryDict | None = None) -> Form:
        """Return the form, with the entered values if it was posted."""

    @abstractmethod
    def act(self, request: HttpRequest, webhook: Webhook, form: Any) -> HttpResponse | None:
        """Act on the valid form. Return an answer, or None to lead to the webhook's page.

        A DefinitionError that it raises is shown in the form.
        """

    def figures(self, webhook: Webhook) -> object:
        """Return a line above the form, '' for none."""
        return ''

    def _ask(self, request: HttpRequest, webhook: Webhook, form: Form) -> HttpResponse:
        shown = {
            'object': webhook,
            'form': form,
            'action': self.action,
            'figures': self.figures(webhook),
            'return_url': webhook.get_absolute_url(),
        }
        return render(request, self.template_name, shown)


@register_model_view(Webhook, 'replay')
class WebhookReplayView(FormView):
    """Redelivers the events of a period. A form asks for the period; a second page asks with the numbers."""

    action = actions.REPLAY

    def make_form(self, webhook: Webhook, entered: QueryDict | None = None) -> Form:
        return ReplayForm(entered, initial={'since': self.request.GET.get('since')})

    def act(self, request: HttpRequest, webhook: Webhook, form: ReplayForm) -> HttpResponse:
        return confirmation.ask_or_redeliver(request, form.select(webhook), self.action, webhook.get_absolute_url())


@register_model_view(Webhook, 'send_waiting', path='send-waiting')
class WebhookSendWaitingView(FormView):
    """Sends waiting deliveries now: all of them, or only the latest change of each object."""

    action = actions.SEND_WAITING

    def make_form(self, webhook: Webhook, entered: QueryDict | None = None) -> Form:
        return SendWaitingForm(entered)

    def figures(self, webhook: Webhook) -> object:
        return send_waiting.measure(webhook)

    def act(self, request: HttpRequest, webhook: Webhook, form: SendWaitingForm) -> None:
        superseded = send_waiting.send(webhook, latest_only=form.latest_only)
        messages.success(request, send_waiting.announce(webhook, superseded, latest_only=form.latest_only))


@register_model_view(Webhook, 'backfill')
class WebhookBackfillView(FormView):
    """Asks which objects to send, and starts a backfill of these."""

    action = actions.BACKFILL

    def make_form(self, webhook: Webhook, entered: QueryDict | None = None) -> Form:
        return BackfillForm(entered, webhook=webhook)

    def act(self, request: HttpRequest, webhook: Webhook, form: BackfillForm) -> None:
        cleaned = form.cleaned_data
        choice = backfill.choose(webhook, cleaned['object_types'] or None, cleaned['filter'], request.user)
        backfill.start(webhook, choice, request.user)


@register_model_view(Webhook, 'rotate_secret', path='rotate-secret')
class WebhookRotateSecretView(FormView):
    """Generates a new secret, and shows it once on the webhook's page.

    For the time that the form says, requests are also signed with the present secret.
    """

    action = actions.ROTATE_SECRET

    def make_form(self, webhook: Webhook, entered: QueryDict | None = None) -> Form:
        return RotateSecretForm(entered, webhook=webhook)

    def act(self, request: HttpRequest, webhook: Webhook, form: RotateSecretForm) -> None:
        webhook, secret = secret_rotation.rotate(webhook.pk, form.cleaned_data['prefix'], form.overlap)
        secret_rotation.show_once(request.session, webhook, secret)
        sentences = [_('Requests are signed with the new secret from now on.'), both_sign(webhook)]
        messages.success(request, ' '.join(filter(None, sentences)))
