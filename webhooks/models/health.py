"""Health: how a webhook's endpoint has been answering. Not part of its definition, so a row of its own.

A webhook is suspended while `suspended_since` is set: one delivery probes its endpoint at `probe_at`, the others wait.

The row is also the webhook's lane: whoever changes its deliveries locks it first (engine/lanes.py), be it a worker or
what people ask of deliveries. So no edit, renaming or deletion of a webhook locks it: it has no foreign key to the
webhook, outlives it, and goes with the last of its log. What an edit changes here is written after its commit.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models.signals import m2m_changed, post_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from ..constants import LATENCY_BUCKETS
from .of_webhook import OfWebhookManager
from .webhook import Webhook
from .worker import Worker


def no_latency() -> list[int]:
    """Return the counts of a webhook without attempts: one for each of LATENCY_BUCKETS, one for those beyond."""
    return [0] * (len(LATENCY_BUCKETS) + 1)


class Health(models.Model):
    """How a webhook's endpoint has been answering, and whether the webhook is suspended."""

    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='health', primary_key=True
    )
    # The worker that sends its deliveries, and alone decides which go next.
    owner = models.ForeignKey(Worker, on_delete=models.DB_SET_NULL, null=True, related_name='lanes', db_index=False)
    delivered = models.PositiveBigIntegerField(_('delivered'), default=0)
    failed = models.PositiveBigIntegerField(_('failed'), default=0)
    superseded = models.PositiveBigIntegerField(_('superseded'), default=0, db_default=0)
    last_status = models.PositiveSmallIntegerField(_('last response status'), null=True)
    last_error = models.TextField(_('last error'), blank=True)
    last_attempt_at = models.DateTimeField(_('last attempt'), null=True)
    last_success_at = models.DateTimeField(_('last success'), null=True)
    # Attempts in a row that found no endpoint: connection refused, timeout, …
    unreachable = models.PositiveIntegerField(default=0)
    suspended_since = models.DateTimeField(_('suspended since'), null=True)
    probe_at = models.DateTimeField(_('next probe'), null=True)
    probes = models.PositiveIntegerField(default=0)
    # When the endpoint last asked not to be called again (410). Whoever saves the webhook later has the last word.
    gone_at = models.DateTimeField(null=True)
    # The day on which people were last told of a failed delivery: they are told once a day.
    failure_told_on = models.DateField(null=True)
    # Attempts by duration: one count for each of LATENCY_BUCKETS, and one for those beyond. Seconds in all.
    latency = ArrayField(models.BigIntegerField(), default=no_latency)
    latency_sum = models.FloatField(default=0)
    # Of a feed: the number of the last delivery that was published.
    position = models.BigIntegerField(default=0, db_default=0)
    # Names of event types that event rules have not been told of yet.
    news = ArrayField(models.CharField(max_length=50), default=list, db_default=[])
    # Token bucket of the rate limit: what was left, and when.
    tokens = models.FloatField(default=0)
    tokens_at = models.DateTimeField(null=True)

    _netbox_private = True

    objects = OfWebhookManager()

    class Meta:
        verbose_name = _('health')
        verbose_name_plural = _('health')

    def __str__(self) -> str:
        return f'{self.webhook}: {self.delivered} delivered, {self.failed} failed'


@receiver(post_save, sender=Webhook, dispatch_uid='webhooks.health')
def _webhook_saved(instance: Webhook, created: bool, **kwargs) -> None:
    """A webhook has its health from the beginning."""
    if created:
        Health.objects.create(webhook=instance)


@receiver(m2m_changed, sender=Webhook.notification_groups.through, dispatch_uid='webhooks.health')
def _recipients_changed(instance: Webhook, action: str, **kwargs) -> None:
    """Who is chosen today has not been told of today's failures."""
    if action == 'post_add':
        transaction.on_commit(lambda: _tell_again(instance.pk), robust=True)


@transaction.atomic
def _tell_again(webhook_id: int) -> None:
    """Without a wait: where a worker holds the row at this very moment, people are told tomorrow."""
    told = Health.objects.filter(webhook=webhook_id, failure_told_on__isnull=False)
    for health in told.select_for_update(skip_locked=True):
        health.failure_told_on = None
        health.save(update_fields=['failure_told_on'])
