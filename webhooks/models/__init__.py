"""The stored models, one per file. docs/glossary.md defines the words."""

from .attempt import Attempt
from .backfill import Backfill
from .delivery import BatchItem, Delivery
from .event import Event
from .health import Health
from .hour import Hour
from .subscription import Subscription
from .webhook import Webhook
from .worker import Worker

__all__ = (
    'Attempt',
    'Backfill',
    'BatchItem',
    'Delivery',
    'Event',
    'Health',
    'Hour',
    'Subscription',
    'Webhook',
    'Worker',
)
