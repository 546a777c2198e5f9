"""Subscriptions: from one sequence to another, a webhook wants a kind of change of an object type.

A save of a webhook closes and opens them. Closed ones stay, so that earlier changes are still sent. See
docs/architecture.md, *Subscriptions*.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from django.contrib.contenttypes.models import ContentType
from django.db import ProgrammingError, connection, models, transaction
from django.db.models import Case, F, Q, QuerySet, When
from django.db.models.expressions import RawSQL
from django.db.models.signals import m2m_changed, post_save, pre_save
from django.dispatch import receiver
from psycopg.errors import UndefinedTable

from .. import components, config_contexts
from ..choices import KindChoices
from ..default_database import in_transaction
from . import sequence
from .config_context import learn_anew
from .event import Event
from .lists import sync_lists
from .webhook import Webhook

# Read each object type with an open subscription once. It jumps from type to type in the index, so a thousand webhooks
# cost as much as one.
READ_OPEN_TYPES = """
    WITH RECURSIVE step AS (
        (SELECT object_type_id FROM webhooks_subscription WHERE until IS NULL ORDER BY object_type_id LIMIT 1)
        UNION ALL
        SELECT (SELECT s.object_type_id FROM webhooks_subscription s
                WHERE s.until IS NULL AND s.object_type_id > step.object_type_id
                ORDER BY s.object_type_id LIMIT 1)
        FROM step WHERE step.object_type_id IS NOT NULL
    )
    SELECT object_type_id FROM step WHERE object_type_id IS NOT NULL"""
# Whether a subscription asks for each field of Asked, as SQL.
ASKS = ('before', "kind = 'deleted'", 'unchanged', "kind IN ('component', 'source')")
# A type with fewer open subscriptions is read by READ_OPEN_OF_TYPE, and Python sums them up: PostgreSQL plans that in
# half the time of READ_ASKED_OF_TYPES.
MAX_SUBSCRIPTIONS_READ = 30
# Read what each open subscription of an object type asks for.
READ_OPEN_OF_TYPE = f"""
    SELECT {', '.join(ASKS)} FROM webhooks_subscription
    WHERE until IS NULL AND object_type_id = {{object_type_id:d}} LIMIT {MAX_SUBSCRIPTIONS_READ}"""
# Whether an open subscription of an object type asks for something.
SOME_ASKS = """EXISTS (
        SELECT FROM webhooks_subscription s WHERE s.object_type_id = t.object_type_id AND s.until IS NULL AND s.{asks}
    )"""
# Read what all open subscriptions of each object type ask for together.
READ_ASKED_OF_TYPES = f"""
    SELECT t.object_type_id, {', '.join(SOME_ASKS.format(asks=asks) for asks in ASKS)} FROM ({{object_types}}) t"""
# Inside a user's transaction a look runs in a savepoint, in one round trip. If the table is gone, only the savepoint
# fails.
IN_SAVEPOINT = 'SAVEPOINT webhooks_look; {look}; RELEASE SAVEPOINT webhooks_look'
UNDO_SAVEPOINT = 'ROLLBACK TO SAVEPOINT webhooks_look; RELEASE SAVEPOINT webhooks_look'

# Draw a sequence, and read which transaction and which cluster this is.
DRAW_SEQUENCE = f"SELECT nextval('{sequence.SEQUENCE}'), pg_current_xact_id()::text::bigint, {{cluster}}"
# Whether a subscription's transaction ids are from this cluster. After a restore into another, they mean nothing.
IS_HERE = 'coalesce(cluster = {cluster}, false)'
CLUSTER = '(SELECT system_identifier FROM pg_control_system())'
# Read whether this role of PostgreSQL may ask which cluster it is.
MAY_ASK = "SELECT has_function_privilege('pg_control_system()', 'execute')"

# In place of a kind of change, for `include_components`: it covers changes of owners and of their components. The state
# before is recorded with it, because only that names the old owner of an address that moved.
COMPONENT = 'component'
# In place of a kind of change, for `include_config_contexts` (config_contexts.py): changes of sources, whose state
# before is recorded with it, and updates of owners that follow from them.
SOURCE, DERIVED = 'source', 'derived'
ALL_KINDS = (KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED)
# With them the state before is recorded in any case.
NEEDS_BEFORE = (COMPONENT, SOURCE)

# Read the keys that are expanded by webhooks with open subscriptions to deletions of an object type.
READ_EXPANDED_OF_DELETIONS = """
    SELECT DISTINCT key FROM webhooks_subscription s
    JOIN webhooks_webhook w ON w.id = s.webhook_id CROSS JOIN unnest(w.expand) AS key
    WHERE s.object_type_id = %s AND s.kind = 'deleted' AND s.until IS NULL"""


class Asked(NamedTuple):
    """The data that all webhooks together need about an object type. A save records no more.

    `before`: the state before a change. `deletions`: deletions at all. `unchanged`: also saves that change nothing.
    `for_others`: some webhook wants to know which other objects its changes concern.
    """

    before: bool
    deletions: bool
    unchanged: bool
    for_others: bool


class SubscriptionManager(models.Manager):
    """Opens and closes subscriptions, and finds all that may cover a change."""

    def sync(self, webhook: Webhook) -> None:
        """Bring the open subscriptions of a webhook in line with its definition: close some, open others.

        Locks the webhook's row. It runs after each save of the webhook, and after each change of its object types.
        """
        with transaction.atomic():
            # If two edits ran at once, both would open the same subscription. FOR UPDATE would block dispatch.
            Webhook.objects.select_for_update(no_key=True).get(pk=webhook.pk)
            sync_lists(webhook)
            wanted = self._wanted(webhook)
            held = {(s.object_type_id, s.kind): s for s in self.filter(webhook=webhook, until=None)}
            own = self.filter(webhook=webhook, until=None).exclude(kind__in=NEEDS_BEFORE)
            own.exclude(before=webhook.records_before).update(before=webhook.records_before)
            others = self.filter(webhook=webhook, until=None).exclude(kind=SOURCE)
            others.exclude(unchanged=webhook.wants_unchanged).update(unchanged=webhook.wants_unchanged)
            if wanted == held.keys():
                return
            now, transaction_id, cluster = _draw()
            self.filter(pk__in=[s.pk for key, s in held.items() if key not in wanted]).update(
                until=now,
                closed_by=transaction_id,
                opened_by=Case(When(cluster=cluster, then=F('opened_by'))),
                cluster=cluster,
            )
            self.bulk_create(
                self.model(
                    webhook=webhook,
                    object_type_id=object_type_id,
                    kind=kind,
                    since=now,
                    before=webhook.records_before or kind in NEEDS_BEFORE,
                    unchanged=webhook.wants_unchanged and kind != SOURCE,
                    opened_by=transaction_id,
                    cluster=cluster,
                )
                for object_type_id, kind in sorted(wanted - held.keys())
            )
            if owners := [type_id for type_id, kind in wanted - held.keys() if kind == DERIVED]:
                learn_anew(owners, webhook)

    def open_object_types(self) -> dict[int, Asked] | None:
        """Return {content type id: what is asked for} for all object types that some webhook wants.

        None: the tables were removed. An open transaction survives that.
        """
        return _asked(READ_OPEN_TYPES)

    def open_object_type(self, object_type_id: int) -> dict[int, Asked] | None:
        """Return the same for one object type, more cheaply: {} if no webhook wants it, None if the tables were
        removed.
        """
        rows = _look(READ_OPEN_OF_TYPE.format(object_type_id=object_type_id))
        if not rows:
            return None if rows is None else {}
        if len(rows) == MAX_SUBSCRIPTIONS_READ:
            return _asked(f'SELECT {object_type_id:d} AS object_type_id')
        return {object_type_id: Asked(*map(any, zip(*rows, strict=True)))}

    def expanded_of_deletions(self, object_type_id: int) -> list[str]:
        """Return the keys that are expanded by webhooks that want deletions of this type.

        A deletion is rendered with them.
        """
        with connection.cursor() as cursor:
            cursor.execute(READ_EXPANDED_OF_DELETIONS, [object_type_id])
            return [key for (key,) in cursor.fetchall()]

    def near(self, events: Sequence[Event]) -> 'QuerySet[Subscription]':
        """Return the subscriptions that may cover any of the events.

        Then ask each one's `covers`. `events` is not empty.
        """
        oldest = min(event.first_sequence or event.sequence for event in events)
        # All events saw how transactions below this id ended.
        settled = min((_seen(visible)[0] for visible in map(_first_visible, events) if visible), default=None)
        is_near = Q(until=None) | Q(until__gte=oldest)
        if settled is not None:
            is_near |= Q(closed_by__gte=settled)
        types = {event.object_type_id for event in events}
        return self.filter(is_near, object_type_id__in=types).annotate(
            is_here=RawSQL(IS_HERE.format(cluster=_cluster()), ())
        )

    def _wanted(self, webhook: Webhook) -> set[tuple[int, str]]:
        if not webhook.enabled:
            return set()
        object_types = list(webhook.object_types.all())
        wanted = {(object_type.pk, kind) for object_type in object_types for kind in webhook.kinds}
        # By any change an object may enter a list, or leave it.
        wanted |= {(object_type.pk, kind) for object_type in webhook.listed_types() for kind in ALL_KINDS}
        if KindChoices.UPDATED not in webhook.kinds:
            return wanted
        chosen = {object_type.model_class() for object_type in object_types}
        if webhook.include_components:
            owners = [model for model in components.owners() if model in chosen]
            wanted |= _subscriptions([*owners, *components.models_of(owners)], COMPONENT)
        if webhook.include_config_contexts and (owners := config_contexts.owners(chosen)):
            wanted |= _subscriptions(owners, DERIVED) | _subscriptions(config_contexts.sources(), SOURCE)
        return wanted


class Subscription(models.Model):
    """From sequence `since` to `until`, a webhook wants a kind of change of an object type. Null: it is open.

    `kind` may also be COMPONENT, SOURCE or DERIVED. `before` and `unchanged`: as in Asked.
    """

    webhook = models.ForeignKey(Webhook, on_delete=models.DB_CASCADE, related_name='subscriptions')
    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+')
    kind = models.CharField(max_length=20, choices=KindChoices)
    # Sequences, drawn at opening and closing.
    since = models.BigIntegerField()
    until = models.BigIntegerField(null=True)
    # Transaction ids, which count only in this cluster.
    opened_by = models.BigIntegerField(null=True)
    closed_by = models.BigIntegerField(null=True)
    cluster = models.BigIntegerField(null=True)
    # Whether `cluster` is the present one. Only `near` sets it.
    is_here: bool = False
    before = models.BooleanField(default=False)
    # Whether saves that change nothing are wanted. Version 1.0.0 sends them all.
    unchanged = models.BooleanField(default=True, db_default=True)

    _netbox_private = True

    objects = SubscriptionManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=['object_type', 'webhook', 'kind'], condition=Q(until=None), name='webhooks_subscription_open'
            )
        ]
        indexes = [
            models.Index(
                fields=['object_type'], condition=Q(until=None, before=True), name='webhooks_subscription_before'
            ),
            models.Index(
                fields=['object_type'], condition=Q(until=None, kind='deleted'), name='webhooks_subscription_deletion'
            ),
            models.Index(
                fields=['object_type'], condition=Q(until=None, unchanged=True), name='webhooks_subscription_any_save'
            ),
        ]

    def __str__(self) -> str:
        return f'{self.webhook}: {self.object_type} {self.kind}'

    def covers(self, event: Event) -> bool:
        """Whether the webhook wants this event, given that type and kind match. Call it on results of `near`.

        It was open, as committed, before the event's last change, and not closed before its first.
        """
        if self.since >= event.sequence or self._is_hidden(self.opened_by, event, event.visible):
            return False
        return (
            self.until is None
            or (event.first_sequence or event.sequence) <= self.until
            or self._is_hidden(self.closed_by, event, _first_visible(event))
        )

    def _is_hidden(self, transaction_id: int | None, event: Event, visible: str | None) -> bool:
        """Whether the event's transaction did not see that commit, by its snapshot `visible`."""
        if transaction_id is None or visible is None or not self.is_here or transaction_id == event.transaction_id:
            return False
        _lowest, next_one, in_progress = _seen(visible)
        return transaction_id >= next_one or transaction_id in in_progress


def _subscriptions(wanted: Sequence[type[models.Model]], kind: str) -> set[tuple[int, str]]:
    return {(object_type.pk, kind) for object_type in ContentType.objects.get_for_models(*wanted).values()}


def _first_visible(event: Event) -> str | None:
    return event.first_visible or event.visible


@functools.lru_cache
def _seen(visible: str) -> tuple[int, int, frozenset[int]]:
    """Return lowest id in progress, first unassigned id, and ids in progress."""
    lowest, next_one, in_progress = visible.split(':')
    return int(lowest), int(next_one), frozenset(map(int, filter(None, in_progress.split(','))))


def _asked(object_types: str) -> dict[int, Asked] | None:
    rows = _look(READ_ASKED_OF_TYPES.format(object_types=object_types))
    return None if rows is None else {object_type_id: Asked(*asked) for object_type_id, *asked in rows}


def _look(query: str) -> list[tuple] | None:
    is_inside = in_transaction()
    with connection.cursor() as cursor:
        try:
            cursor.execute(IN_SAVEPOINT.format(look=query) if is_inside else query)
        except ProgrammingError as error:
            if not isinstance(error.__cause__, UndefinedTable):
                raise
            if is_inside:
                cursor.execute(UNDO_SAVEPOINT)
            return None
        if is_inside:
            cursor.nextset()
        return cursor.fetchall()


def _draw() -> tuple[int, int, int | None]:
    with connection.cursor() as cursor:
        cursor.execute(DRAW_SEQUENCE.format(cluster=_cluster()))
        return cursor.fetchone()


@functools.cache
def _cluster() -> str:
    """Return SQL for the cluster's id: null if somebody has revoked the right to ask for it."""
    with connection.cursor() as cursor:
        cursor.execute(MAY_ASK)
        return CLUSTER if cursor.fetchone()[0] else 'NULL::bigint'


@receiver(post_save, sender=Webhook, dispatch_uid='webhooks.subscribe')
def _definition_saved(instance: Webhook, created: bool, **kwargs) -> None:
    # A new one has no object types yet.
    if not created:
        Subscription.objects.sync(instance)


@receiver(m2m_changed, sender=Webhook.object_types.through, dispatch_uid='webhooks.subscribe')
def _object_types_changed(instance: Webhook, action: str, **kwargs) -> None:
    if action in ('post_add', 'post_remove', 'post_clear'):
        Subscription.objects.sync(instance)


@receiver(pre_save, sender=Subscription, dispatch_uid='webhooks.subscribe')
def _loaded(instance: Subscription, raw: bool, **kwargs) -> None:
    """Make room for a subscription of a fixture: saving its webhook has just opened the same one."""
    if raw and instance.until is None:
        same = Subscription.objects.filter(
            webhook_id=instance.webhook_id, object_type_id=instance.object_type_id, kind=instance.kind, until=None
        )
        same.exclude(pk=instance.pk).delete()
