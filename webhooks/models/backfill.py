"""Backfill: the job that sends all objects of a webhook in their present state."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _

from ..choices import WAITING_STATUSES, BackfillStateChoices
from .delivery import Delivery
from .event import Event
from .of_webhook import OfWebhookManager
from .webhook import Webhook


class Backfill(models.Model):
    """The last backfill of a webhook: which objects it sends, how far it has come, and how it ended.

    `services/backfill.py` starts, pauses and cancels it. A dispatcher that has nothing to dispatch records the objects
    (`engine/walks/backfills.py`): object type after object type, and in each by primary key. `position` and `last_id`
    say where it goes on. The webhook is no foreign key in PostgreSQL, so deleting a webhook waits for no worker.
    """

    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='backfill', primary_key=True
    )
    state = models.CharField(_('state'), max_length=10, choices=BackfillStateChoices)
    error = models.TextField(_('error'), blank=True)
    # Ids of content types, in the order of sending.
    object_types = ArrayField(models.BigIntegerField(), verbose_name=_('object types'))
    # A list's URL query; blank: all objects.
    query = models.TextField(_('filter'), blank=True)
    # The cursor: the index of the current object type, and the highest primary key of it that is recorded.
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
        """Whether it is running or paused, so that no other one may start."""
        return self.state in BackfillStateChoices.OPEN

    def count_open(self) -> int:
        """Return how many of its objects are recorded and not yet sent, failed, replaced or excluded.

        Takes two queries.
        """
        undispatched = Event.objects.filter(dispatched_at=None, backfill_for=self.pk, urgent=False).count()
        own = Delivery.objects.filter(webhook=self.pk, backfill=True, event__backfill_for__isnull=False)
        waiting = own.filter(status__in=WAITING_STATUSES).count()
        return undispatched + waiting
