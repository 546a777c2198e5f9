"""A Delivery is one event for one webhook.

                    ┌────── lease ran out ──────┐
                    ▼                           │
    (dispatch) ─▶ pending ──claim──▶ sending ───┴── status below 400, no redirect ──▶ delivered
                    ▲  ▲               │
                    │  └── retry at ───┤
                    ├── redeliver ── failed ◀── attempts used up, expired, cannot be sent
                    └── redeliver ── superseded ◀── pending, where a later one tells of the object

`due_at` says when a pending delivery may be claimed. It is null while the delivery is parked behind an earlier one of
the same object (engine/ordering.py), so that a claim never looks at those that cannot go yet.

A webhook is named by its id alone, without a foreign key in the database: dispatch waits for nobody who edits or
deletes one, and a long log does not go in the transaction that deletes its webhook. Until it is removed
(engine/tidy) nobody sees it: `objects` leaves it out.
"""

import uuid

from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from ..choices import OPEN_STATUSES, KindChoices, StatusChoices
from .confidential import LogQuerySet
from .event import Event
from .of_webhook import OfWebhookManager
from .webhook import Webhook

PENDING = Q(status=StatusChoices.PENDING)
SENDING = Q(status=StatusChoices.SENDING)
FAILED = Q(status=StatusChoices.FAILED)


class DeliveryQuerySet(LogQuerySet):
    def closed(self) -> 'DeliveryQuerySet':
        """Return those that are not open: nothing will be sent unless they are redelivered."""
        return self.exclude(status__in=OPEN_STATUSES)


class Delivery(models.Model):
    """One event, or one batch, for one webhook: its status, and when it is tried next."""

    # Also the `webhook-id` that the receiver sees and the id of the failed job on the status page.
    uuid = models.UUIDField('UUID', default=uuid.uuid4, unique=True, editable=False)
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='deliveries', db_index=False
    )
    event = models.ForeignKey(Event, on_delete=models.DB_CASCADE, related_name='deliveries')
    # Of the event, so that the order per object needs no join.
    object_type = models.ForeignKey(
        ContentType, on_delete=models.DB_CASCADE, related_name='+', db_index=False, verbose_name=_('model')
    )
    object_id = models.BigIntegerField(_('object ID'))
    sequence = models.BigIntegerField(_('sequence'))
    # More than 1: a batch. `event` and what is taken from it are the last one's; all are in BatchItem.
    event_count = models.PositiveIntegerField(_('events'), default=1, db_default=1)
    # Whether its payload has what its events have expanded: it was made for a webhook that asked for that.
    expanded = models.BooleanField(default=False, db_default=False)
    status = models.CharField(_('status'), max_length=10, choices=StatusChoices, default=StatusChoices.PENDING)
    error = models.TextField(_('error'), blank=True)
    response_status = models.PositiveSmallIntegerField(_('response status'), null=True)
    created = models.DateTimeField(_('created'))
    due_at = models.DateTimeField(_('next attempt'), null=True)
    # From when it may overtake an earlier one of its object that is being retried. Null: nobody has counted yet.
    overtake_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(_('expires'))
    finished_at = models.DateTimeField(_('finished'), null=True)
    attempt_count = models.PositiveSmallIntegerField(_('attempts'), default=0)
    # Set by a redelivery: how many attempts there may be in all. Null: the webhook's `max_attempts`.
    attempt_limit = models.PositiveSmallIntegerField(null=True)
    # The claim: only its holder may record an outcome, until `lease_until`.
    lease = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    # 1: it was in hand when a worker stopped, and may be why (engine/quarantine.py); one more for each death.
    lapses = models.SmallIntegerField(default=0, db_default=0)
    # Of a backfill: changes go first, and a later one of its object replaces it while it is untried.
    backfill = models.BooleanField(_('backfill'), default=False, db_default=False)
    # The id of the first delivery of the request in which it went out with others. Null: it goes alone.
    batch = models.BigIntegerField(null=True)
    # Its number in the feed of its webhook. Null: it is in none.
    position = models.BigIntegerField(null=True)
    # Whether the failure has been put on the status page.
    listed = models.BooleanField(default=False)
    # What it tells beside its event, in place of those that it superseded (engine/deliver/merge.py). Null: nothing.
    span = models.JSONField(null=True)

    objects = OfWebhookManager.from_queryset(DeliveryQuerySet)()

    class Meta:
        ordering = ('-pk',)
        verbose_name = _('delivery')
        verbose_name_plural = _('deliveries')
        permissions = [('redeliver', 'Send a delivery again')]
        constraints = [
            models.UniqueConstraint(
                fields=['webhook', 'position'],
                condition=Q(position__isnull=False),
                name='webhooks_delivery_position',
            )
        ]
        indexes = [
            models.Index(
                fields=['webhook', 'due_at', 'id'],
                condition=PENDING & Q(due_at__isnull=False),
                name='webhooks_delivery_due',
            ),
            models.Index(
                fields=['webhook', 'object_type', 'object_id', 'sequence'],
                condition=PENDING,
                name='webhooks_delivery_order',
            ),
            models.Index(fields=['webhook', 'lease_until'], condition=SENDING, name='webhooks_delivery_lease'),
            models.Index(fields=['webhook', 'expires_at', 'id'], condition=PENDING, name='webhooks_delivery_overdue'),
            models.Index(
                fields=['webhook', 'due_at'], condition=PENDING & Q(lapses__gt=0), name='webhooks_delivery_lapsed'
            ),
            models.Index(
                fields=['webhook', 'due_at', 'id'],
                condition=Q(backfill=True, status__in=OPEN_STATUSES),
                name='webhooks_delivery_backfill',
            ),
            models.Index(fields=['id'], condition=FAILED & Q(listed=False), name='webhooks_delivery_unlisted'),
            models.Index(fields=['webhook', '-id'], name='webhooks_delivery_webhook'),
            models.Index(fields=['status', '-id'], name='webhooks_delivery_status'),
            models.Index(fields=['object_type', 'object_id', '-id'], name='webhooks_delivery_object'),
            models.Index(fields=['created'], name='webhooks_delivery_created'),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    def get_absolute_url(self) -> str:
        """Return the path of its page in NetBox."""
        return reverse('plugins:webhooks:delivery', args=[self.pk])

    def get_status_color(self) -> str:
        """Return the colour of the status, by NetBox's names."""
        return StatusChoices.colors[self.status]

    @property
    def kind(self) -> str:
        """The kind of change that it tells of. It may stand for others that it superseded, a creation among them."""
        return (self.span or {}).get('kind', self.event.kind)

    def get_kind_display(self) -> str:
        """Return the kind in words."""
        return dict(KindChoices).get(self.kind, self.kind)

    def get_kind_color(self) -> str | None:
        """Return the colour of the kind, by NetBox's names; None for a kind without one."""
        return KindChoices.colors.get(self.kind)

    @property
    def is_open(self) -> bool:
        """Whether it is pending or being sent."""
        return self.status in OPEN_STATUSES

    @property
    def next_attempt_at(self):
        """When a pending delivery is sent next; None while it is parked or is not pending."""
        return self.due_at if self.status == StatusChoices.PENDING else None

    def events(self) -> list[Event]:
        """Return what the delivery tells of, in the order of the sequence; while it is open, what is not replaced."""
        if self.event_count == 1:
            return [self.event.spanning(self.span)]
        items = list(self.items.select_related('event').order_by('sequence'))
        told = [item for item in items if not item.superseded]
        # The log shows what was superseded altogether.
        return [item.event.spanning(item.span) for item in told or items]


class BatchItem(models.Model):
    """One event of a batch. `open` follows its delivery, for the order."""

    delivery = models.ForeignKey(Delivery, on_delete=models.DB_CASCADE, related_name='items')
    event = models.ForeignKey(Event, on_delete=models.DB_CASCADE, related_name='batch_items')
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='+', db_index=False
    )
    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+', db_index=False)
    object_id = models.BigIntegerField()
    sequence = models.BigIntegerField()
    open = models.BooleanField(default=True)
    # Whether the delivery tells it no more, since a later one does.
    superseded = models.BooleanField(default=False, db_default=False)
    # As that of a delivery.
    span = models.JSONField(null=True)

    _netbox_private = True

    class Meta:
        indexes = [
            models.Index(
                fields=['webhook', 'object_type', 'object_id', 'sequence'],
                condition=Q(open=True),
                name='webhooks_batchitem_line',
            )
        ]

    def __str__(self) -> str:
        return f'{self.event} in {self.delivery}'
