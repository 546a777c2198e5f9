"""Rows that outlive their webhook."""

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils.functional import cached_property

from .webhook import Webhook


class OfWebhookManager(models.Manager):
    """Hides rows of deleted webhooks; `_base_manager` shows all."""

    @cached_property
    def _existing(self) -> models.QuerySet:
        """Made once: a page with filters asks for it 180 times, and pays for the subquery each time."""
        return super().get_queryset().filter(Exists(self._webhooks()))

    def get_queryset(self) -> models.QuerySet:
        # `db_manager` copies the manager, with what it has cached.
        return self._existing.using(self._db)

    def _webhooks(self) -> models.QuerySet[Webhook]:
        """Return the webhook of a row, if the row is to be seen."""
        return Webhook.objects.filter(pk=OuterRef('webhook_id'))


class LogManager(OfWebhookManager):
    """Also hides the log of a deleted webhook whose id another one has now, until it is removed."""

    def _webhooks(self) -> models.QuerySet[Webhook]:
        its_own = Q(health__former_until=None) | Q(health__former_until__lt=OuterRef('sequence'))
        return super()._webhooks().filter(its_own)
