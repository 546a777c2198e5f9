"""What may break off any work and says nothing of the work itself: it is done again, and no one else is blamed."""

from django.core.cache import cache
from django.db import InterfaceError, InternalError, OperationalError
from redis import RedisError
from rq.timeouts import BaseTimeoutException

# InternalError: PostgreSQL has ended a transaction that was idle for too long.
BROKEN_OFF = (OperationalError, InterfaceError, InternalError)
INTERRUPTIONS = (*BROKEN_OFF, BaseTimeoutException)


def is_cache_away(error: Exception) -> bool:
    """Whether the error says that NetBox's cache does not answer, in which its configuration is.

    As long as that answers, the work is to blame: it may have asked a plugin's Redis.
    """
    if not isinstance(error, RedisError):
        return False
    try:
        cache.get('config')
    except RedisError:
        return True
    return False
