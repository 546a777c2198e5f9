"""NetBox's pages of webhooks, but for the actions: these are in action_views.py and webhook_forms.py."""

import copy
from collections.abc import Sized
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from extras.ui.panels import CustomFieldsPanel, TagsPanel
from netbox.models.deletion import CountOnly
from netbox.object_actions import CloneObject, DeleteObject, EditObject, ObjectAction
from netbox.ui import layout
from netbox.ui.panels import ObjectsTablePanel, PluginContentPanel
from netbox.views import generic
from netbox.views.generic.base import BaseObjectView
from users.models import User
from utilities.forms import restrict_form_fields
from utilities.permissions import get_permission_for_model
from utilities.views import ViewTab, register_model_view

from .. import filtersets, tables
from ..exceptions import Busy, DefinitionError
from ..forms.bulk_edit import WebhookBulkEditForm
from ..forms.bulk_import import WebhookImportForm
from ..forms.filters import WebhookDeliveryFilterForm, WebhookFilterForm
from ..forms.webhook import WebhookForm
from ..models import Delivery, Webhook, querysets
from ..presentation import progress
from ..presentation.fields import label
from ..presentation.states import is_used, with_states, with_waiting
from ..services import causes, feed, lists, preview, preview_sources, secret_rotation, why_not_sent
from ..services.actions import BACKFILL, COMPARE, MOVES, REDELIVER
from ..ui import panels
from ..ui.buttons import BulkRedeliver
from .action_views import NeedsAction
from .checked_input import CheckedRenameMixin, CheckedSelectionMixin
from .imports import ImportNowMixin

# In the order of the groups in presentation/fields.py. Health shows the state already.
WEBHOOK_CARD, _STATE_CARD, SOME_CHANGES_CARD, REQUEST_CARD, RETRIES_CARD, *OTHER_CARDS = panels.cards()
# The webhook's page lists only the newest ones. The tab has them all.
DELIVERIES_ON_WEBHOOK_PAGE = 10


class OfWebhooks:
    """A mixin with the attributes that all views of webhooks share."""

    queryset = Webhook.objects.all()
    filterset = filtersets.WebhookFilterSet
    table = tables.WebhookTable


@register_model_view(Webhook, 'list', path='', detail=False)
class WebhookListView(OfWebhooks, generic.ObjectListView):
    """Lists webhooks with their states and the number of waiting deliveries."""

    queryset = with_waiting(with_states(Webhook.objects.select_related('health')))
    filterset_form = WebhookFilterForm


@register_model_view(Webhook)
@method_decorator(never_cache, name='dispatch')
class WebhookView(generic.ObjectView):
    """Shows how a webhook does, its last deliveries, and its settings.

    A new secret is shown here once, then it is forgotten.
    """

    queryset = Webhook.objects.select_related('health')
    # More buttons are on all tabs: see template_content.py.
    actions = (CloneObject, EditObject, DeleteObject)
    # First how the webhook does, then its last deliveries, then its settings.
    layout = layout.Layout(
        layout.Row(
            layout.Column(
                panels.HealthPanel(),
                panels.PartPanel('progress', 'webhooks/panels/backfill.html', title=gettext_lazy('Backfill')),
                panels.PartPanel('walking', 'webhooks/panels/walk.html', title=gettext_lazy('Config Contexts')),
                panels.PartPanel('lists', 'webhooks/panels/lists.html', title=gettext_lazy('Lists')),
            ),
            layout.Column(panels.HistoryPanel()),
        ),
        layout.Row(
            layout.Column(
                panels.PartPanel('causes', 'webhooks/panels/causes.html', title=gettext_lazy('Why Deliveries Failed')),
                ObjectsTablePanel(
                    'webhooks.delivery',
                    title=gettext_lazy('Last Deliveries'),
                    filters={
                        'webhook_id': lambda context: context['object'].pk,
                        'per_page': DELIVERIES_ON_WEBHOOK_PAGE,
                    },
                    exclude_columns=['webhook'],
                ),
            )
        ),
        layout.Row(
            layout.Column(WEBHOOK_CARD, REQUEST_CARD, RETRIES_CARD, PluginContentPanel('left_page')),
            layout.Column(
                SOME_CHANGES_CARD,
                panels.ConditionsPanel('conditions', title=label('conditions')),
                panels.ConditionsPanel('success_conditions', title=label('success_conditions')),
                panels.ConditionsPanel('fields', title=label('fields')),
                panels.ConditionsPanel('omit', title=label('omit')),
                panels.BodyTemplatePanel('body_template', title=label('body_template')),
                *OTHER_CARDS,
                CustomFieldsPanel(),
                TagsPanel(),
                PluginContentPanel('right_page'),
            ),
        ),
        layout.Row(layout.Column(PluginContentPanel('full_width_page'))),
    )

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        made = progress.of(instance, request.user)
        may_move = made and request.user.has_perm(BACKFILL.full_permission, instance)
        return {
            'progress': made,
            'moves': MOVES.get(made.backfill.state, ()) if may_move else (),
            'walking': progress.walking(instance, request.user),
            'lists': progress.lists_of(instance, request.user),
            'causes': causes.find(request.user, instance),
            'may_redeliver': request.user.has_perm(REDELIVER.full_permission),
            'banners': why_not_sent.banners_of(instance),
            'feed_unread': feed.unread_of(instance) if instance.is_feed else None,
            'new_secret': self._take_new_secret(request, instance),
        }

    def _take_new_secret(self, request: HttpRequest, webhook: Webhook) -> str:
        """Take the secret, which is shown once. A refreshed part of the page leaves it: the part does not show it."""
        is_seen = request.method == 'GET' and not request.htmx
        return secret_rotation.take(request.session, webhook) if is_seen else ''


@register_model_view(Webhook, 'deliveries')
class WebhookDeliveriesView(generic.ObjectChildrenView):
    """Lists the deliveries of one webhook, on a tab."""

    queryset = Webhook.objects.all()
    child_model = Delivery
    table = tables.DeliveryTable
    filterset = filtersets.DeliveryFilterSet
    filterset_form = WebhookDeliveryFilterForm
    actions = (CloneObject, EditObject, DeleteObject, BulkRedeliver)
    template_name = 'webhooks/webhook_deliveries.html'
    tab = ViewTab(label=gettext_lazy('Deliveries'), permission='webhooks.view_delivery', weight=400)
    additional_permissions = ['webhooks.view_delivery']

    def get_permitted_actions(self, user: User, model: type[Model] | None = None) -> list[type[ObjectAction]]:
        """Return bulk actions by permissions for deliveries, and other buttons by those for the webhook.

        NetBox asks for permissions of the children, but buttons beside the title are about the webhook.
        """
        of_webhook = super().get_permitted_actions(user, Webhook)
        of_deliveries = super().get_permitted_actions(user, Delivery)
        return [one for one in self.actions if one in (of_deliveries if one.multi else of_webhook)]

    def get_children(self, request: HttpRequest, parent: Webhook) -> QuerySet[Delivery]:
        return querysets.deliveries().filter(webhook=parent).restrict(request.user, 'view')

    def get_table(self, data: QuerySet, request: HttpRequest, bulk_actions: bool = True) -> tables.DeliveryTable:
        table = super().get_table(data, request, bulk_actions)
        table.columns.hide('webhook')
        return table

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        if not request.user.has_perm(REDELIVER.full_permission):
            return {}
        filters = request.GET.copy()
        filters['webhook_id'], filters['return_url'] = instance.pk, request.get_full_path()
        return {'redeliver_url': f'{reverse("plugins:webhooks:delivery_bulk_redeliver")}?{filters.urlencode()}'}


@register_model_view(Webhook, 'add', detail=False)
@register_model_view(Webhook, 'edit')
class WebhookEditView(OfWebhooks, generic.ObjectEditView):
    """Shows the form that adds or changes a webhook, and saves it.

    A POST with `_preset` only fills in the form by another preset.
    """

    form = WebhookForm
    template_name = 'webhooks/webhook_edit.html'
    htmx_template_name = 'webhooks/inc/webhook_form.html'

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if '_preset' in request.POST:
            return self._begin_anew(request, **kwargs)
        answer = super().post(request, *args, **kwargs)
        if answer.status_code == HTTPStatus.FOUND and not is_used(self.edited):
            messages.warning(request, preview_sources.WITHOUT_TYPES)
        if '_addanother' in request.POST and secret_rotation.is_waiting(request.session, self.edited):
            messages.warning(request, secret_rotation.waiting_message(self.edited))
        return answer

    def _begin_anew(self, request: HttpRequest, **kwargs) -> HttpResponse:
        """Return the form filled in by another preset. Typed values stay, but for a secret, which no page shows."""
        webhook = self.get_object(**kwargs)
        before = {'preset': request.POST.get('preset', '')}
        typed = self.form(request.POST, instance=copy.copy(webhook), initial=before).typed()
        form = self.form(instance=webhook, initial={**typed, 'preset': request.POST['_preset']})
        restrict_form_fields(form, request.user)
        context = {'form': form, 'object': webhook, **self.get_extra_context(request, webhook)}
        return render(request, self.htmx_template_name, context)

    def alter_object(self, obj: Webhook, request: HttpRequest, url_args: tuple, url_kwargs: dict) -> Webhook:
        # If the form generates a secret, it keeps the secret in the session, to be shown once.
        obj._session = request.session
        self.edited = obj
        return obj

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        name = 'webhook_draft' if instance.pk else 'webhook_new_draft'
        kwargs = {'pk': instance.pk} if instance.pk else {}
        return {'draft_url': reverse(f'plugins:webhooks:{name}', kwargs=kwargs)}


@register_model_view(Webhook, 'new_draft', path='draft', detail=False)
@register_model_view(Webhook, 'draft')
class WebhookDraftView(OfWebhooks, BaseObjectView):
    """Shows the request that the posted form would send, beside the form. Nothing is saved."""

    template_name = 'webhooks/inc/draft.html'

    def get_required_permission(self) -> str:
        return get_permission_for_model(Webhook, 'change' if self.kwargs.get('pk') else 'add')

    def post(self, request: HttpRequest, pk: int | None = None) -> HttpResponse:
        webhook = self.get_object(pk=pk) if pk else Webhook()
        form = WebhookForm(request.POST, instance=webhook)
        restrict_form_fields(form, request.user)
        return render(request, self.template_name, form.shown_draft(request))


@register_model_view(Webhook, 'delete')
class WebhookDeleteView(OfWebhooks, generic.ObjectDeleteView):
    """Asks, then deletes a webhook. The page says how many deliveries go too."""

    def _get_dependent_objects(self, obj: Webhook) -> dict[type[Model], Sized]:
        """Add the number of deliveries. NetBox finds none: the log has no foreign key to webhooks."""
        found = super()._get_dependent_objects(obj)
        logged = Delivery.objects.filter(webhook=obj).count()
        return {**found, Delivery: CountOnly(logged)} if logged else found


@register_model_view(Webhook, 'bulk_import', path='import', detail=False)
class WebhookBulkImportView(OfWebhooks, ImportNowMixin, generic.BulkImportView):
    """Adds or changes webhooks that are given as CSV, JSON or YAML."""

    model_form = WebhookImportForm


@register_model_view(Webhook, 'bulk_edit', path='edit', detail=False)
class WebhookBulkEditView(OfWebhooks, CheckedSelectionMixin, generic.BulkEditView):
    """Changes fields of the selected webhooks."""

    queryset = with_states(Webhook.objects.all())
    form = WebhookBulkEditForm


@register_model_view(Webhook, 'bulk_rename', path='rename', detail=False)
class WebhookBulkRenameView(OfWebhooks, CheckedRenameMixin, generic.BulkRenameView):
    """Replaces text in the names of the selected webhooks."""


@register_model_view(Webhook, 'bulk_delete', path='delete', detail=False)
class WebhookBulkDeleteView(OfWebhooks, CheckedSelectionMixin, generic.BulkDeleteView):
    """Asks, then deletes the selected webhooks."""

    queryset = with_states(Webhook.objects.all())
    template_name = 'webhooks/webhook_bulk_delete.html'


@register_model_view(Webhook, 'preview')
class WebhookPreviewView(OfWebhooks, generic.ObjectView):
    """Shows on a tab the request that a webhook would send for the chosen event or object. Nothing is sent."""

    template_name = 'webhooks/webhook_preview.html'
    tab = ViewTab(label=gettext_lazy('Preview'), permission='webhooks.view_webhook', weight=500)

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        draft = preview.Draft.of(instance)
        source, text = request.GET.get('source', ''), request.GET.get('name', '')
        shown = preview.context(draft, request.user, source)
        return {**shown, 'choices': preview_sources.choices(draft, request.user, text), 'source': source, 'name': text}


@register_model_view(Webhook, 'differences')
class WebhookDifferencesView(OfWebhooks, NeedsAction, generic.ObjectView):
    """Shows on a tab what *Compare now* would send. Nothing is sent."""

    action = COMPARE
    template_name = 'webhooks/webhook_differences.html'
    tab = ViewTab(
        label=gettext_lazy('Differences'),
        permission=COMPARE.full_permission,
        visible=lambda webhook: bool(webhook.filters),
        weight=510,
    )

    def get_extra_context(self, request: HttpRequest, instance: Webhook) -> dict[str, Any]:
        try:
            return {'lists': lists.differences(instance, request.user)}
        except (Busy, DefinitionError) as error:
            return {'problem': str(error)}
