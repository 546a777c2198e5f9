"""Hour: how many deliveries a webhook has closed in an hour, for the charts."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import connection, models
from django.utils.timezone import localtime

from .health import Health

# Older hours are deleted. The charts show a week.
HOUR_RETENTION = timedelta(days=8)

COUNTED_STATUSES = ('delivered', 'failed', 'superseded')
# Add counts to the hour of several webhooks. A missing hour is inserted.
ADD_TO_HOUR = """
    INSERT INTO webhooks_hour AS h (start, health_id, delivered, failed, superseded)
    SELECT %s, * FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[])
    ON CONFLICT (health_id, start) DO UPDATE
    SET delivered = h.delivered + excluded.delivered, failed = h.failed + excluded.failed,
        superseded = h.superseded + excluded.superseded"""


class HourManager(models.Manager):
    """Adds to the counts of many webhooks at once."""

    def count_all(self, closed: Mapping[int, Mapping[str, int]], now: datetime) -> None:
        """Add {webhook's id: {status: count}} to the hour of `now`, in NetBox's time zone, in one statement."""
        start = localtime(now).replace(minute=0, second=0, microsecond=0)
        rows = [(pk, *(counts.get(name, 0) for name in COUNTED_STATUSES)) for pk, counts in closed.items()]
        if rows:
            with connection.cursor() as cursor:
                cursor.execute(ADD_TO_HOUR, [start, *map(list, zip(*rows, strict=True))])


class Hour(models.Model):
    """The deliveries of a webhook that were closed in the hour from `start` on, by status.

    A redelivery counts again.
    """

    # It refers to the lane, because an edit may lock the webhook's row, and counting would wait.
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
