"""NetBox's pages for our models. urls.py imports them; that registers their views.

webhook, credential, definition, delivery, event, status: the pages. objects: the tab on NetBox's objects.
action_views: actions on an object. webhook_forms: actions that ask for something first. send_now: *Send now*.
imports: from CSV, JSON or YAML.
checked_input: refuses wrong filters and names in bulk actions.
"""

from . import action_views, credential, definition, delivery, event, objects, send_now, status, webhook, webhook_forms

__all__ = (
    'action_views',
    'credential',
    'definition',
    'delivery',
    'event',
    'objects',
    'send_now',
    'status',
    'webhook',
    'webhook_forms',
)
