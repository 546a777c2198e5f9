"""The forms of NetBox's pages. The admin uses some of them.

webhook, credential, as_code: one object. definition: both forms of a webhook. action_forms: the questions of actions.
filters: beside lists. bulk_edit, bulk_import: many objects at once.
masked: stored secrets in forms. secret: a new signing secret.
form_fields: kinds of fields.
"""

from .action_forms import BackfillForm, ReplayForm, RotateSecretForm, SendNowForm, SendWaitingForm
from .as_code import DefinitionForm
from .bulk_edit import CredentialBulkEditForm, WebhookBulkEditForm
from .bulk_import import CredentialImportForm, ImportedTextForm, WebhookImportForm
from .credential import CredentialForm
from .filters import (
    CredentialFilterForm,
    DefinitionFilterForm,
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
    'DefinitionFilterForm',
    'DefinitionForm',
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
