"""Registers the events of a webhook's life as event types of NetBox: for event rules and notifications."""

from django.utils.translation import gettext_lazy as _
from netbox.events import EVENT_TYPE_KIND_DANGER, EVENT_TYPE_KIND_SUCCESS, EVENT_TYPE_KIND_WARNING, EventType


class TranslatedEventType(EventType):
    """An event type whose text is translated for each reader. NetBox's page of a rule calls str()."""

    def __str__(self) -> str:
        return str(self.text)


SUSPENDED = TranslatedEventType('webhook_suspended', _('Webhook suspended'), EVENT_TYPE_KIND_WARNING)
RESUMED = TranslatedEventType('webhook_resumed', _('Webhook resumed'), EVENT_TYPE_KIND_SUCCESS)
DISABLED = TranslatedEventType('webhook_disabled', _('Webhook disabled'), EVENT_TYPE_KIND_DANGER)
FAILED = TranslatedEventType('webhook_delivery_failed', _('Delivery failed'), EVENT_TYPE_KIND_DANGER)
BACKFILLED = TranslatedEventType('webhook_backfilled', _('Backfill completed'), EVENT_TYPE_KIND_SUCCESS)
BACKFILL_FAILED = TranslatedEventType('webhook_backfill_failed', _('Backfill failed'), EVENT_TYPE_KIND_DANGER)
CERTIFICATE_ENDS = TranslatedEventType(
    'webhook_certificate_ends', _('Client certificate ends soon'), EVENT_TYPE_KIND_WARNING
)
CREDENTIAL_ENDS = TranslatedEventType('webhook_credential_ends', _('Credential ends soon'), EVENT_TYPE_KIND_WARNING)

EVENT_TYPES = (SUSPENDED, RESUMED, DISABLED, FAILED, BACKFILLED, BACKFILL_FAILED, CERTIFICATE_ENDS, CREDENTIAL_ENDS)
EVENT_TYPE_NAMES = frozenset(event_type.name for event_type in EVENT_TYPES)


def register() -> None:
    """Add our types to NetBox's registry. Raises an exception if it has them already."""
    for event_type in EVENT_TYPES:
        event_type.register()
