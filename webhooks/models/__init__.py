"""The tables: webhooks with their subscriptions, and the log of events, deliveries and attempts.

docs/architecture.md defines the words. Import models from here; constants and query functions from the file that has
them.

webhook: a webhook's columns, which changes it wants, and where its requests go. signing_secret says how it signs.
subscription: what a webhook asked for, and since when.
health: the state of its endpoint, which is its lane. backfill, hour, credential: what else it has.
event, delivery, attempt: the log. sequence numbers it. status_field computes the status of a delivery from its state.
    of_webhook hides rows of deleted webhooks, and confidential hides columns from readers. querysets are for lists and
    pages.
config_context: digests of the config contexts that were sent. lists: lists, and the objects of them that were sent.
worker: a process at work.
concurrent: saves that two people make at once, and updates that wait for no lock.
exported: a webhook as YAML. managed: which document keeps an object. definition: a file of a data source that is
    applied.
fields: encrypted and masked columns. stored_urls seals URLs that are stored in clear.
"""

from .attempt import Attempt
from .backfill import Backfill
from .config_context import ContextDigest, ContextWalk
from .credential import AccessToken, Credential
from .definition import Definition
from .delivery import Delivery
from .event import Event
from .health import Health
from .hour import Hour
from .lists import ListMember, ListWalk
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
    'Definition',
    'Delivery',
    'Event',
    'Health',
    'Hour',
    'ListMember',
    'ListWalk',
    'Subscription',
    'Webhook',
    'Worker',
)
