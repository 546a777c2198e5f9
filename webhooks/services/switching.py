"""A webhook is enabled or disabled, paused or resumed."""

from django.db import transaction

from ..models import Webhook


@transaction.atomic
def switch(webhook: Webhook, **wanted: bool) -> None:
    """Set `enabled` or `paused` and save: the change log and the subscriptions listen to the save."""
    webhook.snapshot()
    for name, value in wanted.items():
        setattr(webhook, name, value)
    webhook.save()
