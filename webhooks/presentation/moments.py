"""Points in time as both UIs show them: as NetBox does, and not as Django's admin would by itself."""

from datetime import datetime

from django.utils.timezone import localtime


def moment(when: datetime) -> str:
    """Return the local time to the second."""
    return localtime(when).replace(tzinfo=None).isoformat(' ', 'seconds')
