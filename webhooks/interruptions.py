"""Errors that may break off any work without being its fault."""

from django.core.cache import cache
from django.db import InterfaceError, InternalError, OperationalError
from redis import RedisError
from rq.timeouts import BaseTimeoutException

from .exceptions import Busy


class Shortage(Busy):
    """This machine can start no process at the moment."""


class Locked(Busy):
    """Somebody holds a table that the work has to read, as `VACUUM FULL` and `ALTER TABLE` do."""


class Lost(Exception):
    """This worker was declared dead."""


# PostgreSQL ends a transaction that is idle too long.
BROKEN_OFF = (OperationalError, InterfaceError, InternalError)
INTERRUPTIONS = (*BROKEN_OFF, BaseTimeoutException, Shortage, Locked, Lost)


def is_cache_away(error: Exception) -> bool:
    """While the cache answers, the work is to blame: it may use a plugin's Redis."""
    if not isinstance(error, RedisError):
        return False
    try:
        cache.get('config')
    except RedisError:
        return True
    return False
