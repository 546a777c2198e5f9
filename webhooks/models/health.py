"""The state of a webhook's endpoint, and its lane (engine/deliver/order.py).

While `suspended_since` is set, one delivery probes the endpoint at `probe_at`. Without a foreign key, editing or
deleting the webhook locks no lane.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from ..constants import LATENCY_BUCKETS
from .of_webhook import OfWebhookManager
from .webhook import Webhook
from .worker import Worker


def no_latency() -> list[int]:
    return [0] * (len(LATENCY_BUCKETS) + 1)


class Health(models.Model):
    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='health', primary_key=True
    )
    # Alone decides which deliveries go next.
    owner = models.ForeignKey(Worker, on_delete=models.DB_SET_NULL, null=True, related_name='lanes', db_index=False)
    delivered = models.PositiveBigIntegerField(_('delivered'), default=0)
    failed = models.PositiveBigIntegerField(_('failed'), default=0)
    superseded = models.PositiveBigIntegerField(_('replaced'), default=0, db_default=0)
    last_status = models.PositiveSmallIntegerField(_('last response status'), null=True)
    last_error = models.TextField(_('last error'), blank=True)
    last_attempt_at = models.DateTimeField(_('last attempt'), null=True)
    last_success_at = models.DateTimeField(_('last success'), null=True)
    # Attempts in a row that reach no endpoint.
    unreachable = models.PositiveIntegerField(default=0)
    # Since when every answer was 5xx or 429.
    refused_since = models.DateTimeField(_('errors since'), null=True)
    suspended_since = models.DateTimeField(_('suspended since'), null=True)
    probe_at = models.DateTimeField(_('next attempt'), null=True)
    probes = models.PositiveIntegerField(default=0)
    # A later save of the webhook overrides it.
    gone_at = models.DateTimeField(null=True)
    # People are told once a day.
    failure_told_on = models.DateField(null=True)
    # Attempts in each bucket, and beyond. Total seconds.
    latency = ArrayField(models.BigIntegerField(), default=no_latency)
    latency_sum = models.FloatField(default=0)
    # The last number that a feed published.
    position = models.BigIntegerField(default=0, db_default=0)
    # Event types that event rules have yet to hear of.
    news = ArrayField(models.CharField(max_length=50), default=list, db_default=[])

    _netbox_private = True

    objects = OfWebhookManager()

    class Meta:
        verbose_name = _('health')
        verbose_name_plural = _('health')

    def __str__(self) -> str:
        return f'{self.webhook}: {self.delivered} delivered, {self.failed} failed'


@receiver(post_save, sender=Webhook, dispatch_uid='webhooks.health')
def _webhook_saved(instance: Webhook, created: bool, **kwargs) -> None:
    if created:
        Health.objects.create(webhook=instance)
