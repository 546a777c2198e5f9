"""NetBox's pages of deliveries. Deliveries can be sent again here: selected ones, or all that a filter finds."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from netbox.object_actions import BulkExport
from netbox.ui import layout
from netbox.ui.panels import TemplatePanel
from netbox.views import generic
from netbox.views.generic.base import BaseMultiObjectView
from utilities.views import GetReturnURLMixin, register_model_view

from .. import filtersets, tables
from ..choices import StatusChoices
from ..forms.filters import DeliveryFilterForm
from ..models import Attempt, Delivery, querysets
from ..payload_visibility import visible_attempts, visible_deliveries
from ..presentation.headlines import headline
from ..presentation.json_text import readable
from ..services import confirmation, sent_bodies
from ..services.actions import REDELIVER
from ..storable import is_key
from ..ui import panels
from ..ui.buttons import BulkRedeliver, RedeliverFromHere, buttons
from .action_views import NeedsAction
from .checked_input import CheckedSelectionMixin, is_refused

# The newest attempts whose bodies a page shows. It makes them anew at each refresh.
SHOWN_BODIES = 10


@register_model_view(Delivery, 'list', path='', detail=False)
class DeliveryListView(generic.ObjectListView):
    """Lists deliveries, with filters. Selected ones can be redelivered."""

    queryset = querysets.deliveries()
    filterset = filtersets.DeliveryFilterSet
    filterset_form = DeliveryFilterForm
    table = tables.DeliveryTable
    actions = (BulkExport, BulkRedeliver)
    template_name = 'webhooks/delivery_list.html'


@register_model_view(Delivery)
class DeliveryView(generic.ObjectView):
    """Shows a delivery: the last answer, the body, all attempts, and its event.

    A reader who may not view the object gets no requests and no answers.
    """

    queryset = Delivery.objects.select_related('webhook', 'event')
    actions = (*buttons(Delivery), RedeliverFromHere)
    template_name = 'webhooks/delivery.html'
    layout = layout.SimpleLayout(
        left_panels=[
            panels.PartPanel('last', 'webhooks/panels/answer.html', title=gettext_lazy('Last Answer')),
            TemplatePanel('webhooks/panels/body.html', title=gettext_lazy('Request Body')),
        ],
        right_panels=[panels.DeliveryPanel(), panels.EventPanel(accessor='object.event', exclude=['kind'])],
        bottom_panels=[
            TemplatePanel('webhooks/panels/attempts.html', title=gettext_lazy('Attempts')),
            panels.ChangeSetPanel(
                'webhooks.delivery',
                title=gettext_lazy('Deliveries of the Change Set'),
                filters={
                    'change_set': lambda context: context['object'].change_set,
                    'webhook_id': lambda context: context['object'].webhook_id,
                },
            ),
        ],
    )

    def get_extra_context(self, request: HttpRequest, instance: Delivery) -> dict[str, Any]:
        attempts = visible_attempts(request.user, [instance.pk])[instance.pk]
        seen = [attempt for attempt in attempts if not attempt.is_restricted]
        for attempt in seen:
            attempt.answer = readable(attempt.response_body)
        newest = [attempt for attempt in attempts[:SHOWN_BODIES] if not attempt.is_restricted]
        sent_bodies.read_bodies(newest)
        may_see_next = bool(visible_deliveries(request.user, [instance]))
        last = next(iter(attempts), None)
        body = None
        if last is None or not last.is_restricted:
            body = sent_bodies.last_body(instance, attempts, may_build=may_see_next)
        for attempt in newest:
            # The page shows the last one above.
            if attempt is not last:
                attempt.other_body = sent_bodies.other_body_of(attempt, body)
        if len(attempts) > SHOWN_BODIES:
            attempts[SHOWN_BODIES].first_without_body = True
        return {
            'headline': headline(instance),
            'attempts': attempts,
            'last': last,
            'outcome': _outcome(last) if last else '',
            'is_restricted': len(seen) < len(attempts),
            'body': body,
            'next_body': sent_bodies.next_body(instance, body) if body and may_see_next else '',
        }


def _outcome(attempt: Attempt) -> str:
    """Return the answer's status with its name, if it failed for that. A broker only confirms."""
    if attempt.response_status is None:
        return _('No response') if attempt.error else _('Confirmed')
    status = f'HTTP {attempt.response_status}'
    return attempt.error if attempt.error.startswith(status) else status


@register_model_view(Delivery, 'bulk_redeliver', path='redeliver', detail=False)
class DeliveryBulkRedeliverView(NeedsAction, CheckedSelectionMixin, GetReturnURLMixin, BaseMultiObjectView):
    """Asks, then redelivers: by POST the deliveries selected in a list, by GET all that the address's filter finds.

    They are deliveries that the user may view and redeliver.
    """

    queryset = Delivery.objects.all()
    filterset = filtersets.DeliveryFilterSet
    action = REDELIVER

    def get(self, request: HttpRequest) -> HttpResponse:
        is_filtered = any(name in self.filterset.base_filters and value for name, value in request.GET.items())
        if not is_filtered:
            return redirect(self.get_return_url(request))
        return self._filtered(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        if request.POST.get('_all'):
            return self._filtered(request)
        pks = [pk for pk in request.POST.getlist('pk') if is_key(pk)]
        return self._answer(request, self.queryset.filter(pk__in=pks))

    def _filtered(self, request: HttpRequest) -> HttpResponse:
        filterset = self.filterset(request.GET, self.queryset, request=request)
        if is_refused(request, filterset):
            return redirect(self.get_return_url(request))
        # A superseded delivery's receiver got a later one. So it is sent again only if the filter names that status.
        is_asked = StatusChoices.SUPERSEDED in filterset.form.cleaned_data['status']
        found = filterset.qs if is_asked else filterset.qs.exclude(status=StatusChoices.SUPERSEDED)
        return self._answer(request, found, _all='1')

    def _answer(self, request: HttpRequest, deliveries: QuerySet[Delivery], **more: str) -> HttpResponse:
        return confirmation.ask_or_redeliver(request, deliveries, REDELIVER, self.get_return_url(request), **more)
