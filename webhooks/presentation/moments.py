"""Times for people."""

from datetime import datetime

from django.utils.timezone import localtime


def moment(when: datetime) -> str:
    """Return a time in the active time zone, to the second, such as '2026-01-31 12:00:00'."""
    return localtime(when).replace(tzinfo=None).isoformat(' ', 'seconds')


def exact_moment(when: datetime) -> str:
    """Return a time for a form that takes it back unchanged, such as '2026-01-31 12:00:00.123456+01:00'.

    When clocks go back, an hour comes twice: only the offset says which one it is.
    """
    return localtime(when).isoformat(' ')
