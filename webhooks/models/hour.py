"""Counts closed deliveries. A redelivery counts again."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import connection, models
from django.utils.timezone import localtime

from .health import Health

KEPT = timedelta(days=8)

COUNTED = ('delivered', 'failed', 'superseded')
ADD = """
    INSERT INTO webhooks_hour AS h (start, health_id, delivered, failed, superseded)
    SELECT %s, * FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[])
    ON CONFLICT (health_id, start) DO UPDATE
    SET delivered = h.delivered + excluded.delivered, failed = h.failed + excluded.failed,
        superseded = h.superseded + excluded.superseded"""


class HourManager(models.Manager):
    def count_all(self, closed: Mapping[int, Mapping[str, int]], now: datetime) -> None:
        """Add {webhook's id: {status: count}} to the hour of `now`, in NetBox's time zone."""
        start = localtime(now).replace(minute=0, second=0, microsecond=0)
        rows = [(pk, *(counts.get(name, 0) for name in COUNTED)) for pk, counts in closed.items()]
        if rows:
            with connection.cursor() as cursor:
                cursor.execute(ADD, [start, *map(list, zip(*rows, strict=True))])


class Hour(models.Model):
    # Not the webhook, whose row an edit may lock.
    health = models.ForeignKey(Health, on_delete=models.DB_CASCADE, related_name='hours', db_index=False)
    start = models.DateTimeField()
    delivered = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    superseded = models.PositiveIntegerField(default=0, db_default=0)

    _netbox_private = True

    objects = HourManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=['health', 'start'], name='webhooks_hour_unique')]

    def __str__(self) -> str:
        return f'{self.health_id} {self.start}: {self.delivered} delivered, {self.failed} failed'
