"""Names the errors that may break off any work without being its fault. So the work is tried again."""

from django.core.cache import cache
from django.db import InterfaceError, InternalError, OperationalError
from redis import RedisError
from rq.timeouts import BaseTimeoutException

from .exceptions import Busy


class Shortage(Busy):
    """This machine can start no process at the moment, as for lack of memory."""


class Locked(Busy):
    """Somebody holds a table that the work has to read, as `VACUUM FULL` and `ALTER TABLE` do."""


class Lost(Exception):
    """This worker was declared dead, and others have its work. It must record nothing, and begin anew."""


# The connection or transaction ended. For example, PostgreSQL ends a transaction that is idle too long.
BROKEN_OFF = (OperationalError, InterfaceError, InternalError)
INTERRUPTIONS = (*BROKEN_OFF, BaseTimeoutException, Shortage, Locked, Lost)


def is_cache_away(error: Exception) -> bool:
    """Return whether the error came because NetBox's cache is away. It asks the cache.

    While the cache answers, the work itself is to blame: it may use the Redis of a plugin.
    """
    if not isinstance(error, RedisError):
        return False
    try:
        cache.get('config')
    except RedisError:
        return True
    return False
