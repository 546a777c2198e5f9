"""Disables a webhook after 410 Gone (RFC 9110, 15.5.11): its endpoint asks not to be called again.

The answer is noted on the health while the lane is held. The webhook is disabled later: a user may hold its row.
"""

import logging

from django.db.models import F
from extras.choices import JournalEntryKindChoices
from extras.models import JournalEntry

from ...models import Webhook
from .. import notifications, sql, transactions
from . import order

logger = logging.getLogger('webhooks.sender')


def disable() -> None:
    """Disable webhooks whose endpoints are gone, each in a transaction, with a journal entry and a notification.

    If somebody holds a webhook or its lane, or a plugin forbids to save it, that waits for another call. Raises
    BROKEN_OFF.
    """
    told = Webhook.objects.filter(enabled=True, health__gone_at__gt=F('last_updated')).order_by('pk')
    for pk in told.values_list('pk', flat=True):
        session = sql.session()
        try:
            with transactions.short():
                locked = order.lock([pk])  # its news is written to the lane
                free = told.filter(pk__in=locked).select_for_update(of=('self',), no_key=True, skip_locked=True)
                for webhook in free:
                    _disable(webhook)
        except Exception as error:
            # If somebody holds a table, it would wait for it with each webhook. So it ends with the first.
            if transactions.is_lock_timeout(error) or sql.is_broken_off(error, session):
                raise
            logger.exception('webhook=%s it cannot be disabled', pk)


def _disable(webhook: Webhook) -> None:
    webhook.enabled = False
    webhook.save(update_fields=['enabled', 'last_updated'])
    JournalEntry.objects.create(
        assigned_object=webhook,
        kind=JournalEntryKindChoices.KIND_WARNING,
        comments='Disabled: the endpoint answered HTTP 410 Gone.',
    )
    notifications.tell(webhook, notifications.DISABLED)
