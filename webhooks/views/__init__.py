"""NetBox's pages for our models. Importing a module registers its views."""

from . import credential, delivery, event, objects, status, webhook, webhook_actions

__all__ = ('credential', 'delivery', 'event', 'objects', 'status', 'webhook', 'webhook_actions')
