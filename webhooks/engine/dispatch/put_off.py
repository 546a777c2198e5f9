"""Puts off events of a batch that cannot be dispatched now, with the later events of their objects."""

import logging
from datetime import timedelta

from django.db.models.functions import Now

from ...models import Event
from ...patience import TooSlow
from ..registry import SUSPECT

logger = logging.getLogger('webhooks.dispatch')

# An event that needs a locked table is tried again after this time.
PUT_OFF_PAUSE = timedelta(seconds=1)


class PutOff:
    """The objects of a batch whose events wait. `event in put_off`: an event of its object waits."""

    def __init__(self) -> None:
        # {(id of the model, id of the object): why}
        self._reasons: dict[tuple[int, int], Exception] = {}

    def __contains__(self, event: Event) -> bool:
        return _object(event) in self._reasons

    def add(self, event: Event, reason: Exception) -> None:
        """Postpone the event by PUT_OFF_PAUSE, with the others of its object. `reason`: mostly Locked, or TooSlow.

        An event that takes too long is a suspect at once: another process tries it alone.
        """
        # A table may stay locked for an hour: then the log says it once, and not each second.
        level = logging.WARNING if event.retry_at is None else logging.DEBUG
        logger.log(level, 'event=%s waits reason="%s" (it is tried again)', event.uuid, reason)
        self._reasons[_object(event)] = reason
        found = Event.objects.filter(pk=event.pk, dispatched_at=None)
        if isinstance(reason, TooSlow):
            found.update(retry_at=Now(), lapses=SUSPECT, error=str(reason))
        else:
            found.update(retry_at=Now() + PUT_OFF_PAUSE)

    def reason(self, event: Event) -> Exception:
        """Return why events of its object wait. Raises KeyError if they do not."""
        return self._reasons[_object(event)]


def _object(event: Event) -> tuple[int, int]:
    return event.object_type_id, event.object_id
