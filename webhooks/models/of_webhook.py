"""Managers of rows that outlive their webhook, until `engine/tidy` removes them."""

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils.functional import cached_property

from .webhook import Webhook


class OfWebhookManager(models.Manager):
    """Finds only rows whose webhook exists. `_base_manager` finds all."""

    @cached_property
    def _existing(self) -> models.QuerySet:
        """Return rows whose webhook exists. A page with filters asks 180 times, so the subquery is made once."""
        return super().get_queryset().filter(Exists(self._webhooks()))

    def get_queryset(self) -> models.QuerySet:
        """Return the rows whose webhook exists."""
        # `db_manager` copies the manager, and its cached queryset.
        return self._existing.using(self._db)

    def _webhooks(self) -> models.QuerySet[Webhook]:
        """Return the webhook of a row, if the row is to be seen."""
        return Webhook.objects.filter(pk=OuterRef('webhook_id'))


class LogManager(OfWebhookManager):
    """Finds only deliveries of existing webhooks, and none of a deleted one whose id a new webhook has now."""

    def _webhooks(self) -> models.QuerySet[Webhook]:
        its_own = Q(health__former_until=None) | Q(health__former_until__lt=OuterRef('sequence'))
        return super()._webhooks().filter(its_own)
