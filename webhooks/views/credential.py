"""NetBox's pages of credentials."""

from django.utils.translation import gettext_lazy
from extras.ui.panels import CustomFieldsPanel, TagsPanel
from netbox.object_actions import CloneObject, DeleteObject, EditObject
from netbox.ui import layout
from netbox.ui.panels import ObjectsTablePanel
from netbox.views import generic
from utilities.views import register_model_view

from .. import filtersets, tables
from ..forms.bulk_edit import CredentialBulkEditForm
from ..forms.bulk_import import CredentialImportForm
from ..forms.credential import CredentialForm
from ..forms.filters import CredentialFilterForm
from ..models import Credential
from ..ui import panels
from .checked_input import CheckedRenameMixin, CheckedSelectionMixin
from .imports import ImportNowMixin


@register_model_view(Credential, 'list', path='', detail=False)
class CredentialListView(generic.ObjectListView):
    """Lists credentials, with filters and bulk actions."""

    queryset = Credential.objects.all()
    filterset = filtersets.CredentialFilterSet
    filterset_form = CredentialFilterForm
    table = tables.CredentialTable


@register_model_view(Credential)
class CredentialView(generic.ObjectView):
    """Shows a credential, and below it the webhooks that use it."""

    queryset = Credential.objects.all()
    actions = (CloneObject, EditObject, DeleteObject)
    layout = layout.SimpleLayout(
        left_panels=[panels.CREDENTIAL_CARD],
        right_panels=[CustomFieldsPanel(), TagsPanel()],
        bottom_panels=[
            ObjectsTablePanel(
                'webhooks.webhook',
                title=gettext_lazy('Webhooks'),
                filters={'credential_id': lambda context: context['object'].pk},
            ),
        ],
    )


@register_model_view(Credential, 'add', detail=False)
@register_model_view(Credential, 'edit')
class CredentialEditView(generic.ObjectEditView):
    """Shows the form that adds or changes a credential, and saves it."""

    queryset = Credential.objects.all()
    form = CredentialForm
    template_name = 'webhooks/credential_edit.html'


@register_model_view(Credential, 'delete')
class CredentialDeleteView(generic.ObjectDeleteView):
    """Asks, then deletes a credential. It is refused while a webhook uses the credential."""

    queryset = Credential.objects.all()


@register_model_view(Credential, 'bulk_import', path='import', detail=False)
class CredentialBulkImportView(ImportNowMixin, generic.BulkImportView):
    """Adds or changes credentials that are given as CSV, JSON or YAML."""

    queryset = Credential.objects.all()
    model_form = CredentialImportForm


@register_model_view(Credential, 'bulk_edit', path='edit', detail=False)
class CredentialBulkEditView(CheckedSelectionMixin, generic.BulkEditView):
    """Changes fields of the selected credentials."""

    queryset = Credential.objects.all()
    filterset = filtersets.CredentialFilterSet
    table = tables.CredentialTable
    form = CredentialBulkEditForm


@register_model_view(Credential, 'bulk_rename', path='rename', detail=False)
class CredentialBulkRenameView(CheckedRenameMixin, generic.BulkRenameView):
    """Replaces text in the names of the selected credentials."""

    queryset = Credential.objects.all()
    filterset = filtersets.CredentialFilterSet


@register_model_view(Credential, 'bulk_delete', path='delete', detail=False)
class CredentialBulkDeleteView(CheckedSelectionMixin, generic.BulkDeleteView):
    """Asks, then deletes the selected credentials."""

    queryset = Credential.objects.all()
    filterset = filtersets.CredentialFilterSet
    table = tables.CredentialTable
