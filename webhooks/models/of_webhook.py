"""Rows that outlive their webhook."""

from django.db import models
from django.db.models import Exists, OuterRef, Q

from .webhook import Webhook


class OfWebhookManager(models.Manager):
    """Hides rows of deleted webhooks; `_base_manager` shows all."""

    def get_queryset(self) -> models.QuerySet:
        return super().get_queryset().filter(Exists(self._webhooks()))

    def _webhooks(self) -> models.QuerySet[Webhook]:
        """Return the webhook of a row, if the row is to be seen."""
        return Webhook.objects.filter(pk=OuterRef('webhook_id'))


class LogManager(OfWebhookManager):
    """Also hides the log of a deleted webhook whose id another one has now, until it is removed."""

    def _webhooks(self) -> models.QuerySet[Webhook]:
        its_own = Q(health__former_until=None) | Q(health__former_until__lt=OuterRef('sequence'))
        return super()._webhooks().filter(its_own)
