"""NetBox's pages of events."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from netbox.object_actions import BulkExport
from netbox.ui import layout
from netbox.ui.panels import ObjectsTablePanel, TemplatePanel
from netbox.views import generic
from utilities.views import register_model_view

from .. import filtersets, tables
from ..forms.filters import EventFilterForm
from ..models import Event, querysets
from ..payload_visibility import visible_events
from ..presentation.json_text import readable
from ..services import matching
from ..ui import panels


@register_model_view(Event, 'list', path='', detail=False)
class EventListView(generic.ObjectListView):
    """Lists events, with filters."""

    queryset = querysets.events()
    filterset = filtersets.EventFilterSet
    filterset_form = EventFilterForm
    table = tables.EventTable
    actions = (BulkExport,)


@register_model_view(Event)
class EventView(generic.ObjectView):
    """Shows an event: its data, its deliveries, and why other webhooks did not take it.

    A reader who may not view the object gets no data and no reasons.
    """

    queryset = Event.objects.all()
    actions = ()
    layout = layout.SimpleLayout(
        left_panels=[panels.EventPanel(), panels.EventStatePanel()],
        right_panels=[TemplatePanel('webhooks/panels/data.html', title=_('Data'))],
        bottom_panels=[
            ObjectsTablePanel(
                'webhooks.delivery',
                title=_('Deliveries'),
                filters={'event_id': lambda context: context['object'].pk},
                exclude_columns=['kind', 'object_type', 'object'],
            ),
            panels.PartPanel('refusals', 'webhooks/panels/refusals.html', title=_('Webhooks That Did Not Take It')),
        ],
    )

    def get_extra_context(self, request: HttpRequest, instance: Event) -> dict[str, Any]:
        visible = visible_events(request.user, [instance])
        explains = bool(visible) and instance.skipped and not instance.test
        return {
            'visible': bool(visible),
            'data': readable(instance.data),
            'refusals': matching.refusals_of(instance, request.user) if explains else None,
        }
