"""What may break off any work and says nothing of the work itself: it is done again, and no one else is blamed."""

from django.db import InterfaceError, OperationalError
from rq.timeouts import BaseTimeoutException

INTERRUPTIONS = (OperationalError, InterfaceError, BaseTimeoutException)
