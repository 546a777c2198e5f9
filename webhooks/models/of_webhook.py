"""Rows of a webhook that outlive it: they have no foreign key to it. From its deletion on nobody sees them."""

from django.db import models
from django.db.models import Exists, OuterRef

from .webhook import Webhook


class OfWebhookManager(models.Manager):
    """Shows the rows whose webhook is there. All of them are shown by `_base_manager`."""

    def get_queryset(self) -> models.QuerySet:
        return super().get_queryset().filter(Exists(Webhook.objects.filter(pk=OuterRef('webhook_id'))))
