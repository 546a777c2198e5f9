"""NetBox's pages for our models. Importing a module registers its views."""

from . import delivery, event, objects, status, webhook, webhook_actions

__all__ = ('delivery', 'event', 'objects', 'status', 'webhook', 'webhook_actions')
