"""A Backfill sends a webhook everything as it is now. There is one a webhook: the last that was started.

    (start) ─▶ running ──▶ completed         all is recorded, and nothing of it waits any more
                 │  ▲  └─▶ failed            its objects cannot be read: `error` says why
                 ▼  │  └─▶ canceled
               paused ───▶ canceled

`position`, `last_id` and `skipped` are its cursor (engine/backfill): what is before it is recorded, apart from the
skipped objects, which somebody was just changing. As the row of the health, this one has no foreign key to the webhook,
so that deleting a webhook waits for no worker. It goes with the webhook's log.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Sum
from django.utils.translation import gettext_lazy as _

from ..choices import OPEN_STATUSES, BackfillStateChoices
from .delivery import Delivery
from .event import Event
from .of_webhook import OfWebhookManager
from .webhook import Webhook


class Backfill(models.Model):
    """What a webhook is sent of everything that exists, and how far that has come."""

    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='backfill', primary_key=True
    )
    state = models.CharField(_('state'), max_length=10, choices=BackfillStateChoices)
    error = models.TextField(_('error'), blank=True)
    # Ids of content types, in the order in which they are sent.
    object_types = ArrayField(models.BigIntegerField(), verbose_name=_('object types'))
    # Of a list of the models, as its URL has it; blank: all objects.
    query = models.TextField(_('filter'), blank=True)
    # Index of the object type that is being recorded; the highest primary key of it that was looked at; and what was
    # locked: [object type, primary key] of each, what was tried last at the end.
    position = models.PositiveSmallIntegerField(default=0)
    last_id = models.BigIntegerField(default=0)
    skipped = ArrayField(ArrayField(models.BigIntegerField()), default=list)
    # Objects: as counted at the start, and those that an event was recorded of.
    total = models.PositiveBigIntegerField(_('objects'))
    recorded = models.PositiveBigIntegerField(_('recorded'), default=0)
    username = models.CharField(_('user'), max_length=150, blank=True)
    started_at = models.DateTimeField(_('started'))
    finished_at = models.DateTimeField(_('finished'), null=True)

    _netbox_private = True

    objects = OfWebhookManager()

    class Meta:
        verbose_name = _('backfill')
        verbose_name_plural = _('backfills')

    def __str__(self) -> str:
        return f'{self.webhook}: {self.recorded} of {self.total}'

    @property
    def is_open(self) -> bool:
        """Whether it is running or paused."""
        return self.state in BackfillStateChoices.OPEN

    def count_open(self) -> int:
        """Return how many of the recorded objects are still to be sent."""
        undispatched = Event.objects.filter(dispatched_at=None, backfill_for=self.pk).count()
        waiting = Delivery.objects.filter(webhook=self.pk, backfill=True, status__in=OPEN_STATUSES)
        return undispatched + (waiting.aggregate(count=Sum('event_count'))['count'] or 0)
