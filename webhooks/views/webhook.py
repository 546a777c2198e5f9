"""The pages of webhooks."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from core.signals import clear_events
from django.contrib import messages
from django.db import DataError
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from extras.ui.panels import CustomFieldsPanel, TagsPanel
from netbox.choices import ImportMethodChoices
from netbox.object_actions import CloneObject, DeleteObject, EditObject
from netbox.ui import layout
from netbox.ui.panels import ObjectsTablePanel
from netbox.views import generic
from netbox.views.generic.base import BaseObjectView
from utilities.permissions import get_permission_for_model
from utilities.views import ViewTab, register_model_view

from .. import filtersets, forms, tables
from ..engine.lanes import Busy
from ..exceptions import DefinitionError
from ..models import Delivery, Webhook
from ..presentation import actions
from ..presentation.actions import Action
from ..presentation.fields import label
from ..services import backfill, banners, preview, redelivery, secret_rotation, trial, waiting
from ..ui import panels
from ..ui.buttons import Backfill, Replay, RotateSecret, SendTest, SendWaiting
from .selection import CheckedListMixin, CheckedReturnMixin, CheckedSelectionMixin

WEBHOOK, STATE, SOME_CHANGES, REQUEST, RETRIES, *REST = panels.cards()


@register_model_view(Webhook, 'list', path='', detail=False)
class WebhookListView(CheckedListMixin, generic.ObjectListView):
    queryset = Webhook.objects.all()
    filterset = filtersets.WebhookFilterSet
    filterset_form = forms.WebhookFilterForm
    table = tables.WebhookTable


@register_model_view(Webhook)
class WebhookView(generic.ObjectView):
    queryset = Webhook.objects.select_related('health')
    actions = (SendTest, SendWaiting, Replay, Backfill, RotateSecret, CloneObject, EditObject, DeleteObject)
    layout = layout.SimpleLayout(
        left_panels=[WEBHOOK, STATE, REQUEST, RETRIES],
        right_panels=[
            panels.HealthPanel(),
            panels.BackfillPanel(),
            panels.HistoryPanel(),
            SOME_CHANGES,
            panels.ConditionsPanel('conditions', title=label('conditions')),
            panels.BodyTemplatePanel('body_template', title=label('body_template')),
            *REST,
            CustomFieldsPanel(),
            TagsPanel(),
        ],
        bottom_panels=[
            ObjectsTablePanel(
                'webhooks.delivery',
                title=gettext_lazy('Deliveries'),
                filters={'webhook_id': lambda context: context['object'].pk},
                exclude_columns=['webhook'],
            ),
        ],
    )

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        return {'banners': banners.of(instance), 'new_secret': secret_rotation.take(request.session, instance)}


@register_model_view(Webhook, 'add', detail=False)
@register_model_view(Webhook, 'edit')
class WebhookEditView(CheckedReturnMixin, generic.ObjectEditView):
    queryset = Webhook.objects.all()
    form = forms.WebhookForm
    template_name = 'webhooks/webhook_edit.html'

    def alter_object(self, obj: Webhook, request: HttpRequest, url_args: tuple, url_kwargs: dict) -> Webhook:
        # As NetBox does it for tokens: the form leaves a generated secret there, to be shown once.
        obj._session = request.session
        return obj


@register_model_view(Webhook, 'delete')
class WebhookDeleteView(CheckedReturnMixin, generic.ObjectDeleteView):
    queryset = Webhook.objects.all()


@register_model_view(Webhook, 'bulk_import', path='import', detail=False)
class WebhookBulkImportView(CheckedReturnMixin, generic.BulkImportView):
    queryset = Webhook.objects.all()
    model_form = forms.WebhookImportForm

    def post(self, request: HttpRequest) -> HttpResponse:
        """Import at once: a job would keep what is entered, secrets too, in Redis."""
        form = forms.ImportedTextForm(request.POST, request.FILES)
        if not form.is_valid():
            return self._refuse(request, form)
        for file in request.FILES.values():
            file.seek(0)
        entered = request.POST.copy()
        if entered.pop('background_job', None):
            request.POST = entered
            messages.info(request, _('Webhooks are imported at once, so that their secrets are stored nowhere else.'))
        return super().post(request)

    def _refuse(self, request: HttpRequest, form: Form) -> HttpResponse:
        """As NetBox's view shows a form that is not valid."""
        shown = {
            'model': Webhook,
            'form': form,
            'fields': self._get_form_fields(),
            'import_method': request.POST.get('import_method') or ImportMethodChoices.DIRECT,
            'return_url': self.get_return_url(request),
            **self.get_extra_context(request),
        }
        return render(request, self.template_name, shown)


@register_model_view(Webhook, 'bulk_edit', path='edit', detail=False)
class WebhookBulkEditView(CheckedSelectionMixin, generic.BulkEditView):
    queryset = Webhook.objects.all()
    filterset = filtersets.WebhookFilterSet
    table = tables.WebhookTable
    form = forms.WebhookBulkEditForm


@register_model_view(Webhook, 'bulk_rename', path='rename', detail=False)
class WebhookBulkRenameView(CheckedSelectionMixin, generic.BulkRenameView):
    queryset = Webhook.objects.all()
    filterset = filtersets.WebhookFilterSet

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        """NetBox's own view fails at a name that is longer than its column."""
        try:
            return super().post(request, *args, **kwargs)
        except DataError as error:
            clear_events.send(sender=type(self))
            messages.error(request, str(error).partition('\n')[0])
            return redirect(self.get_return_url(request))


@register_model_view(Webhook, 'bulk_delete', path='delete', detail=False)
class WebhookBulkDeleteView(CheckedSelectionMixin, generic.BulkDeleteView):
    queryset = Webhook.objects.all()
    filterset = filtersets.WebhookFilterSet
    table = tables.WebhookTable


class WebhookActionView(BaseObjectView):
    """Needs the permission of its action, beside the one to view."""

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

    def render_form(self, request: HttpRequest, webhook: Webhook, form: Form, figures: object = '') -> HttpResponse:
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
    action = actions.TEST

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return redirect(self.get_object(pk=pk).get_absolute_url())

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


@register_model_view(Webhook, 'replay')
class WebhookReplayView(WebhookActionView):
    """Asks for the range of time, and redelivers its events."""

    action = actions.REPLAY

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self.render_form(request, self.get_object(pk=pk), forms.ReplayForm())

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.ReplayForm(request.POST)
        if not form.is_valid():
            return self.render_form(request, webhook, form)
        count = self._replay(webhook, **form.cleaned_data)
        messages.success(request, redelivery.announce(count))
        return redirect(webhook.get_absolute_url())

    def _replay(self, webhook: Webhook, since: datetime, until: datetime, status: str) -> int:
        return redelivery.replay(webhook, since, until, status or None)


@register_model_view(Webhook, 'send_waiting', path='send-waiting')
class WebhookSendWaitingView(WebhookActionView):
    """Says what waits, and asks whether all of it is sent."""

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
    """Asks which objects, and starts to send them."""

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
    """Changes the state of the backfill."""

    move: Callable[[Webhook], object]

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return redirect(self.get_object(pk=pk).get_absolute_url())

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        try:
            self.move(webhook)
        except DefinitionError as error:
            messages.error(request, str(error))
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'pause_backfill', path='backfill/pause')
class WebhookPauseBackfillView(WebhookMoveView):
    action, move = actions.PAUSE_BACKFILL, staticmethod(backfill.pause)


@register_model_view(Webhook, 'resume_backfill', path='backfill/resume')
class WebhookResumeBackfillView(WebhookMoveView):
    action, move = actions.RESUME_BACKFILL, staticmethod(backfill.resume)


@register_model_view(Webhook, 'cancel_backfill', path='backfill/cancel')
class WebhookCancelBackfillView(WebhookMoveView):
    action, move = actions.CANCEL_BACKFILL, staticmethod(backfill.cancel)


@register_model_view(Webhook, 'rotate_secret', path='rotate-secret')
class WebhookRotateSecretView(WebhookActionView):
    """Asks how, and shows the new secret once, on the webhook's page."""

    action = actions.ROTATE_SECRET

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        return self.render_form(request, webhook, forms.RotateSecretForm(webhook=webhook))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        webhook = self.get_object(pk=pk)
        form = forms.RotateSecretForm(request.POST, webhook=webhook)
        if not form.is_valid():
            return self.render_form(request, webhook, form)
        webhook, secret = secret_rotation.rotate(webhook.pk, form.cleaned_data['prefix'], form.overlap)
        secret_rotation.show_once(request.session, webhook, secret)
        messages.success(request, _('Requests are signed with the new secret from now on.'))
        return redirect(webhook.get_absolute_url())


@register_model_view(Webhook, 'preview')
class WebhookPreviewView(generic.ObjectView):
    queryset = Webhook.objects.all()
    template_name = 'webhooks/webhook_preview.html'
    tab = ViewTab(label=gettext_lazy('Preview'), permission='webhooks.view_webhook', weight=500)

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        return preview.context(instance, request.user)
