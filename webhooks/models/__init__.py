"""The tables: webhooks with their subscriptions, and the log of events, deliveries and attempts.

docs/architecture.md defines the words. Import models from here; constants and query functions from the file that has
them.
"""

from .attempt import Attempt
from .backfill import Backfill
from .config_context import ContextDigest, ContextWalk
from .credential import AccessToken, Credential
from .delivery import Delivery
from .event import Event
from .health import Health
from .hour import Hour
from .subscription import Subscription
from .webhook import Webhook
from .worker import Worker

__all__ = (
    'AccessToken',
    'Attempt',
    'Backfill',
    'ContextDigest',
    'ContextWalk',
    'Credential',
    'Delivery',
    'Event',
    'Health',
    'Hour',
    'Subscription',
    'Webhook',
    'Worker',
)
