"""Sends all present objects of a webhook, in slices of events: a backfill."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import F, Model

from ... import delivery_states as states
from ... import list_filters
from ...choices import BackfillStateChoices
from ...exceptions import reason_of
from ...models import Backfill
from ...outbox import restating
from ...storable import storable
from .. import notifications, sql
from .loop import Walk

RUNNING = BackfillStateChoices.RUNNING
COMPLETED = BackfillStateChoices.COMPLETED
FAILED = BackfillStateChoices.FAILED

# While a backfill has this many undispatched events and unsent deliveries, no further slice is recorded.
MAX_OPEN_OBJECTS = 600

# Read the running backfills of active webhooks that can go on: few of their objects are open, or, at the end, none.
READY_BACKFILLS = f"""
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_webhook w ON w.id = b.webhook_id
    WHERE b.state = 'running' AND w.enabled AND NOT w.paused AND (
        SELECT count(*) FROM (
            SELECT FROM webhooks_event e
            WHERE e.backfill_for = b.webhook_id AND e.dispatched_at IS NULL AND NOT e.urgent
            UNION ALL
            SELECT FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
            WHERE d.webhook_id = b.webhook_id AND d.backfill AND d.status {states.WAITING}
              AND e.backfill_for IS NOT NULL
            LIMIT %(most)s
        ) is_open
    ) < CASE WHEN b.position < cardinality(b.object_types) THEN %(most)s ELSE 1 END"""


class BackfillWalk(Walk[Backfill]):
    """A running backfill. If its filter or its model is at fault, it gets the state `failed` with the reason."""

    guards = ('state', 'started_at', 'position', 'last_id')

    @classmethod
    def ready(cls) -> list['BackfillWalk']:
        """Return the running backfills of active webhooks that do not wait for their own objects."""
        pks = sql.fetch_column(READY_BACKFILLS, {'most': MAX_OPEN_OBJECTS})
        found = Backfill.objects.select_related('webhook').filter(pk__in=pks, state=RUNNING) if pks else ()
        return [cls(backfill, backfill.object_types, backfill.position) for backfill in found]

    def find(self, model: type[Model], type_id: int, count: int) -> tuple[Sequence[int], int | None]:
        """Return the next objects that match its filter."""
        if not self.row.webhook.object_types.filter(pk=type_id).exists():
            return [], None
        return list_filters.after(model, self.row.query, self.last_id, count)

    def record(self, model: type[Model], type_id: int, pks: Sequence[int], upto: int, now: datetime) -> bool:
        """Record an event for each object that is still there, and count these."""
        if pks:
            recorded = restating.restate(self.row.webhook, model, pks, now)
            Backfill._base_manager.filter(pk=self.row.pk).update(recorded=F('recorded') + recorded)
        return True

    def end(self, now: datetime) -> bool:
        """Complete it, and notify people."""
        return self._end(COMPLETED, now)

    def fail(self, error: Exception) -> bool:
        """End it with the reason, and notify people."""
        with sql.transaction() as now:
            return self._end(FAILED, now, storable(reason_of(error)))

    def _end(self, state: str, now: datetime, error: str = '') -> bool:
        is_ended = self.write(state=state, error=error, finished_at=now)
        if is_ended:
            event_type = notifications.BACKFILLED if state == COMPLETED else notifications.BACKFILL_FAILED
            notifications.notify((self.row.webhook, event_type))
        return is_ended
