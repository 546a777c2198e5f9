"""NetBox's notifications: who was chosen is told that a webhook needs a look.

They are written in the transaction that records what happened, so they are not made twice. NetBox keeps one
notification for a user and an object: the last thing that happened, unread again. Where an open transaction of a user
holds it, what happened is recorded and nobody is told.
"""

import logging

from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _
from extras.models import Notification
from netbox.events import EVENT_TYPE_KIND_DANGER, EVENT_TYPE_KIND_SUCCESS, EVENT_TYPE_KIND_WARNING, EventType
from users.models import User

from ..interruptions import INTERRUPTIONS
from ..models import Webhook
from . import transactions

logger = logging.getLogger('webhooks.notifications')


class TranslatedEventType(EventType):
    """Its text is translated when it is shown, for who reads it. NetBox's page of a rule asks for str() of it."""

    def __str__(self) -> str:
        return str(self.text)


SUSPENDED = TranslatedEventType('webhook_suspended', _('Webhook suspended'), EVENT_TYPE_KIND_WARNING)
DISABLED = TranslatedEventType('webhook_disabled', _('Webhook disabled'), EVENT_TYPE_KIND_DANGER)
FAILED = TranslatedEventType('webhook_delivery_failed', _('Delivery failed'), EVENT_TYPE_KIND_DANGER)
BACKFILLED = TranslatedEventType('webhook_backfilled', _('Backfill completed'), EVENT_TYPE_KIND_SUCCESS)
BACKFILL_FAILED = TranslatedEventType('webhook_backfill_failed', _('Backfill failed'), EVENT_TYPE_KIND_DANGER)

EVENT_TYPES = (SUSPENDED, DISABLED, FAILED, BACKFILLED, BACKFILL_FAILED)


def register() -> None:
    """Make the types of event known to NetBox, which shows their texts and icons. Called by ready()."""
    for event_type in EVENT_TYPES:
        event_type.register()


def tell(webhook: Webhook, event_type: EventType) -> None:
    """Notify those whom the webhook's groups hold, in the open transaction, which goes on whatever comes of it."""
    try:
        with transaction.atomic():
            transactions.set_lock_timeout(200)
            _write(webhook, event_type)
            # A user who was deleted just now would else undo the whole transaction at its end.
            connection.check_constraints()
    except INTERRUPTIONS as error:
        if not transactions.is_lock_timeout(error):
            raise
        logger.warning('webhook=%s event=%s nobody was notified: somebody holds a row', webhook.pk, event_type.name)
    except Exception:
        logger.exception('webhook=%s event=%s nobody was notified', webhook.pk, event_type.name)


def recipients(webhook: Webhook) -> QuerySet[User]:
    """Return the active users of the groups that the webhook notifies, each once."""
    groups = webhook.notification_groups.all()
    chosen = Q(notification_groups__in=groups) | Q(groups__notification_groups__in=groups)
    return User.objects.filter(chosen, is_active=True).distinct()


def _write(webhook: Webhook, event_type: EventType) -> None:
    object_type = ContentType.objects.get_for_model(Webhook)
    Notification.objects.bulk_create(
        [
            Notification(
                user=user,
                object_type=object_type,
                object_id=webhook.pk,
                object_repr=Notification.get_object_repr(webhook),
                event_type=event_type.name,
            )
            for user in recipients(webhook)
        ],
        update_conflicts=True,
        unique_fields=['object_type', 'object_id', 'user'],
        update_fields=['event_type', 'object_repr', 'created', 'read'],
    )
