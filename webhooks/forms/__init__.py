from .backfill import BackfillForm
from .bulk_edit import WebhookBulkEditForm
from .bulk_import import ImportedTextForm, WebhookImportForm
from .credential import CredentialForm
from .filters import CredentialFilterForm, DeliveryFilterForm, EventFilterForm, WebhookFilterForm
from .replay import ReplayForm
from .secret import RotateSecretForm
from .waiting import SendWaitingForm
from .webhook import WebhookForm

__all__ = (
    'BackfillForm',
    'CredentialFilterForm',
    'CredentialForm',
    'DeliveryFilterForm',
    'EventFilterForm',
    'ImportedTextForm',
    'ReplayForm',
    'RotateSecretForm',
    'SendWaitingForm',
    'WebhookBulkEditForm',
    'WebhookFilterForm',
    'WebhookForm',
    'WebhookImportForm',
)
