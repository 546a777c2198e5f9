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


class OfCredentials:
    """A mixin with the attributes that all views of credentials share."""

    queryset = Credential.objects.all()
    filterset = filtersets.CredentialFilterSet
    table = tables.CredentialTable


@register_model_view(Credential, 'list', path='', detail=False)
class CredentialListView(OfCredentials, generic.ObjectListView):
    """Lists credentials, with filters and bulk actions."""

    filterset_form = CredentialFilterForm


@register_model_view(Credential)
class CredentialView(OfCredentials, generic.ObjectView):
    """Shows a credential, and below it the webhooks that use it."""

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
class CredentialEditView(OfCredentials, generic.ObjectEditView):
    """Shows the form that adds or changes a credential, and saves it."""

    form = CredentialForm
    template_name = 'webhooks/credential_edit.html'


@register_model_view(Credential, 'delete')
class CredentialDeleteView(OfCredentials, generic.ObjectDeleteView):
    """Asks, then deletes a credential. It is refused while a webhook uses the credential."""


@register_model_view(Credential, 'bulk_import', path='import', detail=False)
class CredentialBulkImportView(OfCredentials, ImportNowMixin, generic.BulkImportView):
    """Adds or changes credentials that are given as CSV, JSON or YAML."""

    model_form = CredentialImportForm


@register_model_view(Credential, 'bulk_edit', path='edit', detail=False)
class CredentialBulkEditView(OfCredentials, CheckedSelectionMixin, generic.BulkEditView):
    """Changes fields of the selected credentials."""

    form = CredentialBulkEditForm


@register_model_view(Credential, 'bulk_rename', path='rename', detail=False)
class CredentialBulkRenameView(OfCredentials, CheckedRenameMixin, generic.BulkRenameView):
    """Replaces text in the names of the selected credentials."""


@register_model_view(Credential, 'bulk_delete', path='delete', detail=False)
class CredentialBulkDeleteView(OfCredentials, CheckedSelectionMixin, generic.BulkDeleteView):
    """Asks, then deletes the selected credentials."""
