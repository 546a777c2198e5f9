"""A delivery in one line."""

from django.utils.text import Truncator
from django.utils.translation import gettext as _

from ..models import Delivery
from ..models.confidential import beginning
from .states import marks_of

# A headline quotes at most this many of the error.
MAX_REASON_CHARS = 60


def headline(delivery: Delivery) -> str:
    """Return webhook, change and state in a line, such as 'inventory · Berlin updated · failed: HTTP 500'.

    Reads the delivery's webhook and event. The object stays unnamed where the reader may not view it.
    """
    event = delivery.event
    change = ' '.join(filter(None, [event.object_repr, delivery.get_kind_display().lower(), *marks_of(event)]))
    return ' · '.join(filter(None, [str(delivery.webhook), change, _state(delivery)]))


def _state(delivery: Delivery) -> str:
    status = delivery.get_status_display().lower()
    if not delivery.error:
        return status
    reason = Truncator(beginning(delivery.error)).chars(MAX_REASON_CHARS)
    return _('{status}: {reason}').format(status=status, reason=reason)
