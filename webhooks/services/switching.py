from django.db import transaction

from ..models import Webhook


@transaction.atomic
def switch(webhook: Webhook, **wanted: bool) -> None:
    webhook.snapshot()
    for name, value in wanted.items():
        setattr(webhook, name, value)
    webhook.save()
