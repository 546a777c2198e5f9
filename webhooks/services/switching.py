"""Enables, disables, pauses and resumes webhooks."""

from django.contrib import messages
from django.db import transaction
from django.utils.translation import gettext as _
from utilities.exceptions import PermissionsViolation

from ..models import Webhook
from ..presentation import states
from ..visibility import Reader, permitted


@transaction.atomic
def switch(webhook: Webhook, **wanted: bool) -> None:
    """Set fields of a webhook, such as `paused=True`, and save it. In a request, NetBox's change log shows it."""
    webhook.snapshot()
    for name, value in wanted.items():
        setattr(webhook, name, value)
    webhook.save()


def resumed_message(webhook: Webhook) -> tuple[int, str]:
    """Return the level (of django.contrib.messages) and the text of the message after a webhook was resumed."""
    if state := states.hindering(webhook):
        text = _('Resumed, but nothing is sent yet. State of the webhook: {state}.').format(state=state.label)
        return messages.WARNING, text
    return messages.SUCCESS, _('Resumed. Waiting deliveries are sent.')


@transaction.atomic
def switch_as(webhook: Webhook, user: Reader, **wanted: bool) -> None:
    """Do the same for a user. Raises PermissionsViolation, and saves nothing, if the user may not change the result.

    A permission may cover only webhooks that are not paused. NetBox's forms refuse such a change too.
    """
    switch(webhook, **wanted)
    if not permitted(Webhook.objects.all(), user, 'change').filter(pk=webhook.pk).exists():
        raise PermissionsViolation
