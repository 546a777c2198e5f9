"""What a webhook would send, with changes to its definition that are not saved yet."""

import time
from collections.abc import Mapping
from typing import Any

from django.db.models import Model
from django.utils.translation import gettext as _

from . import definition, payloads, permissions
from .exceptions import DefinitionError
from .models import Delivery, Event, Webhook

# Events that are looked through for one whose object the user may view.
LATEST = 50


def show(webhook: Webhook, changes: Mapping[str, Any], user: Model) -> dict[str, Any]:
    """Return method, URL, headers and body of the request for the latest event that the user may see.

    `changes` are fields of the definition that are tried and not saved. Secrets are masked. Raises DefinitionError for
    a field that cannot be used, and where there is no event to show.
    """
    for name, value in changes.items():
        setattr(webhook, name, value)
    for name, reason in definition.errors(webhook).items():
        raise DefinitionError(name, reason)
    delivery = Delivery(webhook=webhook, event=_latest_event(webhook, user))
    request = payloads.build(delivery, time.time())
    url, headers = payloads.mask(request, webhook)
    return {'method': request.method, 'url': url, 'headers': headers, 'body': request.body.decode(errors='replace')}


def _latest_event(webhook: Webhook, user: Model) -> Event:
    types = webhook.object_types.values_list('pk', flat=True)
    latest = list(Event.objects.filter(object_type__in=types).exclude(data='').order_by('-pk')[:LATEST])
    visible = permissions.visible_events(user, latest)
    for event in latest:
        if event.pk in visible:
            return event
    raise DefinitionError('object_types', _('There is no event of these types to show yet: change an object first.'))
