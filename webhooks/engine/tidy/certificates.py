"""The daily job tells of client certificates that end soon."""

import logging
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from django.utils import timezone

from ...models import Webhook
from .. import notifications, transactions

logger = logging.getLogger('webhooks.certificates')

SOON = timedelta(days=14)


def tell() -> None:
    for webhook in Webhook.objects.filter(enabled=True).exclude(client_cert_path=''):
        end = _end_of(webhook.client_cert_path)
        if end and end < timezone.now() + SOON:
            logger.warning('webhook=%s its client certificate ends at %s', webhook.pk, end.isoformat())
            with transactions.short():
                notifications.tell(webhook, notifications.CERTIFICATE_ENDS)


def _end_of(path: str) -> datetime | None:
    """None: deliveries tell that it cannot be used."""
    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
