"""NetBox's own pages. Importing the modules registers their views."""

from . import delivery, event, objects, preview, secret, webhook

__all__ = ('delivery', 'event', 'objects', 'preview', 'secret', 'webhook')
