"""Event: one change to one object, written in the transaction that made it.

Backfills, changes of components and of config contexts, event rules and tests make events as well; these show no change
of their object. No dispatcher takes the events of event rules and tests.
"""

import copy
import json
import uuid
from collections.abc import Mapping
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .. import config_contexts
from ..choices import KindChoices
from .confidential import LogQuerySet


class Event(models.Model):
    """One change to one object: kind, object, author, payload, and whether it is dispatched.

    A second change of the object in the same transaction updates the row. A worker turns `snapshot` into `data`, the
    payload, and makes the deliveries.
    """

    uuid = models.UUIDField('UUID', default=uuid.uuid4, unique=True, editable=False)
    # Grows with each change of an object, not with time.
    sequence = models.BigIntegerField(_('sequence'))
    # Empty: the object was created and deleted in one transaction. An event rule also brings names of plugins' event
    # types.
    kind = models.TextField(pgettext_lazy('webhooks', 'event'), choices=KindChoices, blank=True)
    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+', verbose_name=_('model'))
    object_id = models.BigIntegerField(_('object ID'))
    object_repr = models.CharField(_('object'), max_length=200, blank=True)
    timestamp = models.DateTimeField(_('time'))
    username = models.CharField(_('user'), max_length=150, null=True)
    request_id = models.UUIDField(_('request ID'), null=True)
    # Keys: id, path, path_info, method, GET, user.
    request = models.JSONField(null=True)
    changelog_message = models.TextField(_('changelog message'), null=True)
    # Until rendered: outbox/snapshots.py. A rendered deletion also has "shown" (rendering/bulk.py).
    snapshot = models.JSONField(null=True)
    # A digest of the row in the snapshot (outbox/unchanged.py), if a list may concern the event.
    row_state = models.UUIDField(null=True)
    # A snapshot of the object before the change, if some webhook needs it.
    prechange = models.JSONField(null=True)
    # Headers of W3C Trace Context of the request that made the change.
    trace = models.JSONField(null=True)
    # {"id": …, "name": …} of netbox-branching's branch, if a merge made the change.
    branch = models.JSONField(null=True)
    # {"prechange": …, "postchange": …}, as in the change log.
    snapshots = models.JSONField(null=True)
    # JSON text: jsonb would lose the order of keys.
    data = models.TextField(blank=True)
    # Keys of `data` whose values were no longer known at rendering.
    partial = models.JSONField(null=True)
    # JSON text {URL: object}, with the ids of their types.
    expanded = models.TextField(null=True)
    expanded_types = models.JSONField(null=True)
    # The models of components, or of sources of its config context, whose change made this event of their owner. Null:
    # the object itself changed.
    caused_by = models.JSONField(null=True)
    error = models.TextField(_('error'), blank=True)
    # Webhooks whose conditions or ignored users excluded it.
    skipped = models.PositiveIntegerField(_('webhooks that skipped it'), default=0)
    test = models.BooleanField(_('test'), default=False, db_default=False)
    # The id of the webhook whose backfill recorded it.
    backfill_for = models.BigIntegerField(null=True)
    # Somebody sends this object now. So its delivery goes in turn with changes, and no backfill's state concerns it.
    urgent = models.BooleanField(default=False, db_default=False)
    dispatched_at = models.DateTimeField(_('processed'), null=True)
    # See Delivery.
    lapses = models.SmallIntegerField(default=0, db_default=0)
    stopped = models.BooleanField(default=False, db_default=False)
    retry_at = models.DateTimeField(null=True)
    # The transaction that made the change. After a restore its ids repeat, so the time belongs to the key.
    transaction_id = models.BigIntegerField()
    transaction_time = models.DateTimeField()
    # PostgreSQL's snapshot (pg_snapshot) at the last change in the transaction, and at the first if there are several.
    visible = models.TextField(null=True)
    first_sequence = models.BigIntegerField(null=True)
    first_visible = models.TextField(null=True)

    # Whether the object 'entered' or 'left' a list, taken from the delivery's span.
    membership: str | None = None

    objects = LogQuerySet.as_manager()

    class Meta:
        ordering = ('-pk',)
        verbose_name = pgettext_lazy('webhooks', 'event')
        verbose_name_plural = _('events')
        constraints = [
            models.UniqueConstraint(
                fields=['transaction_id', 'transaction_time', 'object_type', 'object_id'],
                condition=Q(dispatched_at=None),
                name='webhooks_event_merge',
            )
        ]
        indexes = [
            models.Index(fields=['sequence'], condition=Q(dispatched_at=None), name='webhooks_event_undispatched'),
            models.Index(
                fields=['object_type', 'object_id', 'sequence'],
                condition=Q(dispatched_at=None),
                name='webhooks_event_chain',
            ),
            models.Index(
                fields=['backfill_for'],
                condition=Q(dispatched_at=None, backfill_for__isnull=False),
                name='webhooks_event_backfill',
            ),
            models.Index(
                fields=['sequence'], condition=Q(dispatched_at=None, lapses__gt=0), name='webhooks_event_suspect'
            ),
            models.Index(fields=['object_type', 'object_id', '-sequence'], name='webhooks_event_object'),
            models.Index(fields=['timestamp'], name='webhooks_event_timestamp'),
        ]

    def __str__(self) -> str:
        return f'{self.object_repr or self.object_id or ""} {self.get_kind_display().lower()}'.strip()

    def get_absolute_url(self) -> str:
        """Return the address of its page in NetBox."""
        return reverse('plugins:webhooks:event', args=[self.pk])

    def get_kind_color(self) -> str | None:
        """Return the colour of NetBox's badge for its kind of change. None: an event rule's kind."""
        return KindChoices.colors.get(self.kind)

    def spanning(self, span: Mapping[str, Any] | None) -> 'Event':
        """Return the event as a delivery with this `span` sends it, or itself without one. Do not save the copy.

        A span has the kind of change and the state before, if several changes have become one
        (engine/deliver/superseding.py), or the membership in a list (engine/dispatch/memberships.py).
        """
        if not span:
            return self
        as_sent = copy.copy(self)
        # The cached bodies of the event itself (payload/): its kind and its state before may differ.
        for made in ('_bodies', '_narrowed'):
            vars(as_sent).pop(made, None)
        as_sent.kind = span.get('kind', self.kind)
        as_sent.membership = span.get('membership')
        if self.snapshots and 'prechange' in span:
            as_sent.snapshots = {**self.snapshots, 'prechange': span['prechange']}
        return as_sent

    @property
    def backfill(self) -> bool:
        """Whether a backfill recorded it, for one webhook only."""
        return self.backfill_for is not None

    @property
    def is_derived(self) -> bool:
        """Whether the object's config context changed because another object changed."""
        return config_contexts.is_derived(self.caused_by)

    @property
    def payload_data(self) -> dict[str, Any] | None:
        """Return the object as the REST API shows it, parsed. None: it is not rendered yet."""
        return json.loads(self.data) if self.data else None
