"""The forms of NetBox's pages. The admin uses some of them.

webhook, credential: one object. definition: what the admin's form of a webhook shares. actions: what an action asks.
filters: beside lists. bulk_edit, bulk_import: many objects at once.
masked: stored secrets in forms. secret: a new signing secret.
fields: kinds of fields.
"""

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
