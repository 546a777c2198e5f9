"""Attempt, the row of a request, and its manager."""

from collections.abc import Collection

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..constants import MAX_RESPONSE_KEPT_CHARS
from .delivery import Delivery


class AttemptManager(models.Manager):
    """Reads attempts without their bodies, which may be long. A body is read when somebody asks for it."""

    def get_queryset(self) -> models.QuerySet['Attempt']:
        """Return all attempts, with `request_body` deferred."""
        return super().get_queryset().defer('request_body')

    def of(self, deliveries: Collection[int]) -> models.QuerySet['Attempt']:
        """Return the attempts that sent any of these deliveries (ids), the newest first."""
        return self.filter(Q(delivery__in=deliveries) | Q(members__overlap=list(deliveries))).order_by('-pk')

    def members_of(self, deliveries: Collection[int]) -> models.QuerySet['Attempt', list[int]]:
        """Return the members of each attempt that sent any of these deliveries (ids) together with others."""
        return self.filter(members__overlap=list(deliveries)).values_list('members', flat=True)


class Attempt(models.Model):
    """One HTTP request, or one message to a broker, for a delivery; with its answer.

    `number` counts a delivery's attempts from 1. `duration` is in seconds.
    """

    # The first one, which gives the request its id.
    delivery = models.ForeignKey(Delivery, on_delete=models.DB_CASCADE, related_name='attempts')
    # The ids of all deliveries of the request, of pruned ones too. Null: it had a single one.
    members = ArrayField(models.BigIntegerField(), null=True)
    number = models.PositiveSmallIntegerField(_('number'))
    started_at = models.DateTimeField(_('started'))
    duration = models.FloatField(_('duration'))
    method = models.CharField(_('method'), max_length=30)
    # With masked secrets, as are the headers.
    url = models.TextField(_('URL'))
    request_headers = models.JSONField(_('request headers'), default=dict)
    # The sent body, for payload/kept.py: compressed, or a recipe that makes it again from its event. An attempt
    # without a request, or of an older version, has neither.
    request_body = models.BinaryField(null=True)
    made_from = models.JSONField(null=True)
    # Null: no response came.
    response_status = models.PositiveSmallIntegerField(_('response status'), null=True)
    response_headers = models.JSONField(_('response headers'), default=dict)
    response_body = models.TextField(_('response body'), blank=True)
    error = models.TextField(_('error'), blank=True)

    objects = AttemptManager()

    _netbox_private = True

    class Meta:
        ordering = ('pk',)
        verbose_name = _('attempt')
        verbose_name_plural = _('attempts')
        indexes = [
            GinIndex(fields=['members'], condition=Q(members__isnull=False), name='webhooks_attempt_members'),
        ]

    def __str__(self) -> str:
        return f'{self.number}: {self.response_status or self.error}'

    @property
    def deliveries(self) -> list[int]:
        """Return the ids of all deliveries of the request, of pruned ones too."""
        return self.members or [self.delivery_id]

    @property
    def is_answer_cut(self) -> bool:
        """Whether the receiver probably said more than is kept: the answer is as long as any that is kept."""
        return len(self.response_body or '') >= MAX_RESPONSE_KEPT_CHARS
