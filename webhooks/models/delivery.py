"""A Delivery is one event for one webhook.

    (dispatch) ─▶ pending ──┬── status below 400, no redirect ─────────────────▶ delivered
                    ▲  ▲    ├── attempts used up, expired, cannot be sent ─────▶ failed
                    │  └────┤   retry at                                            │
                    │       └── a later one tells of the object ───────────────▶ superseded
                    └─────────── redeliver ◀────────────────────────────────────────┘

What is being sent stays pending, and stands in the row of its worker. Only a test is `sending`: who asked for it waits
for the answer. `due_at` is null while a delivery is parked behind an earlier one of its object
(engine/deliver/queue.py).

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
FAILED = Q(status=StatusChoices.FAILED)


class DeliveryQuerySet(LogQuerySet):
    def closed(self) -> 'DeliveryQuerySet':
        """Return those that are not open: nothing will be sent unless they are redelivered."""
        return self.exclude(status__in=OPEN_STATUSES)


class Delivery(models.Model):
    """One event for one webhook: its status, and when it is tried next."""

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
    # The id of the first delivery of the request in which it went out with others. Null: it goes alone.
    batch = models.BigIntegerField(_('batch'), null=True)
    # Whether its payload has what its event has expanded: it was made for a webhook that asked for that.
    expanded = models.BooleanField(default=False, db_default=False)
    status = models.CharField(_('status'), max_length=10, choices=StatusChoices, default=StatusChoices.PENDING)
    error = models.TextField(_('error'), blank=True)
    response_status = models.PositiveSmallIntegerField(_('response status'), null=True)
    created = models.DateTimeField(_('created'))
    due_at = models.DateTimeField(_('next attempt'), null=True)
    expires_at = models.DateTimeField(_('expires'))
    finished_at = models.DateTimeField(_('finished'), null=True)
    attempt_count = models.PositiveSmallIntegerField(_('attempts'), default=0)
    # Set by a redelivery: how many attempts there may be in all. Null: the webhook's `max_attempts`.
    attempt_limit = models.PositiveSmallIntegerField(null=True)
    # 1: it was in hand twice when a worker stopped, and may be why (engine/rescue.py); one more for each death.
    lapses = models.SmallIntegerField(default=0, db_default=0)
    # Of a backfill: changes go first, and a later one of its object replaces it while it is untried.
    backfill = models.BooleanField(_('backfill'), default=False, db_default=False)
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
        indexes = [
            # What is due of a webhook, changes and backfills apart.
            models.Index(
                fields=['webhook', 'backfill', 'due_at', 'id'], condition=PENDING, name='webhooks_delivery_next'
            ),
            # What is before and after a delivery of an object; and the object's tab.
            models.Index(
                fields=['object_type', 'object_id', 'webhook', 'status', 'sequence'], name='webhooks_delivery_order'
            ),
            # What expires, and what waits longest.
            models.Index(fields=['webhook', 'expires_at', 'id'], condition=PENDING, name='webhooks_delivery_overdue'),
            # The few that somebody has to look for: suspects, and failures that the status page does not show yet.
            models.Index(
                fields=['status', 'id'],
                condition=PENDING & Q(lapses__gt=0) | FAILED & Q(listed=False),
                name='webhooks_delivery_odd',
            ),
            # What went out in one request.
            models.Index(fields=['batch'], condition=Q(batch__isnull=False), name='webhooks_delivery_batch'),
            # Lists of a webhook, and of a status. Without what is pending: it would be taken for the first index.
            models.Index(fields=['webhook', '-id'], name='webhooks_delivery_webhook'),
            models.Index(fields=['status', '-id'], condition=~PENDING, name='webhooks_delivery_closed'),
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

    def together(self) -> list['Delivery']:
        """Return the deliveries of its request that came to the same end, in the order of their sequence."""
        if self.batch is None:
            return [self]
        others = Delivery.objects.filter(batch=self.batch, webhook=self.webhook_id, status=self.status)
        return list(others.select_related('event').order_by('sequence', 'pk'))

    @property
    def told(self) -> Event:
        """The event, as this delivery tells it."""
        return self.event.spanning(self.span)
