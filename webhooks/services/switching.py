"""Enables, disables, pauses and resumes webhooks."""

from django.db import transaction

from ..models import Webhook


@transaction.atomic
def switch(webhook: Webhook, **wanted: bool) -> None:
    """Set fields of a webhook, such as `paused=True`, and save it. In a request, NetBox's change log shows it."""
    webhook.snapshot()
    for name, value in wanted.items():
        setattr(webhook, name, value)
    webhook.save()
