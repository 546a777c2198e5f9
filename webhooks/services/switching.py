"""Enables, disables, pauses and resumes webhooks."""

from django.db import transaction
from utilities.exceptions import PermissionsViolation

from ..models import Webhook
from ..visibility import Reader


@transaction.atomic
def switch(webhook: Webhook, **wanted: bool) -> None:
    """Set fields of a webhook, such as `paused=True`, and save it. In a request, NetBox's change log shows it."""
    webhook.snapshot()
    for name, value in wanted.items():
        setattr(webhook, name, value)
    webhook.save()


@transaction.atomic
def switch_as(webhook: Webhook, user: Reader, **wanted: bool) -> None:
    """Do the same for a user. Raises PermissionsViolation, and saves nothing, if the user may not change the result.

    A permission may cover only webhooks that are not paused. NetBox's forms refuse such a change too.
    """
    switch(webhook, **wanted)
    if not Webhook.objects.restrict(user, 'change').restrict(user, 'view').filter(pk=webhook.pk).exists():
        raise PermissionsViolation
