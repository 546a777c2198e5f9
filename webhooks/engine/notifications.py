"""Notifies chosen users and NetBox's event rules of a webhook's trouble, such as a suspension or a certificate's end.

A rule may do anything, such as call Redis. So the transaction only stores a notice. Rules are run later, when the
log is tidied.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

from core.models import ObjectType
from cryptography import x509
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from extras.events import EventContext, process_event_rules
from extras.models import EventRule, Notification
from netbox.events import EventType
from redis import RedisError

from ..event_types import (  # noqa: F401  (those who notify name them here)
    BACKFILL_FAILED,
    BACKFILLED,
    CERTIFICATE_ENDS,
    CREDENTIAL_ENDS,
    DISABLED,
    FAILED,
    RESUMED,
    SUSPENDED,
)
from ..interruptions import INTERRUPTIONS
from ..models import Webhook
from ..outbox import redis_queue
from . import sql

logger = logging.getLogger('webhooks.notifications')
endings_logger = logging.getLogger('webhooks.endings')

# From this long before a certificate or a credential expires, people are notified of it each day.
ENDINGS_NOTIFIED_BEFORE = timedelta(days=14)

# A webhook, and the type of its event.
Notice = tuple[Webhook, EventType]

# Add notices to their webhooks' lanes, in the given order, for notify_rules().
ADD_NOTICES = """
    UPDATE webhooks_health h SET notices = h.notices || v.names
    FROM (
        SELECT webhook_id, array_agg(name ORDER BY position) AS names
        FROM unnest(%s::bigint[], %s::text[]) WITH ORDINALITY AS v(webhook_id, name, position) GROUP BY webhook_id
    ) v
    WHERE h.webhook_id = v.webhook_id"""

# Take all notices from one lane, and return them.
TAKE_NOTICES = """
    WITH taken AS (
        SELECT webhook_id, notices FROM webhooks_health WHERE notices <> '{}' LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE webhooks_health h SET notices = '{}' FROM taken WHERE h.webhook_id = taken.webhook_id
    RETURNING taken.webhook_id, taken.notices"""


def notify(*notices: Notice) -> None:
    """Notify the webhooks' recipients, and keep the notices for event rules, all in the open transaction.

    If a webhook has several notices, its recipients read the last. If a row is locked, or anything else fails, that is
    logged, and the rest of the notices and the transaction go on. If a table is locked, nobody is notified. Raises
    INTERRUPTIONS: then the transaction cannot go on.
    """
    if notices:
        _try(_note, notices)
        _try(_write, notices)


def notify_rules() -> bool:
    """Take one webhook's notices from its lane, and run NetBox's event rules on them. Returns whether there were any.

    A rule that fails is logged. Raises RedisError if NetBox's Redis is away, and OperationalError if a table is locked:
    the notices stay until the next call, unless a rule was running.
    """
    with sql.transaction():
        sql.set_lock_timeout(sql.TABLE_LOCK_MS)
        taken = sql.fetch(TAKE_NOTICES)
        if taken:
            # Rules enqueue jobs after the commit. If Redis failed then, the notices would be gone: so it is asked
            # before.
            redis_queue.connect('default').ping()
        rules = [(pk, name, rule) for pk, names in taken for name in names for rule in _rules(name)]
    # A plugin's action may take long. In the transaction, PostgreSQL would end that, and the next call run it again.
    for pk, name, rule in rules:
        for webhook in Webhook.objects.filter(pk=pk):
            _run_rule(webhook, name, rule)
    return bool(taken)


def _run_rule(webhook: Webhook, name: str, rule: EventRule) -> None:
    object_type = ObjectType.objects.get_for_model(Webhook)
    context = {'object_type': object_type, 'object_id': webhook.pk, 'object': webhook, 'event_type': name, 'user': None}
    try:
        with transaction.atomic():
            sql.set_lock_timeout()
            process_event_rules([rule], object_type, EventContext(context))
    except (*INTERRUPTIONS, RedisError):
        raise
    except Exception:
        logger.exception('webhook=%s name=%r event=%s rule=%s failed', webhook.pk, webhook.name, name, rule)


def _rules(name: str) -> QuerySet[EventRule]:
    object_type = ObjectType.objects.get_for_model(Webhook)
    return EventRule.objects.filter(enabled=True, object_types=object_type, event_types__contains=[name])


def _note(notices: Sequence[Notice]) -> None:
    asked = {name for name in {event_type.name for _webhook, event_type in notices} if _rules(name).exists()}
    noted = [(webhook.pk, event_type.name) for webhook, event_type in notices if event_type.name in asked]
    if noted:
        sql.execute(ADD_NOTICES, [list(column) for column in zip(*noted, strict=True)])


def _try(write: Callable[[Sequence[Notice]], None], notices: Sequence[Notice]) -> None:
    """Write the notices together. If that fails, each is written alone: one may be to blame.

    If locks stop two of them, the rest is given up. Probably a table is locked, and a thousand webhooks that are
    suspended at once would wait for it one by one.
    """
    error = _attempt(write, notices)
    if error is None:
        return
    locks = 0
    for number, one in enumerate(notices, 1):
        if error := error if len(notices) == 1 else _attempt(write, [one]):
            locks += sql.is_lock_timeout(error)
            _log_failed([one], error)
        if locks > 1:
            _log_failed(notices[number:], error)
            return


def _attempt(write: Callable[[Sequence[Notice]], None], notices: Sequence[Notice]) -> Exception | None:
    """Write the notices in a savepoint, and return the error that undid it, None if all went well."""
    try:
        with transaction.atomic():
            sql.set_lock_timeout(sql.TABLE_LOCK_MS)
            write(notices)
            # Otherwise a user deleted just now would undo the whole transaction.
            connection.check_constraints()
            sql.set_lock_timeout()
    except Exception as error:
        if isinstance(error, INTERRUPTIONS) and not sql.is_lock_timeout(error):
            raise
        return error
    return None


def _log_failed(notices: Sequence[Notice], error: Exception) -> None:
    is_locked = sql.is_lock_timeout(error)
    for webhook, event_type in notices:
        logger.warning(
            'webhook=%s name=%r event=%s nobody was notified: %s',
            webhook.pk,
            webhook.name,
            event_type.name,
            'a row was locked' if is_locked else 'it failed',
            exc_info=None if is_locked else error,
        )


def recipients(webhook_ids: Collection[int]) -> set[tuple[int, int]]:
    """Return (webhook's id, user's id) of the active users in the webhooks' notification groups.

    A user is in a group directly, or through a group of users.
    """
    webhooks = Webhook.objects.filter(pk__in=webhook_ids).order_by()
    found: set[tuple[int, int]] = set()
    for users in ('notification_groups__users', 'notification_groups__groups__user'):
        found.update(webhooks.filter(**{f'{users}__is_active': True}).values_list('pk', users))
    return found


def _write(notices: Sequence[Notice]) -> None:
    object_type = ContentType.objects.get_for_model(Webhook)
    last = {webhook.pk: (webhook, event_type) for webhook, event_type in notices}
    Notification.objects.bulk_create(
        [
            Notification(
                user_id=user_id,
                object_type=object_type,
                object_id=pk,
                object_repr=Notification.get_object_repr(last[pk][0]),
                event_type=last[pk][1].name,
            )
            for pk, user_id in sorted(recipients(last))
        ],
        update_conflicts=True,
        unique_fields=['object_type', 'object_id', 'user'],
        update_fields=['event_type', 'object_repr', 'created', 'read'],
    )


def notify_endings() -> None:
    """Notify of client certificates and credentials that have ended, or will in ENDINGS_NOTIFIED_BEFORE: a daily job.

    Only enabled webhooks count. Each end is logged, and people and event rules are notified in a transaction of its
    own. Raises OperationalError if PostgreSQL interrupts it.
    """
    soon = timezone.localdate() + ENDINGS_NOTIFIED_BEFORE
    for webhook in Webhook.objects.filter(enabled=True).select_related('credential'):
        for event_type, end in _ends_of(webhook):
            if end <= soon:
                endings_logger.warning(
                    'webhook=%s name=%r event=%s on %s', webhook.pk, webhook.name, event_type.name, end
                )
                with sql.transaction():
                    notify((webhook, event_type))


def _ends_of(webhook: Webhook) -> Iterator[tuple[EventType, date]]:
    if end := _end_of_certificate(webhook.client_cert_path):
        yield CERTIFICATE_ENDS, end
    if webhook.credential and webhook.credential.valid_until:
        yield CREDENTIAL_ENDS, webhook.credential.valid_until


def _end_of_certificate(path: str) -> date | None:
    """Return the certificate's last day, in NetBox's time zone. None: none is set, or the file cannot be read.

    In the second case deliveries fail, with the reason.
    """
    if not path:
        return None
    try:
        end = x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
    return timezone.localdate(end)
