"""An Event is one change to one object, written in the transaction that made it.

outbox/recording.py writes them, in SQL. Some events are no change of their own: outbox/restating.py writes those of
backfills, engine/components.py those of a component's owner, event_rules.py those of NetBox's event rules, and
services/trial.py those of tests. engine/dispatch.py dispatches all but the last two. The life of an event:

    recorded ──▶ dispatched (rendered: `data`; deliveries made)
        └──────▶ gone, where the object was created and deleted in the same transaction, or nobody asked for its kind
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

from ..choices import KindChoices
from .confidential import LogQuerySet


class Event(models.Model):
    """One change to one object, written in the transaction that made it."""

    uuid = models.UUIDField('UUID', default=uuid.uuid4, unique=True, editable=False)
    # Grows with each change of an object, not with time across objects.
    sequence = models.BigIntegerField(_('sequence'))
    # Empty: created and deleted in the same transaction, so there is nothing to tell.
    kind = models.CharField(_('event'), max_length=20, choices=KindChoices, blank=True)
    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+', verbose_name=_('model'))
    object_id = models.BigIntegerField(_('object ID'))
    object_repr = models.CharField(_('object'), max_length=200, blank=True)
    timestamp = models.DateTimeField(_('time'))
    username = models.CharField(_('user'), max_length=150, null=True)
    request_id = models.UUIDField(_('request ID'), null=True)
    # What NetBox shows of the request: id, path, path_info, method, GET, user.
    request = models.JSONField(null=True)
    # {"row": {column: value}, "m2m": {field: [pk]}}, as PostgreSQL's to_jsonb shows the row. Kept until rendered. That
    # of a deletion may have been rendered already: "shown": {"data": JSON text, "display": text}.
    snapshot = models.JSONField(null=True)
    # The same before the change, where a subscribed webhook asks for snapshots or has conditions. Kept until rendered.
    prechange = models.JSONField(null=True)
    # {"prechange": …, "postchange": …} in the form of NetBox's change log, where a webhook asks for snapshots.
    snapshots = models.JSONField(null=True)
    # The REST API's representation, as JSON text: its keys keep the API's order, which jsonb would lose.
    data = models.TextField(blank=True)
    # Keys of `data` that nobody knew any more when it was rendered; null for none.
    partial = models.JSONField(null=True)
    # {URL: object} of what `data` points to and a webhook has asked for, as its own GET showed it: JSON text again; and
    # the ids of the types of these objects.
    expanded = models.TextField(null=True)
    expanded_types = models.JSONField(null=True)
    # Models of what belongs to the object and was changed, where that is why it is told of (engine/components.py).
    caused_by = models.JSONField(null=True)
    error = models.TextField(_('error'), blank=True)
    # Webhooks that asked for the kind but whose conditions were not met or who ignore the user.
    skipped = models.PositiveIntegerField(_('skipped'), default=0)
    # Made by hand, to see whether a webhook works.
    test = models.BooleanField(_('test'), default=False, db_default=False)
    # The id of the one webhook that gets it, where it is no change, but of that webhook's backfill.
    backfill_for = models.BigIntegerField(null=True)
    dispatched_at = models.DateTimeField(_('dispatched'), null=True)
    # The claim of a dispatcher: only its holder may dispatch the event, until `lease_until`.
    lease = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    # Whether it was claimed, was claimed alone, and how often whoever did so died (engine/event_claims.py).
    dispatch_count = models.SmallIntegerField(default=0, db_default=0)
    # How many processes stopped with it in hand; when it is tried again.
    lapses = models.SmallIntegerField(default=0, db_default=0)
    retry_at = models.DateTimeField(null=True)
    # One event per object and transaction. Transaction ids start over after a restore, so the transaction's time
    # belongs to the key.
    transaction_id = models.BigIntegerField()
    transaction_time = models.DateTimeField()
    # Which transactions were committed for its last change, as PostgreSQL's pg_snapshot. Kept until dispatched, as are
    # the sequence and this of its first change, where the transaction has changed the object more than once.
    visible = models.TextField(null=True)
    first_sequence = models.BigIntegerField(null=True)
    first_visible = models.TextField(null=True)

    objects = LogQuerySet.as_manager()

    class Meta:
        ordering = ('-pk',)
        verbose_name = _('event')
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
        return f'{self.object_repr or self.object_id or ""} {self.kind}'.strip()

    def get_absolute_url(self) -> str:
        """Return the path of its page in NetBox."""
        return reverse('plugins:webhooks:event', args=[self.pk])

    def get_kind_color(self) -> str | None:
        """Return the colour of the kind, by NetBox's names; None for a kind without one."""
        return KindChoices.colors.get(self.kind)

    def spanning(self, span: Mapping[str, Any] | None) -> 'Event':
        """Return the event as a delivery with that span tells it: itself, or a copy that is not to be saved."""
        if not span:
            return self
        told = copy.copy(self)
        vars(told).pop('_bodies', None)
        told.kind = span.get('kind', self.kind)
        if self.snapshots and 'prechange' in span:
            told.snapshots = {**self.snapshots, 'prechange': span['prechange']}
        return told

    @property
    def backfill(self) -> bool:
        """Whether it shows the object as it is, for a backfill, and no change."""
        return self.backfill_for is not None

    @property
    def payload_data(self) -> dict[str, Any] | None:
        """`data` as a dictionary, None while it is not rendered."""
        return json.loads(self.data) if self.data else None
