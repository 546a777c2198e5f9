"""What may break off any work and says nothing of the work itself: it is done again, and no one else is blamed."""

from django.db import InterfaceError, InternalError, OperationalError
from rq.timeouts import BaseTimeoutException

# InternalError: PostgreSQL has ended a transaction that was idle for too long.
BROKEN_OFF = (OperationalError, InterfaceError, InternalError)
INTERRUPTIONS = (*BROKEN_OFF, BaseTimeoutException)
