"""The daily job tells of client certificates and credentials that end soon."""

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

TOLD_BEFORE = timedelta(days=14)


def tell() -> None:
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
    """None: there is no certificate, or deliveries tell that it cannot be used."""
    if not path:
        return None
    try:
        end = x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
    return timezone.localdate(end)
