"""Health: the workers' knowledge of a webhook's endpoint. The same row is the lane that a worker owns.

The webhook is no foreign key in PostgreSQL, so editing or deleting it locks no lane.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from ..constants import LATENCY_BUCKET_SECONDS
from . import sequence
from .of_webhook import OfWebhookManager
from .webhook import Webhook
from .worker import Worker

# Read whether a deleted webhook with this id has left anything.
IS_LEFT = """
    SELECT EXISTS (SELECT FROM webhooks_health WHERE webhook_id = %(webhook)s)
        OR EXISTS (SELECT FROM webhooks_delivery WHERE webhook_id = %(webhook)s)"""

# Remove its backfill, lists and hourly figures. Its log may be long, so engine/tidy removes that.
REMOVE_LEFT = """
    WITH backfill AS (DELETE FROM webhooks_backfill WHERE webhook_id = %(webhook)s),
        lists AS (DELETE FROM webhooks_listwalk WHERE webhook_id = %(webhook)s),
        members AS (DELETE FROM webhooks_listmember WHERE webhook_id = %(webhook)s)
    DELETE FROM webhooks_hour WHERE health_id = %(webhook)s"""


def no_latency() -> list[int]:
    """Return the histogram of a new row: a zero for each of LATENCY_BUCKET_SECONDS, and one for slower requests."""
    return [0] * (len(LATENCY_BUCKET_SECONDS) + 1)


class Health(models.Model):
    """The state of a webhook's endpoint: counts, last answer, latency, and since when it is suspended.

    While `suspended_since` is set, one delivery probes the endpoint at `probe_at`, and all others wait.
    """

    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='health', primary_key=True
    )
    # The worker that alone decides which of its deliveries go next. Null: any worker may take the lane.
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
    # When an answer 410 came. If the webhook was enabled after that, engine/tidy forgets it.
    gone_at = models.DateTimeField(null=True)
    # The day on which people were last notified of a failure: that happens once a day.
    failure_told_on = models.DateField(null=True)
    # The histogram: attempts in each of LATENCY_BUCKET_SECONDS, then slower ones. Their total in seconds.
    latency = ArrayField(models.BigIntegerField(), default=no_latency)
    latency_sum = models.FloatField(default=0)
    # The last number that a feed published.
    position = models.BigIntegerField(default=0, db_default=0)
    # Event types that event rules have yet to hear of.
    notices = ArrayField(models.CharField(max_length=50), default=list, db_default=[])

    # The log up to this sequence is that of a deleted webhook with the same id. Until it is removed, nothing is sent.
    former_until = models.BigIntegerField(null=True)

    _netbox_private = True

    objects = OfWebhookManager()

    class Meta:
        verbose_name = _('health')
        verbose_name_plural = _('health')

    def __str__(self) -> str:
        return f'{self.webhook}: {self.delivered} delivered, {self.failed} failed'


@receiver(post_save, sender=Webhook, dispatch_uid='webhooks.health')
def _begin(instance: Webhook, created: bool, **kwargs) -> None:
    """Make the lane of a new webhook.

    Fixtures and restored changes may bring the id of a deleted webhook. Then that one's lane is reset, its hourly
    figures, its backfill and its lists are removed, and `former_until` is set. A worker that owns the lane still leaves
    it by itself.
    """
    if not created:
        return
    its = {'webhook': instance.pk}
    with connection.cursor() as cursor:
        cursor.execute(IS_LEFT, its)
        ((is_left,),) = cursor.fetchall()
        if is_left:
            cursor.execute(REMOVE_LEFT, its)
    health = Health(webhook=instance, former_until=sequence.draw() if is_left else None)
    names = [field.name for field in Health._meta.concrete_fields if field.name not in ('webhook', 'owner')]
    Health.objects.bulk_create([health], update_conflicts=True, unique_fields=['webhook'], update_fields=names)
