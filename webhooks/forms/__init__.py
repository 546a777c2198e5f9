from .backfill import BackfillForm
from .bulk_edit import WebhookBulkEditForm
from .bulk_import import ImportedTextForm, WebhookImportForm
from .filters import DeliveryFilterForm, EventFilterForm, WebhookFilterForm
from .replay import ReplayForm
from .secret import RotateSecretForm
from .waiting import SendWaitingForm
from .webhook import WebhookForm

__all__ = (
    'BackfillForm',
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
