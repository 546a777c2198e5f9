"""NetBox's pages for our models. urls.py imports them; that registers their views."""

from . import actions, credential, delivery, event, objects, send_now, status, webhook, webhook_forms

__all__ = ('actions', 'credential', 'delivery', 'event', 'objects', 'send_now', 'status', 'webhook', 'webhook_forms')
