"""A Worker is a process that is at work: until when it is alive, and what it has in hand."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Worker(models.Model):
    """One process of the engine.

    It says what it has in hand before it begins, and puts `alive_until` ahead each time. Anybody may delete the row
    of a worker whose time is over (engine/registry.py). The worker can record nothing without it.
    """

    name = models.CharField(max_length=200)
    started_at = models.DateTimeField(db_default=Now())
    alive_until = models.DateTimeField()
    # Ids of the events that it dispatches and the deliveries that it sends.
    events = ArrayField(models.BigIntegerField(), default=list, db_default=[])
    deliveries = ArrayField(models.BigIntegerField(), default=list, db_default=[])
    # What it does: send, dispatch, or try what was in hand when a worker stopped (suspects).
    role = models.CharField(max_length=10)

    _netbox_private = True

    def __str__(self) -> str:
        return self.name
