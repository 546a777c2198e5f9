"""NetBox's pages of definitions."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy
from extras.ui.panels import CustomFieldsPanel, TagsPanel
from netbox.object_actions import AddObject, BulkDelete, BulkExport, CloneObject, DeleteObject, EditObject
from netbox.ui import layout
from netbox.ui.panels import TemplatePanel
from netbox.views import generic
from utilities.views import register_model_view

from .. import filtersets, tables
from ..as_code.definitions import plan_of
from ..forms.as_code import DefinitionForm
from ..forms.filters import DefinitionFilterForm
from ..models import Definition
from ..ui import panels
from ..ui.buttons import buttons
from .checked_input import CheckedSelectionMixin


class OfDefinitions:
    """A mixin with the attributes that all views of definitions share."""

    queryset = Definition.objects.all()
    filterset = filtersets.DefinitionFilterSet
    table = tables.DefinitionTable


@register_model_view(Definition, 'list', path='', detail=False)
class DefinitionListView(OfDefinitions, generic.ObjectListView):
    """Lists definitions."""

    filterset_form = DefinitionFilterForm
    actions = (AddObject, BulkExport, BulkDelete)


@register_model_view(Definition)
class DefinitionView(generic.ObjectView):
    """Shows a definition, and with `?plan` the changes that applying it would make. That may take seconds."""

    queryset = Definition.objects.select_related('data_source', 'applied_by')
    actions = (*buttons(Definition), CloneObject, EditObject, DeleteObject)
    layout = layout.Layout(
        layout.Row(
            layout.Column(panels.DEFINITION_CARD),
            layout.Column(CustomFieldsPanel(), TagsPanel()),
        ),
        layout.Row(layout.Column(TemplatePanel('webhooks/panels/plan.html', title=gettext_lazy('Plan')))),
    )

    def get_extra_context(self, request: HttpRequest, instance: Definition) -> dict[str, Any]:
        is_planned = 'plan' in request.GET
        changes, refusal = plan_of(instance, request) if is_planned else ([], '')
        last_job = instance.jobs.order_by('-created').first()
        return {'is_planned': is_planned, 'changes': changes, 'refusal': refusal, 'last_job': last_job}


@register_model_view(Definition, 'add', detail=False)
@register_model_view(Definition, 'edit')
class DefinitionEditView(OfDefinitions, generic.ObjectEditView):
    """Shows the form that adds or changes a definition, and saves it with the user whose permissions it has then."""

    form = DefinitionForm

    def alter_object(self, obj: Definition, request: HttpRequest, url_args: Any, url_kwargs: Any) -> Definition:
        obj.applied_by = request.user
        return obj


@register_model_view(Definition, 'delete')
class DefinitionDeleteView(OfDefinitions, generic.ObjectDeleteView):
    """Asks, then deletes a definition. Its webhooks and credentials stay."""


@register_model_view(Definition, 'bulk_delete', path='delete', detail=False)
class DefinitionBulkDeleteView(OfDefinitions, CheckedSelectionMixin, generic.BulkDeleteView):
    """Asks, then deletes the selected definitions."""
