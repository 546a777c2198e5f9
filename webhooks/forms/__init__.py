"""The forms of NetBox's pages. The admin uses some of them."""

from .actions import BackfillForm, ReplayForm, RotateSecretForm, SendNowForm, SendWaitingForm
from .bulk_edit import CredentialBulkEditForm, WebhookBulkEditForm
from .bulk_import import CredentialImportForm, ImportedTextForm, WebhookImportForm
from .credential import CredentialForm
from .filters import (
    CredentialFilterForm,
    DeliveryFilterForm,
    EventFilterForm,
    WebhookDeliveryFilterForm,
    WebhookFilterForm,
)
from .webhook import WebhookForm

__all__ = (
    'BackfillForm',
    'CredentialBulkEditForm',
    'CredentialFilterForm',
    'CredentialForm',
    'CredentialImportForm',
    'DeliveryFilterForm',
    'EventFilterForm',
    'ImportedTextForm',
    'ReplayForm',
    'RotateSecretForm',
    'SendNowForm',
    'SendWaitingForm',
    'WebhookBulkEditForm',
    'WebhookDeliveryFilterForm',
    'WebhookFilterForm',
    'WebhookForm',
    'WebhookImportForm',
)
