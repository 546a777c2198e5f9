"""A webhook has one Backfill, its last. `position` and `last_id` are the cursor.

Without a foreign key, deletions wait for no worker.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _

from ..choices import WAITING_STATUSES, BackfillStateChoices
from .delivery import Delivery
from .event import Event
from .of_webhook import OfWebhookManager
from .webhook import Webhook


class Backfill(models.Model):
    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='backfill', primary_key=True
    )
    state = models.CharField(_('state'), max_length=10, choices=BackfillStateChoices)
    error = models.TextField(_('error'), blank=True)
    # Ids of content types.
    object_types = ArrayField(models.BigIntegerField(), verbose_name=_('object types'))
    # A list's URL query; blank: all objects.
    query = models.TextField(_('filter'), blank=True)
    # Index of the current object type, and its highest key.
    position = models.PositiveSmallIntegerField(default=0)
    last_id = models.BigIntegerField(default=0)
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
        return self.state in BackfillStateChoices.OPEN

    def count_open(self) -> int:
        undispatched = Event.objects.filter(dispatched_at=None, backfill_for=self.pk).count()
        waiting = Delivery.objects.filter(webhook=self.pk, backfill=True, status__in=WAITING_STATUSES).count()
        return undispatched + waiting
