"""Actions on one webhook, each by a form or a button. Names, labels and permissions are in presentation/actions.py."""

from collections.abc import Callable

from core.signals import clear_events
from django.contrib import messages
from django.db import transaction
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from netbox.views.generic.base import BaseObjectView
from utilities.exceptions import AbortRequest, PermissionsViolation
from utilities.permissions import get_permission_for_model
from utilities.views import register_model_view

from .. import forms
from ..exceptions import Busy, DefinitionError
from ..models import Delivery, Webhook
from ..presentation import actions
from ..presentation.actions import Action
from ..presentation.states import both_sign
from ..services import backfill, secret_rotation, switching, trial, waiting
from .delivery import confirm_or_redeliver


class WebhookActionView(BaseObjectView):
    """The base of all actions: finds a webhook that the user may view, with the action's permission.

    A POST acts; a GET shows the form, or leads to the webhook if there is none. `Busy` becomes a message.
    """

    queryset = Webhook.objects.all()
    action: Action
    template_name = 'webhooks/webhook_action.html'

    def dispatch(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return super().dispatch(request, *args, **kwargs)
        except Busy as busy:
            messages.error(request, str(busy))
            return redirect(request.path)

    def get_required_permission(self) -> str:
        return get_permission_for_model(Webhook, self.action.permission)

    def get_queryset(self, request: HttpRequest):
        return super().get_queryset(request).restrict(request.user, 'view')

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return redirect(self.get_object(pk=pk).get_absolute_url())

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


@register_model_view(Webhook, 'test')
class WebhookTestView(WebhookActionView):
    """Sends a test, waits for the answer, and leads to its delivery, or to the webhook if that may not be viewed."""

    action = actions.TEST

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        try:
            delivery = trial.send_test(webhook, request.user)
        except DefinitionError as error:
            messages.error(request, str(error))
            return redirect(webhook.get_absolute_url())
        messages.add_message(request, *trial.announce(delivery))
        may_view = Delivery.objects.restrict(request.user, 'view').filter(pk=delivery.pk).exists()
        return redirect((delivery if may_view else webhook).get_absolute_url())


class WebhookSwitchView(WebhookActionView):
    """The base of pausing and resuming: saves `paused` as `is_paused` says, then shows `told`.

    If NetBox refuses the change, nothing is saved, and the reason is shown.
    """

    is_paused: bool
    told: str

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        try:
            with transaction.atomic():
                switching.switch(webhook, paused=self.is_paused)
                # A permission may cover only webhooks that are not paused. As in NetBox, such a change is refused.
                if not self.queryset.filter(pk=pk).exists():
                    raise PermissionsViolation
        except (AbortRequest, PermissionsViolation) as refusal:
            clear_events.send(sender=type(self))
            messages.error(request, refusal.message)
        else:
            messages.success(request, self.told)
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'pause')
class WebhookPauseView(WebhookSwitchView):
    """Pauses the webhook: its changes are recorded, and wait."""

    action, is_paused = actions.PAUSE, True
    told = gettext_lazy('Paused. Resume the webhook before its changes expire.')


@register_model_view(Webhook, 'resume')
class WebhookResumeView(WebhookSwitchView):
    """Resumes the webhook: its waiting deliveries are sent."""

    action, is_paused = actions.RESUME, False
    told = gettext_lazy('Resumed. Waiting deliveries are sent.')


@register_model_view(Webhook, 'replay')
class WebhookReplayView(WebhookActionView):
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
class WebhookSendWaitingView(WebhookActionView):
    """Sends waiting deliveries now: all of them, or only the latest change of each object."""

    action = actions.SEND_WAITING

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self.render_form(request, webhook, forms.SendWaitingForm(), waiting.measure(webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.SendWaitingForm(request.POST)
        if not form.is_valid():
            return self.render_form(request, webhook, form, waiting.measure(webhook))
        superseded = waiting.send(webhook, latest_only=form.latest_only)
        messages.success(request, waiting.announce(webhook, superseded, latest_only=form.latest_only))
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'backfill')
class WebhookBackfillView(WebhookActionView):
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


class WebhookMoveView(WebhookActionView):
    """The base of the buttons of a backfill: calls `move` with the webhook.

    If that is refused, the reason is shown.
    """

    move: Callable[[Webhook], object]

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        try:
            self.move(webhook)
        except DefinitionError as error:
            messages.error(request, str(error))
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'pause_backfill', path='backfill/pause')
class WebhookPauseBackfillView(WebhookMoveView):
    """Pauses the webhook's running backfill."""

    action, move = actions.PAUSE_BACKFILL, staticmethod(backfill.pause)


@register_model_view(Webhook, 'resume_backfill', path='backfill/resume')
class WebhookResumeBackfillView(WebhookMoveView):
    """Resumes the webhook's paused backfill."""

    action, move = actions.RESUME_BACKFILL, staticmethod(backfill.resume)


@register_model_view(Webhook, 'cancel_backfill', path='backfill/cancel')
class WebhookCancelBackfillView(WebhookMoveView):
    """Cancels the webhook's backfill, and removes its untried deliveries."""

    action, move = actions.CANCEL_BACKFILL, staticmethod(backfill.cancel)


@register_model_view(Webhook, 'rotate_secret', path='rotate-secret')
class WebhookRotateSecretView(WebhookActionView):
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
