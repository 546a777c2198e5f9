"""Times for people."""

from datetime import datetime

from django.utils.timezone import localtime


def moment(when: datetime) -> str:
    """Return a time in the active time zone, to the second, such as '2026-01-31 12:00:00'."""
    return localtime(when).replace(tzinfo=None).isoformat(' ', 'seconds')
