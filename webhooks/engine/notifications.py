"""Tells chosen users and NetBox's event rules of a webhook's trouble, such as a suspension or a certificate's end.

A rule may do anything, such as call Redis. So its news is noted in the transaction, and told when things are tidied.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

from core.models import ObjectType
from cryptography import x509
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from extras.events import EventContext, process_event_rules
from extras.models import EventRule, Notification
from netbox.events import EventType
from redis import RedisError
from users.models import User

from ..event_types import (  # noqa: F401  (who tells them names them here)
    BACKFILL_FAILED,
    BACKFILLED,
    CERTIFICATE_ENDS,
    CREDENTIAL_ENDS,
    DISABLED,
    EVENT_TYPES,
    FAILED,
    RESUMED,
    SUSPENDED,
    TranslatedEventType,
)
from ..interruptions import INTERRUPTIONS
from ..models import Webhook
from ..outbox import redis_queue
from . import sql

logger = logging.getLogger('webhooks.notifications')
endings_logger = logging.getLogger('webhooks.endings')

# How long before a certificate or a credential ends people are told, each day.
ENDINGS_TOLD_BEFORE = timedelta(days=14)

# A lane without the news to a lane with them, for tell_rules().
NOTE_NEWS = 'UPDATE webhooks_health SET news = news || %(name)s::text WHERE webhook_id = %(webhook)s'

# A lane with news to one without. It returns them.
TAKE_NEWS = """
    WITH told AS (
        SELECT webhook_id, news FROM webhooks_health WHERE news <> '{}' LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE webhooks_health h SET news = '{}' FROM told WHERE h.webhook_id = told.webhook_id
    RETURNING told.webhook_id, told.news"""


def tell(webhook: Webhook, event_type: EventType) -> None:
    """Notify the webhook's recipients, and note the news for event rules, both in the open transaction.

    If a row is locked, or anything else fails, that is logged and the transaction goes on. Raises INTERRUPTIONS: then
    the transaction cannot go on anyway.
    """
    _try(_note, webhook, event_type)
    _try(_write, webhook, event_type)


def tell_rules() -> bool:
    """Take one webhook's news from its lane, and let NetBox's event rules act on them. Returns whether there was any.

    A rule that fails is logged. Raises RedisError if NetBox's Redis is away: the news stay until the next call.
    """
    with sql.transaction():
        told = sql.fetch(TAKE_NEWS)
        if told:
            # Rules enqueue after the commit, too late to wait.
            redis_queue.connect('default').ping()
        for pk, names in told:
            for webhook in Webhook.objects.filter(pk=pk):
                for name in names:
                    _tell_rules(webhook, name)
    return bool(told)


def _tell_rules(webhook: Webhook, name: str) -> None:
    object_type = ObjectType.objects.get_for_model(Webhook)
    context = {'object_type': object_type, 'object_id': webhook.pk, 'object': webhook, 'event_type': name, 'user': None}
    for rule in _rules(name):
        try:
            with transaction.atomic():
                process_event_rules([rule], object_type, EventContext(context))
        except (*INTERRUPTIONS, RedisError):
            raise
        except Exception:
            logger.exception('webhook=%s event=%s rule=%s failed', webhook.pk, name, rule)


def _rules(name: str) -> QuerySet[EventRule]:
    object_type = ObjectType.objects.get_for_model(Webhook)
    return EventRule.objects.filter(enabled=True, object_types=object_type, event_types__contains=[name])


def _note(webhook: Webhook, event_type: EventType) -> None:
    if _rules(event_type.name).exists():
        sql.execute(NOTE_NEWS, {'webhook': webhook.pk, 'name': event_type.name})


def _try(write: Callable[[Webhook, EventType], None], webhook: Webhook, event_type: EventType) -> None:
    try:
        with transaction.atomic():
            sql.set_lock_timeout(sql.TABLE_LOCK_MS)
            write(webhook, event_type)
            # Otherwise a user deleted just now would undo the whole transaction.
            connection.check_constraints()
            sql.set_lock_timeout()
    except INTERRUPTIONS as error:
        if not sql.is_lock_timeout(error):
            raise
        logger.warning('webhook=%s event=%s nobody was notified: a row was locked', webhook.pk, event_type.name)
    except Exception:
        logger.exception('webhook=%s event=%s nobody was notified', webhook.pk, event_type.name)


def recipients(webhook: Webhook) -> QuerySet[User]:
    """Return the active users in the webhook's notification groups, themselves or by a group of users."""
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


def tell_endings() -> None:
    """Tell of client certificates and credentials that end within ENDINGS_TOLD_BEFORE, or ended. The daily job does it.

    It looks at enabled webhooks. Of each end it tells the log, people and event rules, in a transaction of its own.
    Raises OperationalError if PostgreSQL breaks it off.
    """
    soon = timezone.localdate() + ENDINGS_TOLD_BEFORE
    for webhook in Webhook.objects.filter(enabled=True).select_related('credential'):
        for event_type, end in _ends_of(webhook):
            if end <= soon:
                endings_logger.warning('webhook=%s event=%s on %s', webhook.pk, event_type.name, end)
                with sql.transaction():
                    tell(webhook, event_type)


def _ends_of(webhook: Webhook) -> Iterator[tuple[EventType, date]]:
    if end := _end_of_certificate(webhook.client_cert_path):
        yield CERTIFICATE_ENDS, end
    if webhook.credential and webhook.credential.valid_until:
        yield CREDENTIAL_ENDS, webhook.credential.valid_until


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
