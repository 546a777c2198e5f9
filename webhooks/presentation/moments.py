from datetime import datetime

from django.utils.timezone import localtime


def moment(when: datetime) -> str:
    """Return the local time to the second, in NetBox's format."""
    return localtime(when).replace(tzinfo=None).isoformat(' ', 'seconds')
