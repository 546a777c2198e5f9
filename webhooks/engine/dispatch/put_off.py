"""Events of a batch that cannot be dispatched now. They are tried later, and so is what follows of their objects."""

import logging
from datetime import timedelta

from django.db.models.functions import Now

from ...models import Event
from ..registry import SUSPECT
from ..time_limit import TooSlow

logger = logging.getLogger('webhooks.dispatch')

PUT_OFF_PAUSE = timedelta(seconds=1)


class PutOff:
    def __init__(self) -> None:
        # By object.
        self._reasons: dict[tuple[int, int], Exception] = {}

    def __contains__(self, event: Event) -> bool:
        return _object(event) in self._reasons

    def add(self, event: Event, reason: Exception) -> None:
        """Let the event wait a second. One that takes too long is a suspect at once: it goes on alone elsewhere."""
        logger.warning('event=%s waits reason="%s" (it is tried again)', event.uuid, reason)
        self._reasons[_object(event)] = reason
        found = Event.objects.filter(pk=event.pk, dispatched_at=None)
        if isinstance(reason, TooSlow):
            found.update(retry_at=Now(), lapses=SUSPECT, error=str(reason))
        else:
            found.update(retry_at=Now() + PUT_OFF_PAUSE)

    def reason(self, event: Event) -> Exception:
        return self._reasons[_object(event)]


def _object(event: Event) -> tuple[int, int]:
    return event.object_type_id, event.object_id
