"""Rows that outlive their webhook."""

from django.db import models
from django.db.models import Exists, OuterRef

from .webhook import Webhook


class OfWebhookManager(models.Manager):
    """Hides rows of deleted webhooks; `_base_manager` shows all."""

    def get_queryset(self) -> models.QuerySet:
        return super().get_queryset().filter(Exists(Webhook.objects.filter(pk=OuterRef('webhook_id'))))
