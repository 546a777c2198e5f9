"""NetBox's own pages. Importing the modules registers their views."""

from . import delivery, event, objects, status, webhook, webhook_actions

__all__ = ('delivery', 'event', 'objects', 'status', 'webhook', 'webhook_actions')
