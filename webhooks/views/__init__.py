"""NetBox's pages for our models. urls.py imports them; that registers their views."""

from . import credential, delivery, event, objects, status, webhook, webhook_actions

__all__ = ('credential', 'delivery', 'event', 'objects', 'status', 'webhook', 'webhook_actions')
