"""Worker: the row of a living process of the engine."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Worker(models.Model):
    """A living process of the engine, and which events and deliveries it has in hand.

    Each turn renews `alive_until`. After that time any sender may delete the row (engine/rescue.py), and without its
    row a worker records nothing.
    """

    name = models.CharField(max_length=200)
    started_at = models.DateTimeField(db_default=Now())
    alive_until = models.DateTimeField()
    # Ids of events to dispatch, and of deliveries to send.
    events = ArrayField(models.BigIntegerField(), default=list, db_default=[])
    deliveries = ArrayField(models.BigIntegerField(), default=list, db_default=[])
    # One of engine/registry.py. It is `dead` while some of its deliveries or lanes are still to be freed.
    role = models.CharField(max_length=10)

    _netbox_private = True

    def __str__(self) -> str:
        return self.name
