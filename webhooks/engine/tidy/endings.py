"""Tells of client certificates and credentials that end soon. The daily job does it."""

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from cryptography import x509
from django.utils import timezone
from netbox.events import EventType

from ...models import Webhook
from .. import notifications, transactions

logger = logging.getLogger('webhooks.endings')

# How long before the end people are told, each day.
TOLD_BEFORE = timedelta(days=14)


def tell() -> None:
    """Log, and tell people and event rules, of each end within TOLD_BEFORE. Ends in the past count too.

    It looks at enabled webhooks, and tells of each end in a transaction of its own. Raises OperationalError if
    PostgreSQL breaks it off.
    """
    soon = timezone.localdate() + TOLD_BEFORE
    for webhook in Webhook.objects.filter(enabled=True).select_related('credential'):
        for event_type, end in _ends_of(webhook):
            if end <= soon:
                logger.warning('webhook=%s event=%s on %s', webhook.pk, event_type.name, end)
                with transactions.short():
                    notifications.tell(webhook, event_type)


def _ends_of(webhook: Webhook) -> Iterator[tuple[EventType, date]]:
    if end := _end_of_certificate(webhook.client_cert_path):
        yield notifications.CERTIFICATE_ENDS, end
    if webhook.credential and webhook.credential.valid_until:
        yield notifications.CREDENTIAL_ENDS, webhook.credential.valid_until


def _end_of_certificate(path: str) -> date | None:
    """Return the certificate's last day, in NetBox's time zone. None: none is set, or the file cannot be read.

    In the second case deliveries fail, and tell why.
    """
    if not path:
        return None
    try:
        end = x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
    return timezone.localdate(end)
