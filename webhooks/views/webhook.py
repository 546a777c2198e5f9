import copy
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy
from extras.ui.panels import CustomFieldsPanel, TagsPanel
from netbox.object_actions import CloneObject, DeleteObject, EditObject
from netbox.ui import layout
from netbox.ui.panels import ObjectsTablePanel
from netbox.views import generic
from netbox.views.generic.base import BaseObjectView
from utilities.forms import restrict_form_fields
from utilities.permissions import get_permission_for_model
from utilities.views import ViewTab, register_model_view

from .. import filtersets, forms, tables
from ..models import Webhook
from ..presentation.fields import label
from ..presentation.states import with_states
from ..services import banners, feed, preview, preview_sources, secret_rotation
from ..ui import panels
from ..ui.buttons import More, Pause, Resume, SendTest
from .checked_input import CheckedRenameMixin, CheckedSelectionMixin
from .imports import ImportNowMixin

WEBHOOK, STATE, SOME_CHANGES, REQUEST, RETRIES, *REST = panels.cards()


@register_model_view(Webhook, 'list', path='', detail=False)
class WebhookListView(generic.ObjectListView):
    queryset = with_states(Webhook.objects.all())
    filterset = filtersets.WebhookFilterSet
    filterset_form = forms.WebhookFilterForm
    table = tables.WebhookTable


@register_model_view(Webhook)
class WebhookView(generic.ObjectView):
    queryset = Webhook.objects.select_related('health')
    actions = (SendTest, Pause, Resume, More, CloneObject, EditObject, DeleteObject)
    layout = layout.SimpleLayout(
        left_panels=[WEBHOOK, STATE, REQUEST, RETRIES],
        right_panels=[
            panels.HealthPanel(),
            panels.BackfillPanel(),
            panels.HistoryPanel(),
            SOME_CHANGES,
            panels.ConditionsPanel('conditions', title=label('conditions')),
            panels.ConditionsPanel('success_conditions', title=label('success_conditions')),
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
        return {
            'banners': banners.of(instance),
            'feed_unread': feed.unread_of(instance) if instance.is_feed else None,
            'new_secret': secret_rotation.take(request.session, instance),
        }


@register_model_view(Webhook, 'add', detail=False)
@register_model_view(Webhook, 'edit')
class WebhookEditView(generic.ObjectEditView):
    queryset = Webhook.objects.all()
    form = forms.WebhookForm
    template_name = 'webhooks/webhook_edit.html'
    htmx_template_name = 'webhooks/inc/webhook_form.html'

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if '_preset' in request.POST:
            return self._begin_anew(request, **kwargs)
        return super().post(request, *args, **kwargs)

    def _begin_anew(self, request: HttpRequest, **kwargs) -> HttpResponse:
        """Fill in the form by another preset. What was typed stays, but for a secret, which no page shows."""
        webhook = self.get_object(**kwargs)
        before = {'preset': request.POST.get('preset', '')}
        typed = self.form(request.POST, instance=copy.copy(webhook), initial=before).typed()
        form = self.form(instance=webhook, initial={**typed, 'preset': request.POST['_preset']})
        restrict_form_fields(form, request.user)
        context = {'form': form, 'object': webhook, **self.get_extra_context(request, webhook)}
        return render(request, self.htmx_template_name, context)

    def alter_object(self, obj: Webhook, request: HttpRequest, url_args: tuple, url_kwargs: dict) -> Webhook:
        # Keeps a generated secret, to be shown once.
        obj._session = request.session
        return obj

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        name = 'webhook_draft' if instance.pk else 'webhook_new_draft'
        kwargs = {'pk': instance.pk} if instance.pk else {}
        return {'draft_url': reverse(f'plugins:webhooks:{name}', kwargs=kwargs)}


@register_model_view(Webhook, 'new_draft', path='draft', detail=False)
@register_model_view(Webhook, 'draft')
class WebhookDraftView(BaseObjectView):
    """Shows what a form would send, beside it. Nothing is saved."""

    queryset = Webhook.objects.all()
    template_name = 'webhooks/inc/draft.html'

    def get_required_permission(self) -> str:
        return get_permission_for_model(Webhook, 'change' if self.kwargs.get('pk') else 'add')

    def post(self, request: HttpRequest, pk: int | None = None) -> HttpResponse:
        webhook = self.get_object(pk=pk) if pk else Webhook()
        text, source = request.POST.get('preview_name', ''), request.POST.get('preview_source', '')
        form = forms.WebhookForm(request.POST, instance=webhook)
        restrict_form_fields(form, request.user)
        shown = {'source': source, 'name': text, 'url': request.path}
        if wrong := form.errors_before_preview():
            return render(request, self.template_name, {**shown, 'wrong': wrong})
        draft = form.draft()
        shown |= {'choices': preview_sources.choices(draft, request.user, text)}
        return render(request, self.template_name, shown | preview.context(draft, request.user, source))


@register_model_view(Webhook, 'delete')
class WebhookDeleteView(generic.ObjectDeleteView):
    queryset = Webhook.objects.all()


@register_model_view(Webhook, 'bulk_import', path='import', detail=False)
class WebhookBulkImportView(ImportNowMixin, generic.BulkImportView):
    queryset = Webhook.objects.all()
    model_form = forms.WebhookImportForm


@register_model_view(Webhook, 'bulk_edit', path='edit', detail=False)
class WebhookBulkEditView(CheckedSelectionMixin, generic.BulkEditView):
    queryset = with_states(Webhook.objects.all())
    filterset = filtersets.WebhookFilterSet
    table = tables.WebhookTable
    form = forms.WebhookBulkEditForm


@register_model_view(Webhook, 'bulk_rename', path='rename', detail=False)
class WebhookBulkRenameView(CheckedRenameMixin, generic.BulkRenameView):
    queryset = Webhook.objects.all()
    filterset = filtersets.WebhookFilterSet


@register_model_view(Webhook, 'bulk_delete', path='delete', detail=False)
class WebhookBulkDeleteView(CheckedSelectionMixin, generic.BulkDeleteView):
    queryset = with_states(Webhook.objects.all())
    filterset = filtersets.WebhookFilterSet
    table = tables.WebhookTable


@register_model_view(Webhook, 'preview')
class WebhookPreviewView(generic.ObjectView):
    queryset = Webhook.objects.all()
    template_name = 'webhooks/webhook_preview.html'
    tab = ViewTab(label=gettext_lazy('Preview'), permission='webhooks.view_webhook', weight=500)

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        draft = preview.Draft.of(instance)
        source, text = request.GET.get('source', ''), request.GET.get('name', '')
        shown = preview.context(draft, request.user, source)
        return {**shown, 'choices': preview_sources.choices(draft, request.user, text), 'source': source, 'name': text}
