"""NetBox's own pages. Importing the modules registers their views."""

from . import delivery, event, objects, status, webhook

__all__ = ('delivery', 'event', 'objects', 'status', 'webhook')
