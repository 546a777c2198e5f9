from datetime import datetime

from django.utils.timezone import localtime


def moment(when: datetime) -> str:
    return localtime(when).replace(tzinfo=None).isoformat(' ', 'seconds')
